/**
 * How the tree of the ordered index (index-tree.ts) shrinks: leaves that lose their last key go, small ones are merged, and roots that lead to a single node are taken
 * away. Under the index's lock, along a way that was found before, and by the tree's invariants.
 */

import { storeRelease } from '../memory/fence.js';
import { REGION_INDEX_NODES, REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { classAt, free } from '../memory/slabs.js';
import {
  LEAF_INTENT,
  LEAF_SLOTS,
  NODE_FIRST_CHILD,
  NODE_PREFIX,
  SLOT_SEPARATOR,
  childWord,
  countOf,
  innerSlot,
  levelOf,
  rootOf,
  setCount,
} from './index-node.js';
import type { IndexWay } from './index-way.js';
import type { InnerFiller } from './inner-filler.js';
import { sharedOf } from './key-fragment.js';
import type { LeafFiller } from './leaf-filler.js';
import type { NodePool } from './node-pool.js';

/** Slots of a leaf that two are merged into. */
const MERGED_MAX = (LEAF_SLOTS * 3) >>> 2;
/** Inner nodes above the leaves that one call of `compact` looks under, and leaves that it takes away, at most: some tenths of a millisecond. */
const COMPACTED_PARENTS = 32;
const COMPACTED_LEAVES = 64;

export class IndexShrinker {
  constructor(
    readonly region: Region,
    readonly nodes: NodePool,
    readonly leaves: LeafFiller,
    readonly inner: InnerFiller,
    readonly way: IndexWay,
  ) {}

  /** Removes a leaf that loses its last key, and the inner nodes above it that lead nowhere else. */
  removeLeaf(leaf: number): void {
    let depth = this.way.depth - 1;
    while (depth > 0 && countOf(this.region.words, this.way.path[depth]) === 0) depth--;
    const parent = this.way.path[depth];
    const doomed = [leaf];
    for (let d = depth + 1; d < this.way.depth; d++) doomed.push(this.way.path[d]);
    const node = this.nodes.take();
    const words = this.region.words;
    if (countOf(words, parent) === 0) {
      // The root leads to nothing else: an empty leaf takes its place.
      setCount(words, node, 0, 0);
      words[node + NODE_PREFIX] = 0;
      words[node + LEAF_INTENT] = 0;
      for (const gone of doomed) this.nodes.odd(gone);
      this.nodes.swap(this.way.pointerTo(0), parent, node);
    } else {
      this.#widenBeside(depth);
      this.inner.withoutChild(node, parent, this.way.taken[depth]);
      for (const gone of doomed) this.nodes.odd(gone);
      this.nodes.swap(this.way.pointerTo(depth), parent, node);
      const separator = words[innerSlot(parent, Math.max(0, this.way.taken[depth] - 1)) + SLOT_SEPARATOR];
      free(this.region, separator, classAt(this.region, separator));
    }
    for (const gone of doomed) this.nodes.give(gone);
    this.nodes.give(parent);
    words[REGION_INDEX_NODES] -= doomed.length;
    this.#lowerRoot();
  }

  /**
   * Before the child taken at `depth` goes: the leaf beside it, which will get the keys from its range, must not count on
   * sharing more bytes than all of them do.
   */
  #widenBeside(depth: number): void {
    const words = this.region.words;
    const parent = this.way.path[depth];
    const gone = this.way.taken[depth];
    const toTheLeft = gone > 0;
    let low = this.way.lowFence(depth + 1);
    let high = this.way.highFence(depth + 1);
    const beside = toTheLeft ? gone - 1 : 1;
    this.way.taken[depth] = beside;
    if (toTheLeft) low = this.way.lowFence(depth + 1);
    else high = this.way.highFence(depth + 1);
    this.way.taken[depth] = gone;
    let pointer = childWord(parent, beside);
    let node = words[pointer] * 2;
    while (levelOf(words, node) !== 0) {
      const count = countOf(words, node);
      if (count > 0 && toTheLeft) low = words[innerSlot(node, count - 1) + SLOT_SEPARATOR] * 2;
      else if (count > 0) high = words[innerSlot(node, 0) + SLOT_SEPARATOR] * 2;
      pointer = childWord(node, toTheLeft ? count : 0);
      node = words[pointer] * 2;
    }
    const shared = this.way.sharedByFences(low, high);
    if (sharedOf(words[node + NODE_PREFIX]) <= shared) return;
    const wider = this.nodes.take();
    this.leaves.copy(wider, node, 0, countOf(this.region.words, node), shared);
    this.nodes.even(wider);
    this.nodes.odd(node);
    storeRelease(this.region.words, pointer, wider >>> 1);
    this.nodes.give(node);
  }

  /** Merges a small leaf with a neighbour under the same inner node, if both fit. */
  mergeLeaf(leaf: number, count: number): void {
    const words = this.region.words;
    const depth = this.way.depth - 1;
    const parent = this.way.path[depth];
    const siblings = countOf(words, parent);
    if (siblings === 0) return;
    const index = this.way.taken[depth];
    const leftIndex = index === 0 ? 0 : index - 1;
    const left = index === 0 ? leaf : words[childWord(parent, leftIndex)] * 2;
    const right = index === 0 ? words[childWord(parent, 1)] * 2 : leaf;
    const other = index === 0 ? right : left;
    if (countOf(words, other) + count > MERGED_MAX) return;
    this.way.taken[depth] = leftIndex;
    const low = this.way.lowFence(this.way.depth);
    this.way.taken[depth] = leftIndex + 1;
    const high = this.way.highFence(this.way.depth);
    const merged = this.nodes.take();
    const copy = this.nodes.take();
    const total = this.leaves.collect(right, this.leaves.collect(left, 0));
    this.leaves.fill(merged, 0, total, this.way.sharedByFences(low, high));
    // The right leaf goes with the separator before it, and the merged one takes the left one's place.
    this.inner.withoutChild(copy, parent, leftIndex + 1);
    this.region.words[childWord(copy, leftIndex)] = merged >>> 1;
    const separator = words[innerSlot(parent, leftIndex) + SLOT_SEPARATOR];
    this.nodes.even(merged);
    this.nodes.odd(left);
    this.nodes.odd(right);
    this.nodes.swap(this.way.pointerTo(depth), parent, copy);
    free(this.region, separator, classAt(this.region, separator));
    this.nodes.give(left);
    this.nodes.give(right);
    this.nodes.give(parent);
    this.region.words[REGION_INDEX_NODES]--;
    this.#lowerRoot();
  }

  /**
   * Where there is no memory: merges leaves that fit into one, under inner nodes chosen at random. Leaves that lose keys here and there are a quarter full before a
   * removal merges them. Room for a removal must have been reserved.
   * @param wanted leaves to take away
   * @returns how many went
   */
  compact(wanted: number): number {
    const most = Math.min(wanted, COMPACTED_LEAVES);
    let gone = 0;
    for (let parents = 0; parents < COMPACTED_PARENTS && gone < most; parents++) gone += this.#compactSomewhere(most - gone);
    return gone;
  }

  #compactSomewhere(most: number): number {
    const { region } = this;
    region.sync();
    const { words } = region;
    let node = rootOf(region) * 2;
    if (levelOf(words, node) === 0) return 0;
    let depth = 0;
    while (levelOf(words, node) > 1) {
      const child = Math.floor(Math.random() * (countOf(words, node) + 1));
      this.way.path[depth] = node;
      this.way.taken[depth++] = child;
      node = words[childWord(node, child)] * 2;
    }
    this.way.depth = depth + 1;
    let gone = 0;
    for (let child = 1; gone < most && levelOf(words, node) === 1 && child <= countOf(words, node);) {
      const left = words[childWord(node, child - 1)] * 2;
      const right = words[childWord(node, child)] * 2;
      if (countOf(words, left) + countOf(words, right) > MERGED_MAX) {
        child++;
        continue;
      }
      this.way.path[depth] = node;
      this.way.taken[depth] = child;
      this.mergeLeaf(right, countOf(words, right));
      gone++;
      node = words[depth === 0 ? REGION_INDEX_ROOT : childWord(this.way.path[depth - 1], this.way.taken[depth - 1])] * 2;
    }
    return gone;
  }

  /** Takes away roots that lead to a single node. */
  #lowerRoot(): void {
    const words = this.region.words;
    for (;;) {
      const root = rootOf(this.region) * 2;
      if (levelOf(words, root) === 0 || countOf(words, root) !== 0) return;
      this.nodes.odd(root);
      storeRelease(words, REGION_INDEX_ROOT, words[root + NODE_FIRST_CHILD]);
      this.nodes.give(root);
      words[REGION_INDEX_NODES]--;
    }
  }
}
