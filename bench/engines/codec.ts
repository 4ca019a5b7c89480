/** Values as bytes, for engines that know only these. Strings and bytes as they are, all others by msgpackr, as lmdb-js has it. */

import { Packr } from 'msgpackr';
import type { ValueKind } from '../support/data-set.js';

export interface Codec {
  readonly isText: boolean;
  encode(value: unknown): Buffer | string;
  decode(stored: Buffer | string): unknown;
}

const TEXT: Codec = { isText: true, encode: (value) => value as string, decode: (stored) => stored };
const BYTES: Codec = { isText: false, encode: (value) => value as Buffer, decode: (stored) => stored };
/** With structures that all values share, in memory: the quickest that there is. */
function packed(): Codec {
  const packr = new Packr({ structures: [] });
  return { isText: false, encode: (value) => packr.pack(value), decode: (stored) => packr.unpack(stored as Buffer) as unknown };
}

export function codecOf(kind: ValueKind): Codec {
  if (kind === 'string' || kind === 'short') return TEXT;
  return kind === 'buffer' || kind === 'large' ? BYTES : packed();
}
