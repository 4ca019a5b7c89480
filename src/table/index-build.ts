/**
 * Building the ordered index in bulk, over tables that nobody changes: after recovery.
 *
 * First every task sorts the keys of its share of the shards (index-sort.ts). Then every task writes the leaves of its range of all keys (`buildLeaves`; index-merge.ts
 * divides them), and at last one the separators between the leaves, and the tree above them (`buildTree`).
 *
 * Tasks that write leaves share the index's region: they take nodes from it under the index's lock, some at a time, and write to nobody else's. Nobody reads the
 * index before all of it is there; that tasks end before others begin is what their messages order.
 */

import { reserveTop } from '../memory/chunks.js';
import * as L from '../memory/layout.js';
import { acquire, release } from '../memory/lock.js';
import { chunksFor } from '../memory/slabs.js';
import { CHUNK_BYTES, REGION_INDEX_KEY_BYTES, REGION_INDEX_NODES, REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import { Merge, type Key, type KeyRange } from './index-merge.js';
import {
  FRAGMENT_SHIFT,
  INNER_SLOTS,
  LEAF_INTENT,
  LEAF_SLOTS,
  LEVELS_MAX,
  NODES_PER_CHUNK,
  NODE_FIRST_CHILD,
  NODE_PREFIX,
  SLOT_CHILD,
  SLOT_SEPARATOR,
  innerSlot,
  leafSlot,
  setCount,
} from './index-node.js';
import { keyLength, sharedByEntries, type SortedRun } from './index-sort.js';
import { canTell, fragment4, fragmentOf, fragmentOfEight, isDense, prefixFor } from './key-fragment.js';
import { sharedBytes } from './key-probe.js';
import { NodePool } from './node-pool.js';
import { separatorBytes, storeSeparator } from './separator.js';
import type { Shard } from './shard.js';

/** Leaves of a range, in order. */
export interface Leaves {
  /** Word index of each, halved. */
  nodes: Uint32Array;
  /** The first key of each, and how many of its bytes tell it from the key before; 0 for the first key of all. */
  units: Uint32Array;
  shards: Uint8Array;
  separators: Uint16Array;
  /** Length of the longest key of all ranges. */
  keyBytesMax: number;
}

/** What is left free in a leaf and in an inner node for keys to come. */
const LEAF_FILL = LEAF_SLOTS - 8;
const INNER_FILL = INNER_SLOTS - 6;
/** Nodes that a task takes at once. */
const NODES_AT_ONCE = 32;

/** The keys of one leaf. */
class LeafKeys {
  readonly units = new Uint32Array(LEAF_FILL);
  readonly shards = new Uint8Array(LEAF_FILL);
  readonly high = new Uint32Array(LEAF_FILL);
  readonly low = new Uint32Array(LEAF_FILL);
  count = 0;

  /** Takes the key at which the merge is and those behind it, as many as there is room for. @returns whether the merge is at a further one */
  fill(merge: Merge): boolean {
    let at = 0;
    let more = true;
    while (more && at < LEAF_FILL) {
      this.units[at] = merge.unit;
      this.shards[at] = merge.shard;
      this.high[at] = merge.high;
      this.low[at++] = merge.low;
      more = merge.advance();
    }
    this.count = at;
    return more;
  }
}

/** The first bytes of a key. */
interface Beginning {
  words: Int32Array;
  /** First word of the key. */
  at: number;
  length: number;
}

/**
 * Writes the leaves of a range of keys. Others may write those of other ranges meanwhile.
 * @param self owner's number for the index's lock, nonzero, and another one in each task
 * @returns `undefined` when there is no memory
 * @throws FlashVectorError FV_TIMEOUT
 */
export function buildLeaves(
  region: Region,
  shards: readonly Shard[],
  runs: readonly SortedRun[],
  range: KeyRange,
  self: number,
): Leaves | undefined {
  for (const shard of shards) shard.region.refresh();
  const merge = new Merge(runs, shards, range);
  const count = Math.ceil(merge.count / LEAF_FILL);
  const leaves: Leaves = {
    nodes: new Uint32Array(count),
    units: new Uint32Array(count),
    shards: new Uint8Array(count),
    separators: new Uint16Array(count),
    keyBytesMax: runs.reduce((longest, run) => Math.max(longest, run.keyBytesMax), 0),
  };
  const keys = new LeafKeys();
  const { before, behind } = merge;
  let more = merge.advance();
  let first = more && before !== undefined ? beginning(shards, before, merge) : undefined;
  for (let leaf = 0; leaf < count; leaf++) {
    if (leaf % NODES_AT_ONCE === 0 && !takeNodes(region, leaves.nodes, leaf, self)) return undefined;
    leaves.units[leaf] = merge.unit;
    leaves.shards[leaf] = merge.shard;
    leaves.separators[leaf] = first?.length ?? 0;
    more = keys.fill(merge);
    const last = keys.count - 1;
    const following = more ? merge : behind;
    const next = following && beginning(shards, { unit: keys.units[last], shard: keys.shards[last] }, following);
    const shared =
      first === undefined || next === undefined ? 0 : sharedBytes(first.words, first.at, first.length, next.words, next.at, next.length);
    writeLeaf(region, leaves.nodes[leaf] * 2, shards, keys, shared, merge.shared);
    first = next;
  }
  return leaves;
}

/**
 * Writes a leaf, but for its version.
 * @param shared bytes that all keys that may ever come here begin with
 * @param skipped bytes before the eight that are at hand of each key
 */
function writeLeaf({ words }: Region, node: number, shards: readonly Shard[], keys: LeafKeys, shared: number, skipped: number): void {
  const { units, shards: shardOf, high, low, count } = keys;
  const last = count - 1;
  setCount(words, node, 0, count);
  const prefix = prefixOfKeys(shards[shardOf[0]].region, units[0] * 2, shards[shardOf[last]].region, units[last] * 2, shared);
  const areDense = isDense(prefix);
  words[node + NODE_PREFIX] = prefix;
  words[node + LEAF_INTENT] = 0;
  const skip = shared - skipped;
  // Most often the bytes are at hand; the keys lie anywhere in memory.
  const areAtHand = canTell(skip, areDense);
  for (let i = 0; i < count; i++) {
    const fragment = areAtHand
      ? fragmentOfEight(high[i], low[i], skip, areDense)
      : fragmentOfKey(shards[shardOf[i]].region, units[i] * 2, prefix);
    words[leafSlot(node, i)] = units[i];
    words[leafSlot(node, i) + 1] = (fragment << FRAGMENT_SHIFT) | shardOf[i];
  }
}

/** What of a key tells it from the one before. */
function beginning(shards: readonly Shard[], before: Key, { unit, shard }: Key): Beginning {
  const { words } = shards[shard].region;
  const length = sharedByEntries(shards[before.shard].region.words, before.unit * 2, words, unit * 2) + 1;
  return { words, at: unit * 2 + ENTRY_HEADER_WORDS, length };
}

/** Makes sure that so many nodes can be taken. */
function reserveNodes(region: Region, count: number): boolean {
  return reserveTop(region, Math.ceil(count / NODES_PER_CHUNK + 1) * CHUNK_BYTES);
}

/** Takes nodes for the next leaves, from `from` on. They are outside of the tree. */
function takeNodes(region: Region, nodes: Uint32Array, from: number, self: number): boolean {
  const { control } = region;
  acquire(control, L.CONTROL_INDEX_LOCK, L.CONTROL_INDEX_WAITERS, self, 'index');
  try {
    region.sync();
    const to = Math.min(nodes.length, from + NODES_AT_ONCE);
    if (!reserveNodes(region, to - from)) return false;
    const pool = new NodePool(region);
    for (let i = from; i < to; i++) nodes[i] = pool.take() >>> 1;
    return true;
  } finally {
    release(control, L.CONTROL_INDEX_LOCK, L.CONTROL_INDEX_WAITERS);
  }
}

function fragmentOfKey({ words, bytes }: Region, entry: number, prefix: number): number {
  return fragmentOf(bytes, (entry + ENTRY_HEADER_WORDS) * 4, keyLength(words, entry), prefix);
}

/** Which fragments a leaf gets whose first and last keys are these. */
function prefixOfKeys(a: Region, first: number, b: Region, last: number, shared: number): number {
  const one = prefixFor(a.bytes, (first + ENTRY_HEADER_WORDS) * 4, keyLength(a.words, first), shared);
  const other = prefixFor(b.bytes, (last + ENTRY_HEADER_WORDS) * 4, keyLength(b.words, last), shared);
  return one === other ? one : shared;
}

/** A finished node, and the separator before it: word index of its block, 0 before the first. */
interface Built {
  node: number;
  separator: number;
}

/**
 * Writes the separators between leaves, which are complete, and the tree above them, into an empty index. Nobody else uses it yet.
 * @param parts the leaves of all ranges, in order
 * @returns false when there is no memory
 */
export function buildTree(region: Region, shards: readonly Shard[], parts: readonly Leaves[]): boolean {
  for (const shard of shards) shard.region.refresh();
  region.refresh();
  const nodes = new NodePool(region);
  let level: Built[] = [];
  for (const { nodes: leaves, units, shards: shardOf, separators, keyBytesMax } of parts) {
    region.words[REGION_INDEX_KEY_BYTES] = keyBytesMax;
    for (let i = 0; i < leaves.length; i++) {
      const node = leaves[i] * 2;
      const length = separators[i];
      let separator = 0;
      if (length > 0) {
        if (!reserveTop(region, chunksFor(separatorBytes(length), 1) * CHUNK_BYTES)) return false;
        separator = storeSeparator(region, shards[shardOf[i]].region.words, units[i] * 2 + ENTRY_HEADER_WORDS, length);
      }
      nodes.even(node);
      level.push({ node, separator });
    }
  }
  if (level.length === 0) return true;
  let made = level.length;
  if (!reserveNodes(region, Math.ceil(level.length / INNER_FILL) + LEVELS_MAX)) return false;
  for (let height = 1; level.length > 1; height++) {
    level = buildInner(region, nodes, level, height);
    made += level.length;
  }
  const empty = region.words[REGION_INDEX_ROOT] * 2;
  region.words[REGION_INDEX_ROOT] = level[0].node >>> 1;
  region.words[REGION_INDEX_NODES] = made;
  nodes.odd(empty);
  nodes.give(empty);
  return true;
}

function buildInner(region: Region, nodes: NodePool, below: readonly Built[], height: number): Built[] {
  const built: Built[] = [];
  // As many nodes as needed, filled alike.
  const wanted = Math.ceil(below.length / (INNER_FILL + 1));
  for (let i = 0; i < wanted; i++) {
    const from = Math.floor((below.length * i) / wanted);
    const to = Math.floor((below.length * (i + 1)) / wanted);
    const node = nodes.take();
    const { words, bytes } = region;
    setCount(words, node, height, to - from - 1);
    words[node + NODE_FIRST_CHILD] = below[from].node >>> 1;
    let shared = 0;
    if (to - from > 1) {
      const first = below[from + 1].separator;
      const last = below[to - 1].separator;
      shared = sharedBytes(words, first + 1, words[first], words, last + 1, words[last]);
    }
    words[node + NODE_PREFIX] = shared;
    for (let j = from + 1; j < to; j++) {
      const slot = innerSlot(node, j - from - 1);
      const { separator } = below[j];
      words[slot] = fragment4(bytes, (separator + 1) * 4, words[separator], shared);
      words[slot + SLOT_SEPARATOR] = separator >>> 1;
      words[slot + SLOT_CHILD] = below[j].node >>> 1;
    }
    nodes.even(node);
    built.push({ node, separator: below[from].separator });
  }
  return built;
}
