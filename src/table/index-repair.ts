/**
 * Putting the ordered index right after a thread has died, under the index's lock.
 *
 * The shape of the tree is right whoever dies (see index-tree.ts). What may be wrong: a leaf to which something was being done, a node in the tree whose
 * version is odd, nodes and
 * separators that nothing leads to, the list of free nodes; and, for the shards whose lock the dead thread held, a reference to a block that holds
 * no entry any more, or an entry without a reference. Cost: some 10 ns a key for the walk.
 */

import { assert } from '../base/errors.js';
import { KEY_LENGTH_MASK } from '../base/record.js';
import { storeRelease } from '../memory/fence.js';
import { UnitSet, rebuildAllocator } from '../memory/rebuild.js';
import {
  REGION_INDEX_FREE,
  REGION_INDEX_FREE_COUNT,
  REGION_INDEX_NODES,
  REGION_INDEX_REPAIRS,
  REGION_INDEX_ROOT,
} from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import {
  INTENT_MOVED,
  INTENT_REMOVES,
  LEAF_INTENT,
  LEAF_SLOT_WORDS,
  LEVELS_MAX,
  NODE_PREFIX,
  NODE_VERSION,
  SHARD_MASK,
  SLOT_SEPARATOR,
  childWord,
  countOf,
  innerSlot,
  intentCount,
  intentIndex,
  leafSlot,
  levelOf,
  setCount,
} from './index-node.js';
import { KeyProbe } from './key-probe.js';
import { NodePool } from './node-pool.js';
import type { OrderedIndex } from './ordered-index.js';

/** The entries of a shard: units of their blocks. */
export interface ShardContent {
  shard: number;
  entries: readonly number[];
}

/** Calls `visit` for every node with the word that leads to it, parents before children. */
function walk(index: OrderedIndex, visit: (pointer: number, node: number) => void): void {
  const { words } = index.region;
  const pointers = [REGION_INDEX_ROOT];
  for (let pointer = pointers.pop(); pointer !== undefined; pointer = pointers.pop()) {
    const node = words[pointer] * 2;
    visit(pointer, node);
    if (levelOf(words, node) === 0) continue;
    for (let i = countOf(words, node); i >= 0; i--) pointers.push(childWord(node, i));
  }
}

/** Free nodes after a repair, if there are so many: more than a key can take. */
const REFILLED_NODES = 4 * LEVELS_MAX;

/** Makes the index's region whole: versions, allocator, counts. The dead thread held the index's lock. */
export function repairIndex(index: OrderedIndex): void {
  const { region } = index;
  region.refresh();
  const { words } = region;
  const live = new UnitSet(region);
  const units: number[] = [];
  let nodes = 0;
  const add = (unit: number): void => {
    if (live.add(unit)) units.push(unit);
  };
  walk(index, (_, node) => {
    nodes++;
    add(node >>> 1);
    if (levelOf(words, node) === 0 && words[node + LEAF_INTENT] !== 0) settleIntent(words, node);
    if ((words[node + NODE_VERSION] & 1) !== 0) storeRelease(words, node + NODE_VERSION, (words[node + NODE_VERSION] + 1) | 0);
    if (levelOf(words, node) === 0) return;
    for (let i = 0; i < countOf(words, node); i++) add(words[innerSlot(node, i) + SLOT_SEPARATOR]);
  });
  // Before memory of nodes is given back: who reads one finds out.
  Atomics.add(words, REGION_INDEX_REPAIRS, 1);
  words[REGION_INDEX_FREE] = 0;
  words[REGION_INDEX_FREE_COUNT] = 0;
  words[REGION_INDEX_NODES] = nodes;
  rebuildAllocator(region, units, live);
  // What the dead thread had made sure of: at the memory cap there may be nothing else to finish with what it has left to do.
  new NodePool(region).refill(REFILLED_NODES, false);
}

