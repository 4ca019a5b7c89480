/** What a shard's region counts of its entries: bytes of keys and of values, and how many expire. Changed under the shard's lock. */

import { KEY_LENGTH_MASK, VALUE_TYPE_MASK, VALUE_TYPE_SHIFT } from '../base/record.js';
import { REGION_EXPIRING, REGION_KEY_BYTES, REGION_VALUE_BYTES } from '../memory/region.js';
import { ENTRY_VALUE_LENGTH, TYPE_TOMBSTONE } from './entry.js';
import { EXPIRES_BIT } from './entry-reader.js';

/** Adds to a 64-bit count in the region's header: low word, then high word. */
export function countBytes(words: Int32Array, at: number, delta: number): void {
  const low = (words[at] >>> 0) + delta;
  words[at] = low | 0;
  if (low > 0xffff_ffff) words[at + 1]++;
  else if (low < 0) words[at + 1]--;
}

/** Adds an entry to all counts, or takes it off. */
export function countEntry(words: Int32Array, entry: number, sign: 1 | -1): void {
  countBytes(words, REGION_KEY_BYTES, sign * (words[entry] & KEY_LENGTH_MASK));
  countBytes(words, REGION_VALUE_BYTES, sign * words[entry + ENTRY_VALUE_LENGTH]);
  if ((words[entry] & EXPIRES_BIT) !== 0) words[REGION_EXPIRING] += sign;
}

/**
 * Counts what beside the length of its value has changed with an entry that was overwritten in place.
 * @param before its first word until then
 * @returns whether it is new: it was a tombstone
 */
export function recountOverwritten(words: Int32Array, entry: number, before: number): boolean {
  const expires = words[entry] & EXPIRES_BIT;
  if (expires !== (before & EXPIRES_BIT)) words[REGION_EXPIRING] += expires === 0 ? -1 : 1;
  if (((before >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK) !== TYPE_TOMBSTONE) return false;
  countBytes(words, REGION_KEY_BYTES, before & KEY_LENGTH_MASK);
  return true;
}
