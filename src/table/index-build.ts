/**
 * Building the ordered index in bulk, over tables that nobody changes: after recovery.
 *
 * First every task sorts the keys of its share of the shards (`sortRun`): by the eight bytes behind those that all keys begin with, with a radix
 * sort, and where these do not tell two keys apart by the keys themselves. Then one task merges the runs and writes the
 * tree from its leaves up (`buildIndex`).
 *
 * How much all keys share is guessed from a sample; a run that meets a key that does not fit says so, and is sorted again with less.
 *
 * Source of the radix sort: Knuth, The Art of Computer Programming 3, 5.2.5, least significant digit first.
 */

import { KEY_LENGTH_MASK } from '../base/record.js';
import { reserveTop } from '../memory/chunks.js';
import { CHUNK_BYTES, REGION_INDEX_NODES, REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import {
  FRAGMENT_SHIFT,
  INNER_SLOTS,
  LEAF_INTENT,
  LEAF_SLOTS,
  NODE_FIRST_CHILD,
  NODE_PREFIX,
  SLOT_CHILD,
  SLOT_SEPARATOR,
  innerSlot,
  leafSlot,
  setCount,
} from './index-node.js';
import { canTell, fragment4, fragmentOf, fragmentOfEight, isDense, prefixFor } from './key-fragment.js';
import { compareKeys, sharedBytes } from './key-probe.js';
import { NodePool } from './node-pool.js';
import { storeSeparator } from './separator.js';
import type { Shard } from './shard.js';

/** Keys of some shards in order. All arrays are shared memory, so a task hands them over without a copy. */
export interface SortedRun {
  units: Uint32Array;
  shards: Uint8Array;
  /** How many bytes all keys are thought to share; and of each the eight behind them, the first on top. */
  shared: number;
  high: Uint32Array;
  low: Uint32Array;
}

/** What is left free in a leaf and in an inner node for keys to come. */
const LEAF_FILL = LEAF_SLOTS - 8;
const INNER_FILL = INNER_SLOTS - 6;
const SAMPLE_MAX = 512;
const RADIX_BITS = 11;
const RADIX_SIZE = 1 << RADIX_BITS;
/** Eight bytes in six steps: three of 11, 11 and 10 bits for each word. */
const STEPS: readonly (readonly ['low' | 'high', number])[] = [
  ['low', 0],
  ['low', 11],
  ['low', 22],
  ['high', 0],
  ['high', 11],
  ['high', 22],
];

/** Bytes that the keys of some shards share, as far as a sample tells. */
export function sampleShared(shards: readonly Shard[]): number {
  let first: { words: Int32Array; entry: number } | undefined;
  let shared = Infinity;
  for (const shard of shards) {
    const units: number[] = [];
    shard.region.refresh();
    shard.table.collect(0, units);
    const { words } = shard.region;
    for (const unit of units.slice(0, Math.ceil(SAMPLE_MAX / shards.length))) {
      const entry = unit * 2;
      if (first === undefined) first = { words, entry };
      shared = Math.min(shared, sharedByEntries(first.words, first.entry, words, entry));
    }
  }
  return shared === Infinity ? 0 : shared;
}

function keyLength(words: Int32Array, entry: number): number {
  return words[entry] & KEY_LENGTH_MASK;
}

function sharedByEntries(a: Int32Array, entryA: number, b: Int32Array, entryB: number): number {
  return sharedBytes(a, entryA + ENTRY_HEADER_WORDS, keyLength(a, entryA), b, entryB + ENTRY_HEADER_WORDS, keyLength(b, entryB));
}

function compareEntries(a: Int32Array, entryA: number, b: Int32Array, entryB: number): number {
  return compareKeys(a, entryA + ENTRY_HEADER_WORDS, keyLength(a, entryA), b, entryB + ENTRY_HEADER_WORDS, keyLength(b, entryB));
}

/**
 * Sorts the keys of some shards.
 * @param all every shard of the store: what they all share is told by the first key of the first one that has any
 * @param own the shards of this run
 * @param shared bytes that all keys are thought to share
 * @returns the run, or how many bytes they do share
 */
export function sortRun(all: readonly Shard[], own: readonly Shard[], shared: number): SortedRun | number {
  const count = own.reduce((sum, shard) => sum + shard.entryCount, 0);
  const run = makeRun(count, shared);
  let reference: { words: Int32Array; entry: number } | undefined;
  for (const shard of all) {
    const units: number[] = [];
    shard.region.refresh();
    for (let prefix = 0; prefix < 0x1_0000_0000 && reference === undefined;) {
      prefix += 2 ** shard.table.collect(prefix | 0, units);
      if (units.length > 0) reference = { words: shard.region.words, entry: units[0] * 2 };
    }
    if (reference !== undefined) break;
  }
  if (reference === undefined) return run;
  let least = shared;
  let fetched = 0;
  let at = 0;
  for (const shard of own) {
    const { words, bytes } = shard.region;
    const units: number[] = [];
    for (let prefix = 0; prefix < 0x1_0000_0000;) {
      prefix += 2 ** shard.table.collect(prefix | 0, units);
      fetched ^= fetchAll(words, units);
      for (const unit of units) {
        const entry = unit * 2;
        const common = shared === 0 ? 0 : sharedByEntries(reference.words, reference.entry, words, entry);
        if (common < least) least = common;
        const length = keyLength(words, entry);
        const start = (entry + ENTRY_HEADER_WORDS) * 4;
        run.units[at] = unit;
        run.shards[at] = shard.index;
        run.high[at] = fragment4(bytes, start, length, shared);
        run.low[at] = fragment4(bytes, start, length, shared + 4);
        at++;
      }
    }
  }
  // The second part never holds: it keeps the loads of `fetchAll` from being optimized away.
  if (least < shared || fetched === 0.5) return least;
  return settleTies(radixSort(run), all);
}

function makeRun(count: number, shared: number): SortedRun {
  return {
    shared,
    units: new Uint32Array(new SharedArrayBuffer(count * 4)),
    shards: new Uint8Array(new SharedArrayBuffer(count)),
    high: new Uint32Array(new SharedArrayBuffer(count * 4)),
    low: new Uint32Array(new SharedArrayBuffer(count * 4)),
  };
}

/** Loads the first words of many entries, all at once: one after the other, each would be waited for. */
function fetchAll(words: Int32Array, units: readonly number[]): number {
  let sum = 0;
  for (const unit of units) sum ^= words[unit * 2];
  return sum;
}

function radixSort(run: SortedRun): SortedRun {
  const count = run.units.length;
  let from = run;
  let into = makeRun(count, run.shared);
  const counts = new Uint32Array(RADIX_SIZE);
  for (const [word, shift] of STEPS) {
    const digits = from[word];
    counts.fill(0);
    for (let i = 0; i < count; i++) counts[(digits[i] >>> shift) & (RADIX_SIZE - 1)]++;
    // Where all have the same digit there is nothing to do.
    if (count === 0 || counts[(digits[0] >>> shift) & (RADIX_SIZE - 1)] === count) continue;
    let sum = 0;
    for (let digit = 0; digit < RADIX_SIZE; digit++) {
      const here = counts[digit];
      counts[digit] = sum;
      sum += here;
    }
    for (let i = 0; i < count; i++) {
      const to = counts[(digits[i] >>> shift) & (RADIX_SIZE - 1)]++;
      into.units[to] = from.units[i];
      into.shards[to] = from.shards[i];
      into.high[to] = from.high[i];
      into.low[to] = from.low[i];
    }
    [from, into] = [into, from];
  }
  return from;
}

/** Sorts runs of keys whose eight bytes are the same by the whole keys. */
function settleTies(run: SortedRun, shards: readonly Shard[]): SortedRun {
  const { units, shards: shardOf, high, low } = run;
  for (let start = 0; start < units.length;) {
    let end = start + 1;
    while (end < units.length && high[end] === high[start] && low[end] === low[start]) end++;
    if (end - start > 1) {
      const order = Array.from({ length: end - start }, (_, i) => ({ unit: units[start + i], shard: shardOf[start + i] }));
      order.sort((a, b) => compareEntries(shards[a.shard].region.words, a.unit * 2, shards[b.shard].region.words, b.unit * 2));
      order.forEach(({ unit, shard }, i) => {
        units[start + i] = unit;
        shardOf[start + i] = shard;
      });
    }
    start = end;
  }
  return run;
}

/** Takes the keys of several runs in order. */
class Merge {
  readonly #runs: readonly SortedRun[];
  readonly #next: number[];
  unit = 0;
  shard = 0;
  high = 0;
  low = 0;
  /** Bytes that keys share before `high` and `low`: the same in all runs. */
  readonly shared: number;

  constructor(
    runs: readonly SortedRun[],
    readonly shards: readonly Shard[],
  ) {
    this.#runs = runs.filter((run) => run.units.length > 0);
    this.#next = this.#runs.map(() => 0);
    this.shared = this.#runs[0]?.shared ?? 0;
  }

  advance(): boolean {
    let least = -1;
    for (let i = 0; i < this.#runs.length; i++) {
      if (this.#next[i] < this.#runs[i].units.length && (least === -1 || this.#isBefore(i, least))) least = i;
    }
    if (least === -1) return false;
    const run = this.#runs[least];
    const at = this.#next[least]++;
    this.unit = run.units[at];
    this.shard = run.shards[at];
    this.high = run.high[at];
    this.low = run.low[at];
    return true;
  }

  #isBefore(a: number, b: number): boolean {
    const runA = this.#runs[a];
    const runB = this.#runs[b];
    const i = this.#next[a];
    const j = this.#next[b];
    if (runA.high[i] !== runB.high[j]) return runA.high[i] < runB.high[j];
    if (runA.low[i] !== runB.low[j]) return runA.low[i] < runB.low[j];
    return (
      compareEntries(
        this.shards[runA.shards[i]].region.words,
        runA.units[i] * 2,
        this.shards[runB.shards[j]].region.words,
        runB.units[j] * 2,
      ) < 0
    );
  }
}

/** A finished node, and the separator before it: word index of its block, 0 before the first. */
interface Built {
  node: number;
  separator: number;
}

/**
 * Writes the tree of all keys into an empty index. Nobody else uses it yet.
 * @returns false when there is no memory
 */
export function buildIndex(region: Region, shards: readonly Shard[], runs: readonly SortedRun[]): boolean {
  const count = runs.reduce((sum, run) => sum + run.units.length, 0);
  if (count === 0) return true;
  for (const shard of shards) shard.region.refresh();
  region.refresh();
  if (!reserveTop(region, Math.ceil(((count / LEAF_FILL) * 1.1) / 15 + 8) * CHUNK_BYTES)) return false;
  const nodes = new NodePool(region);
  const built = buildLeaves(region, shards, nodes, new Merge(runs, shards));
  if (built === undefined) return false;
  let made = built.length;
  let level = built;
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

function buildLeaves(region: Region, shards: readonly Shard[], nodes: NodePool, merge: Merge): Built[] | undefined {
  const built: Built[] = [];
  const units = new Uint32Array(LEAF_FILL);
  const shardOf = new Uint8Array(LEAF_FILL);
  const high = new Uint32Array(LEAF_FILL);
  const low = new Uint32Array(LEAF_FILL);
  let separator = 0;
  let more = merge.advance();
  while (more) {
    let count = 0;
    while (more && count < LEAF_FILL) {
      units[count] = merge.unit;
      high[count] = merge.high;
      low[count] = merge.low;
      shardOf[count++] = merge.shard;
      more = merge.advance();
    }
    let next = 0;
    if (more) {
      const a = shards[shardOf[count - 1]].region.words;
      const b = shards[merge.shard].region.words;
      const shared = sharedByEntries(a, units[count - 1] * 2, b, merge.unit * 2);
      if (!reserveTop(region, shared + 4 * CHUNK_BYTES)) return undefined;
      next = storeSeparator(region, b, merge.unit * 2 + ENTRY_HEADER_WORDS, shared + 1);
    }
    const { words } = region;
    const shared = separator === 0 || next === 0 ? 0 : sharedBytes(words, separator + 1, words[separator], words, next + 1, words[next]);
    const node = nodes.take();
    setCount(region.words, node, 0, count);
    const prefix = prefixOfKeys(shards[shardOf[0]].region, units[0] * 2, shards[shardOf[count - 1]].region, units[count - 1] * 2, shared);
    const areDense = isDense(prefix);
    region.words[node + NODE_PREFIX] = prefix;
    region.words[node + LEAF_INTENT] = 0;
    for (let i = 0; i < count; i++) {
      const skip = shared - merge.shared;
      // Most often the bytes are at hand; the keys lie anywhere in memory.
      const fragment = canTell(skip, areDense)
        ? fragmentOfEight(high[i], low[i], skip, areDense)
        : fragmentOfKey(shards[shardOf[i]].region, units[i] * 2, prefix);
      region.words[leafSlot(node, i)] = units[i];
      region.words[leafSlot(node, i) + 1] = (fragment << FRAGMENT_SHIFT) | shardOf[i];
    }
    nodes.even(node);
    built.push({ node, separator });
    separator = next;
  }
  return built;
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
