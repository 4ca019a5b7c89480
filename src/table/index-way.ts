/**
 * The way through the tree of the ordered index (index-tree.ts) to the leaf of a key, the place of the key there, and the separators around what lies on the way.
 * Changes nothing. Everything here runs under the index's lock.
 */

import { assert } from '../base/errors.js';
import { KEY_LENGTH_MASK } from '../base/record.js';
import { REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import {
  FRAGMENT_SHIFT,
  INNER_SLOTS,
  LEAF_SLOT_WORDS,
  LEVELS_MAX,
  NODE_HEADER_WORDS,
  NODE_PREFIX,
  SHARD_MASK,
  SLOT_SEPARATOR,
  childFor,
  childWord,
  countOf,
  innerSlot,
  leafSlot,
  levelOf,
  rootOf,
} from './index-node.js';
import { fragmentOf } from './key-fragment.js';
import { compareKeys, sharedBytes, type KeyProbe } from './key-probe.js';
import type { LeafFiller } from './leaf-filler.js';

/** No separator: the edge of the tree. */
export const NO_FENCE = 0;

export class IndexWay {
  /** Word index of each inner node on the way to the leaf last found, and which child was taken. */
  readonly path = new Int32Array(LEVELS_MAX);
  readonly taken = new Int32Array(LEVELS_MAX);
  depth = 0;
  /** Word index of the inner node at which `descend` ended last because it was full. */
  full = 0;
  /** Fragment of the key for which `placeIn` has looked last. */
  fragment = 0;
  /** The leaf last found is the last of the tree. */
  isLast = false;

  constructor(
    readonly region: Region,
    readonly leaves: LeafFiller,
  ) {}

  /**
   * Finds the leaf of a key and remembers the way.
   * @param stopsAtFull whether it ends at the first inner node that is full
   * @returns its word index, or 0 where it ended before: `full` is that node, at `depth`
   */
  descend(probe: KeyProbe, stopsAtFull: boolean): number {
    const { region } = this;
    // Since the lock was taken a burial of this thread's may have let the region grow.
    region.sync();
    const words = region.words;
    let node = rootOf(region) * 2;
    let depth = 0;
    let isLast = true;
    while (levelOf(words, node) !== 0) {
      assert(depth < LEVELS_MAX, 'the index has few levels');
      if (stopsAtFull && countOf(words, node) === INNER_SLOTS) {
        this.depth = depth;
        this.full = node;
        return 0;
      }
      const child = childFor(region, node, probe, false);
      if (child !== countOf(words, node)) isLast = false;
      this.path[depth] = node;
      this.taken[depth++] = child;
      node = words[childWord(node, child)] * 2;
    }
    this.depth = depth;
    this.isLast = isLast;
    return node;
  }

  /** Where a key is in a leaf: -1 - index of its slot, or, absent, the index where it belongs. */
  placeIn(leaf: number, probe: KeyProbe): number {
    const words = this.region.words;
    const count = countOf(words, leaf);
    const fragment = fragmentOf(probe.bytes, probe.at * 4, probe.length, words[leaf + NODE_PREFIX]);
    this.fragment = fragment;
    // Keys that come in order belong behind the last of the tree.
    if (count !== 0 && this.isLast) {
      const order = this.#orderAt(leaf, count - 1, probe, fragment);
      if (order === 0) return -count;
      if (order > 0) return count;
    }
    // The first slot that is not below: by numbers alone, and without a branch that could be guessed wrongly.
    const first = leaf + NODE_HEADER_WORDS + 1;
    let low = 0;
    for (let left = count; left > 1;) {
      const half = left >>> 1;
      low += half & (((words[first + (low + half - 1) * LEAF_SLOT_WORDS] >>> FRAGMENT_SHIFT) - fragment) >> 31);
      left -= half;
    }
    if (low < count && words[first + low * LEAF_SLOT_WORDS] >>> FRAGMENT_SHIFT < fragment) low++;
    if (low === count || words[first + low * LEAF_SLOT_WORDS] >>> FRAGMENT_SHIFT !== fragment) return low;
    return this.#placeAmongEqual(leaf, low, count, probe, fragment);
  }

  /** The same, from the first slot with the key's fragment on: by the keys themselves. */
  #placeAmongEqual(leaf: number, from: number, count: number, probe: KeyProbe, fragment: number): number {
    let low = from;
    let high = count;
    while (low < high) {
      // Most often there is just one.
      const middle = low === from && high === count ? low : (low + high) >>> 1;
      const order = this.#orderAt(leaf, middle, probe, fragment);
      if (order === 0) return -1 - middle;
      if (order > 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #orderAt(leaf: number, index: number, probe: KeyProbe, fragment: number): number {
    const words = this.region.words;
    const slot = leafSlot(leaf, index);
    const found = words[slot + 1] >>> FRAGMENT_SHIFT;
    if (found !== fragment) return fragment - found;
    const shard = words[slot + 1] & SHARD_MASK;
    const entry = words[slot] * 2;
    const other = this.leaves.entryWords(shard, entry);
    return compareKeys(probe.words, probe.at, probe.length, other, entry + ENTRY_HEADER_WORDS, other[entry] & KEY_LENGTH_MASK);
  }

  /** The word that leads to what lies at `depth` of the path. */
  pointerTo(depth: number): number {
    return depth === 0 ? REGION_INDEX_ROOT : childWord(this.path[depth - 1], this.taken[depth - 1]);
  }

  /** The separator below, or above, what lies at `depth` of the path: word index of its block, or NO_FENCE. */
  lowFence(depth: number): number {
    const words = this.region.words;
    for (let d = depth - 1; d >= 0; d--) {
      if (this.taken[d] > 0) return words[innerSlot(this.path[d], this.taken[d] - 1) + SLOT_SEPARATOR] * 2;
    }
    return NO_FENCE;
  }

  highFence(depth: number): number {
    const words = this.region.words;
    for (let d = depth - 1; d >= 0; d--) {
      if (this.taken[d] < countOf(words, this.path[d])) return words[innerSlot(this.path[d], this.taken[d]) + SLOT_SEPARATOR] * 2;
    }
    return NO_FENCE;
  }

  sharedByFences(low: number, high: number): number {
    if (low === NO_FENCE || high === NO_FENCE) return 0;
    const words = this.region.words;
    return sharedBytes(words, low + 1, words[low], words, high + 1, words[high]);
  }
}
