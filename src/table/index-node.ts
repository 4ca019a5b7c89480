/**
 * The nodes of the ordered index: their layout, and what reads them.
 *
 * All nodes have one size. An inner node in the tree never changes but for its child pointers, one word each: who splits or merges builds changed
 * copies aside and swaps one pointer. A leaf takes and loses single slots in place, under an odd version.
 *
 *     word 0   level in bits 0-7 (0: leaf), count of slots in bits 8-23
 *     word 1   version: even in the tree, odd outside of it and while it changes; only ever rises, also while the node is reused
 *     word 2   bytes that all keys of a leaf, or all separators of an inner node, begin with in common; of a leaf also which fragments it has
 *     word 3   inner node: unit of the first child; leaf: what is being done to it, or 0; free node: unit of the next free one
 *     word 4+  slots
 *
 *     leaf slot    word 0  unit of the entry in its shard's region
 *                  word 1  shard in bits 0-7; above, the key's fragment behind the common bytes (key-fragment.ts)
 *     inner slot   word 0  the four bytes of the separator behind the common ones, the first one on top
 *                  word 1  unit of the separator: a block with its length in word 0, its bytes behind, padded with zeros to 4
 *                  word 2  unit of the child with the keys that are not below the separator
 *
 * Memory of nodes is never used for anything else, so that a version is always a version; a repair, which may give such memory
 * back, counts REGION_INDEX_REPAIRS up, and readers compare that as well.
 */

