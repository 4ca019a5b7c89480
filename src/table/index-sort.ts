/**
 * Sorting the keys of some shards, for the ordered index that is built in bulk (index-build.ts): by the eight bytes behind those that all keys begin with, with
 * a radix sort, and where these do not tell two keys apart by the keys themselves.
 *
 * How much all keys share is guessed from a sample; a run that meets a key that does not fit says so, and is sorted again with less.
 *
 * Source of the radix sort: Knuth, The Art of Computer Programming 3, 5.2.5, least significant digit first.
 */

import { KEY_LENGTH_MASK } from '../base/record.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import { fragment4 } from './key-fragment.js';
import { compareKeys, sharedBytes } from './key-probe.js';
import type { Shard } from './shard.js';

/** Keys of some shards in order. All arrays are shared memory, so a task hands them over without a copy. */
export interface SortedRun {
  units: Uint32Array;
  shards: Uint8Array;
  /** How many bytes all keys are thought to share; and of each the eight behind them, the first on top. */
  shared: number;
  high: Uint32Array;
  low: Uint32Array;
  /** Length of the longest key. */
  keyBytesMax: number;
}

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

export function keyLength(words: Int32Array, entry: number): number {
  return words[entry] & KEY_LENGTH_MASK;
}

export function sharedByEntries(a: Int32Array, entryA: number, b: Int32Array, entryB: number): number {
  return sharedBytes(a, entryA + ENTRY_HEADER_WORDS, keyLength(a, entryA), b, entryB + ENTRY_HEADER_WORDS, keyLength(b, entryB));
}

export function compareEntries(a: Int32Array, entryA: number, b: Int32Array, entryB: number): number {
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
  let keyBytesMax = 0;
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
        if (length > keyBytesMax) keyBytesMax = length;
        at++;
      }
    }
  }
  // The second part never holds: it keeps the loads of `fetchAll` from being optimized away.
  if (least < shared || fetched === 0.5) return least;
  run.keyBytesMax = keyBytesMax;
  return settleTies(radixSort(run), all);
}

function makeRun(count: number, shared: number, keyBytesMax = 0): SortedRun {
  return {
    shared,
    units: new Uint32Array(new SharedArrayBuffer(count * 4)),
    shards: new Uint8Array(new SharedArrayBuffer(count)),
    high: new Uint32Array(new SharedArrayBuffer(count * 4)),
    low: new Uint32Array(new SharedArrayBuffer(count * 4)),
    keyBytesMax,
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
  let into = makeRun(count, run.shared, run.keyBytesMax);
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
