/** Separators of the ordered index: blocks of its region, with the length in word 0 and the bytes behind. */

import { assert } from '../base/errors.js';
import type { Region } from '../memory/region.js';
import { allocate, classOf } from '../memory/slabs.js';

/**
 * Makes a separator of the first `length` bytes of a key; memory for it was made sure of.
 * @param at first word of the key in `source`
 * @returns word index of its block
 */
export function storeSeparator(region: Region, source: Int32Array, at: number, length: number): number {
  const bytes = separatorBytes(length);
  const unit = allocate(region, bytes, classOf(bytes));
  assert(unit !== 0, 'memory for the index was made sure of');
  const words = region.words;
  const block = unit * 2;
  words[block] = length;
  const count = (length + 3) >>> 2;
  for (let i = 0; i < count; i++) words[block + 1 + i] = source[at + i];
  const rest = length & 3;
  if (rest !== 0) words[block + count] &= (1 << (rest * 8)) - 1;
  return block;
}

/** Bytes that the block of a separator of so many bytes needs. */
export function separatorBytes(length: number): number {
  return 4 + ((length + 3) & ~3);
}