import { CHUNK_BYTES, REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { classOf } from '../memory/slabs.js';
import { fragment4 } from './key-fragment.js';
import { bytesTurned, compareKeys, type KeyProbe } from './key-probe.js';

/** Sixteen to a chunk. */
export const NODE_BYTES = 1016;
export const NODE_CLASS = classOf(NODE_BYTES);
export const NODE_VERSION = 1;
export const NODE_PREFIX = 2;
export const NODE_FIRST_CHILD = 3;
export const NODE_NEXT_FREE = 3;
export const NODE_HEADER_WORDS = 4;

export const LEAF_SLOT_WORDS = 2;
export const INNER_SLOT_WORDS = 3;
export const SLOT_SEPARATOR = 1;
export const SLOT_CHILD = 2;
const NODE_WORDS = NODE_BYTES / 4;
export const LEAF_SLOTS = (NODE_WORDS - NODE_HEADER_WORDS) / LEAF_SLOT_WORDS;
export const INNER_SLOTS = Math.floor((NODE_WORDS - NODE_HEADER_WORDS) / INNER_SLOT_WORDS);
/** A leaf with fewer slots in use is merged with a neighbour if both fit well into one. */
export const MERGE_BELOW = LEAF_SLOTS >>> 2;
export const NODES_PER_CHUNK = Math.floor(CHUNK_BYTES / NODE_BYTES);

/** In a leaf: what is being done to it, or 0; see `insertIntent`. A leaf has no first child. */
export const LEAF_INTENT = 3;
/** The slots behind the place have been moved. */
export const INTENT_MOVED = 1;
export const INTENT_REMOVES = 2;
const INTENT_INDEX_SHIFT = 8;
const INTENT_COUNT_SHIFT = 16;

/** A slot is inserted at `index` into a leaf of `count`. */
export function insertIntent(index: number, count: number): number {
  // Bit 2 makes it differ from 0 whatever the numbers are.
  return 4 | (index << INTENT_INDEX_SHIFT) | (count << INTENT_COUNT_SHIFT);
}

export function removeIntent(index: number, count: number): number {
  return insertIntent(index, count) | INTENT_REMOVES;
}

export function intentIndex(intent: number): number {
  return (intent >>> INTENT_INDEX_SHIFT) & 0xff;
}

export function intentCount(intent: number): number {
  return intent >>> INTENT_COUNT_SHIFT;
}

/** More levels than any tree has: with 256 shards full of the smallest entries there are 8. */
export const LEVELS_MAX = 16;

const LEVEL_MASK = 0xff;
const COUNT_SHIFT = 8;
export const SHARD_MASK = 0xff;
export const FRAGMENT_SHIFT = 8;

export function levelOf(words: Int32Array, node: number): number {
  return words[node] & LEVEL_MASK;
}

export function countOf(words: Int32Array, node: number): number {
  return words[node] >>> COUNT_SHIFT;
}

export function setCount(words: Int32Array, node: number, level: number, count: number): void {
  words[node] = level | (count << COUNT_SHIFT);
}

/** Word index of a leaf's slot. */
export function leafSlot(node: number, index: number): number {
  return node + NODE_HEADER_WORDS + index * LEAF_SLOT_WORDS;
}

export function innerSlot(node: number, index: number): number {
  return node + NODE_HEADER_WORDS + index * INNER_SLOT_WORDS;
}

/** Word index at which child `index` of an inner node is named: the first one before the slots, the others in them. */
export function childWord(node: number, index: number): number {
  return index === 0 ? node + NODE_FIRST_CHILD : node + NODE_HEADER_WORDS + index * INNER_SLOT_WORDS - 1;
}

/** Orders the first `shared` bytes of a separator and the same number of bytes of the probe. @returns the probe's place: less than, equal to, or more than 0 */
function comparePrefix(region: Region, separator: number, shared: number, probe: KeyProbe): number {
  const { words } = region;
  const own = probe.words;
  const from = separator + 1;
  const start = probe.at;
  const length = probe.length < shared ? probe.length : shared;
  const whole = length >>> 2;
  let i = 0;
  while (i < whole && own[start + i] === words[from + i]) i++;
  if (i < whole) return bytesTurned(own[start + i]) - bytesTurned(words[from + i]);
  const rest = length & 3;
  if (rest !== 0) {
    const mask = (1 << (rest * 8)) - 1;
    const x = own[start + i] & mask;
    const y = words[from + i] & mask;
    if (x !== y) return bytesTurned(x) - bytesTurned(y);
  }
  return length === shared ? 0 : -1;
}

/**
 * Which child of an inner node to follow. What it loads may be torn where the reader holds no lock; it stays within the
 * node, and its result is good only if the version holds.
 * @param strictly for the last key below the probe instead of the probe itself: a separator that equals it does not count as passed
 */
export function childFor(region: Region, node: number, probe: KeyProbe, strictly: boolean): number {
  const { words } = region;
  const count = countOf(words, node);
  if (count === 0 || count > INNER_SLOTS) return 0;
  const shared = words[node + NODE_PREFIX];
  if (shared !== 0) {
    const order = comparePrefix(region, words[innerSlot(node, 0) + SLOT_SEPARATOR] * 2, shared, probe);
    if (order < 0) return 0;
    if (order > 0) return count;
  }
  const fragment = fragment4(probe.bytes, probe.at * 4, probe.length, shared);
  // The first separator that is not below, by numbers alone and without a branch that could be guessed wrongly. The lowest bit is left out: so
  // the difference of two has a sign.
  const half31 = fragment >>> 1;
  const first = node + NODE_HEADER_WORDS;
  let low = 0;
  for (let left = count; left > 1;) {
    const half = left >>> 1;
    low += half & (((words[first + (low + half - 1) * INNER_SLOT_WORDS] >>> 1) - half31) >> 31);
    left -= half;
  }
  // Of those that look the same the separators themselves decide; most often there is at most one.
  while (low < count) {
    const slot = innerSlot(node, low);
    const found = words[slot] >>> 0;
    if (found > fragment) break;
    if (found === fragment) {
      const separator = words[slot + SLOT_SEPARATOR] * 2;
      const order = compareKeys(probe.words, probe.at, probe.length, words, separator + 1, words[separator]);
      if (strictly ? order <= 0 : order < 0) break;
    }
    low++;
  }
  return low;
}

/** Unit of the root. */
export function rootOf(region: Region): number {
  return region.words[REGION_INDEX_ROOT];
}