/** Takes back an insertion that was begun, finishes a removal. A copy within an array is not interrupted: it is done or not begun. */
function settleIntent(words: Int32Array, leaf: number): void {
  const intent = words[leaf + LEAF_INTENT];
  const index = intentIndex(intent);
  const count = intentCount(intent);
  const removes = (intent & INTENT_REMOVES) !== 0;
  const slot = leafSlot(leaf, index);
  // No two slots of a leaf are the same, so where two are one is a copy of the other. For a removal the last two are, when they have moved.
  const twin = removes ? leafSlot(leaf, count - 2) : slot;
  const hasTwin = words[twin] === words[twin + LEAF_SLOT_WORDS] && words[twin + 1] === words[twin + LEAF_SLOT_WORDS + 1];
  const isAtEnd = index === (removes ? count - 1 : count);
  const hasMoved = (intent & INTENT_MOVED) !== 0 || (!isAtEnd && hasTwin);
  if (removes) {
    if (!hasMoved && !isAtEnd) words.copyWithin(slot, slot + LEAF_SLOT_WORDS, leafSlot(leaf, count));
    setCount(words, leaf, 0, count - 1);
  } else {
    if (hasMoved && !isAtEnd) words.copyWithin(slot, slot + LEAF_SLOT_WORDS, leafSlot(leaf, count + 1));
    setCount(words, leaf, 0, count);
  }
  words[leaf + LEAF_INTENT] = 0;
}

/**
 * Makes the references of some shards exactly those of their entries. Before the blocks of these shards are given back to their
 * allocators: what is compared with must be there.
 * @param contents shards whose locks are held
 */
export function reconcileIndex(index: OrderedIndex, contents: readonly ShardContent[]): void {
  const { region, regions } = index;
  const entries = new Map<number, UnitSet>();
  const seen = new Map<number, UnitSet>();
  for (const { shard, entries: units } of contents) {
    regions[shard].refresh();
    const set = new UnitSet(regions[shard]);
    for (const unit of units) set.add(unit);
    entries.set(shard, set);
    seen.set(shard, new UnitSet(regions[shard]));
  }
  const stale: number[] = [];
  walk(index, (pointer, node) => {
    const { words } = region;
    if (levelOf(words, node) !== 0) return;
    let isStale = false;
    for (let i = 0; i < countOf(words, node); i++) {
      const shard = words[leafSlot(node, i) + 1] & SHARD_MASK;
      const unit = words[leafSlot(node, i)];
      if (entries.get(shard)?.has(unit) === false || seen.get(shard)?.add(unit) === false) isStale = true;
    }
    if (isStale) stale.push(pointer);
  });
  for (const pointer of stale) removeStale(index, pointer, entries);
  const probe = KeyProbe.own();
  for (const { shard, entries: units } of contents) {
    const missing = units.filter((unit) => seen.get(shard)?.has(unit) === false);
    const { words } = regions[shard];
    for (const unit of missing) {
      const length = words[unit * 2] & KEY_LENGTH_MASK;
      probe.setWords(words, unit * 2 + ENTRY_HEADER_WORDS, length);
      const reserved = index.reserveOneLocked(probe);
      assert(reserved, 'there is memory for what a dead thread has left to do');
      index.setLocked(probe, shard, unit);
    }
  }
}

/** Replaces a leaf by a copy without references that lead nowhere. An empty leaf is one too. */
function removeStale(index: OrderedIndex, pointer: number, entries: ReadonlyMap<number, UnitSet>): void {
  const reserved = index.reserveLocked(0, 0);
  assert(reserved, 'there is memory for what a dead thread has left to do');
  const nodes = new NodePool(index.region);
  const copy = nodes.take();
  const { words } = index.region;
  const leaf = words[pointer] * 2;
  let count = 0;
  for (let i = 0; i < countOf(words, leaf); i++) {
    const slot = leafSlot(leaf, i);
    if (entries.get(words[slot + 1] & SHARD_MASK)?.has(words[slot]) === false) continue;
    words.copyWithin(leafSlot(copy, count++), slot, slot + LEAF_SLOT_WORDS);
  }
  words[copy + NODE_PREFIX] = words[leaf + NODE_PREFIX];
  words[copy + LEAF_INTENT] = 0;
  setCount(words, copy, 0, count);
  nodes.even(copy);
  nodes.odd(leaf);
  storeRelease(words, pointer, copy >>> 1);
  nodes.give(leaf);
}
