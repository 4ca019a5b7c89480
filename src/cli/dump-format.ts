/**
 * A line of `dump`, from which `load --dumped` makes the same entry again:
 *
 *     {"key":…,"value":…}      key and value as JSON has them
 *     "key":{"base64":…}       a key that is not UTF-8
 *     "bytes":…                instead of "value": bytes, in base64
 *     "number":…               instead of "value": -0, NaN, Infinity and -Infinity
 *     "packed":…               instead of "value": what JSON cannot tell (dates, maps, big integers), by msgpackr, in base64
 *     "expiresAt":…            when it expires, in ms since 1970
 */

import { isDeepStrictEqual } from 'node:util';
import { Packr } from 'msgpackr';

export interface DumpedEntry {
  key: string | Uint8Array;
  value: unknown;
  expiresAt?: number | undefined;
}

interface Line {
  key?: string | { base64: string };
  value?: unknown;
  bytes?: string;
  packed?: string;
  number?: string;
  expiresAt?: number;
}

/** Tells apart what the store does. Each line stands for itself: no structures that other lines have. */
const packr = new Packr({ moreTypes: true, useBigIntExtension: true, mapsAsObjects: false, copyBuffers: true });

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

export function formatEntry({ key, value, expiresAt }: DumpedEntry): string {
  const line: Line = { key: typeof key === 'string' ? key : { base64: base64(key) } };
  if (Buffer.isBuffer(value)) line.bytes = base64(value);
  else if (typeof value === 'number') {
    if (Number.isFinite(value) && !Object.is(value, -0)) line.value = value;
    else line.number = Object.is(value, -0) ? '-0' : String(value);
  } else if (isTold(value)) line.value = value;
  else line.packed = base64(packr.pack(value));
  if (expiresAt !== undefined) line.expiresAt = expiresAt;
  return JSON.stringify(line);
}

/** Whether JSON gives the value back as it is. */
function isTold(value: unknown): boolean {
  // JSON escapes what UTF-8 has no bytes for.
  if (typeof value === 'string') return true;
  try {
    return isDeepStrictEqual(JSON.parse(JSON.stringify(value)), value);
  } catch {
    return false;
  }
}

/** @returns `undefined` when it is no such line */
export function parseEntry(parsed: unknown): DumpedEntry | undefined {
  if (typeof parsed !== 'object' || parsed === null) return undefined;
  const { key, value, bytes, packed, number, expiresAt } = parsed as Line;
  const isKey = typeof key === 'string' || (typeof key === 'object' && key !== null && typeof key.base64 === 'string');
  if (!isKey || (expiresAt !== undefined && typeof expiresAt !== 'number')) return undefined;
  const entry: DumpedEntry = { key: typeof key === 'string' ? key : Buffer.from(key.base64, 'base64'), value, expiresAt };
  if (typeof bytes === 'string') entry.value = Buffer.from(bytes, 'base64');
  else if (typeof number === 'string') entry.value = Number(number);
  else if (typeof packed === 'string') entry.value = packr.unpack(Buffer.from(packed, 'base64')) as unknown;
  return entry.value === undefined ? undefined : entry;
}
