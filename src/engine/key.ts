/** Keys and entries as the user sees them. */

import { copyOfBytes, isByteArray } from '../base/byte-array.js';
import { settledKey } from '../table/key-codec.js';
import type { OrderedKey } from '../table/ordered-keys.js';
import type { Scratch } from '../table/scratch.js';

/** UTF-8 string or bytes, 1 to 65,535 bytes long. A string and its UTF-8 bytes are the same key. */
export type Key = string | Uint8Array;

/** What is taken for a key: in a store or a sublevel with `keyEncoding: 'ordered'` other kinds of values, too. */
export type AnyKey = Key | OrderedKey;

export interface Entry<V = unknown> {
  value: V;
  /** LSN of the write that made this value: the version for `ifVersion`. */
  lsn: number;
  /** When it expires, in ms since 1970; absent where it does not. */
  expiresAt?: number;
}

/** A key that stays as it is although the caller goes on to change what it gave; and see `settledKey`. */
export function copyOfKey(scratch: Scratch, key: AnyKey): AnyKey {
  const settled = settledKey(scratch, key) as AnyKey;
  return isByteArray(settled) ? copyOfBytes(settled) : settled;
}
