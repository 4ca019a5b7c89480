/**
 * Decoded values of hot keys, for one thread: what `get` returns with `cache: true`.
 *
 * A value that was read once is kept, frozen, with what proves that it is still the one: the version of its shard, which every change of the shard raises, with the number of
 * times that it has come round, and the LSN of its entry. While the version is the same nothing in the shard has changed, so the kept value is what a read would find at
 * that very moment; no lock, no look-up, no decoding. When only other keys have changed, the entry is looked up and its LSN compared, and the value need not be
 * decoded again: an LSN belongs to one write of a key.
 *
 * A version has 32 bits and returns after 2^31 changes; its rounds are counted, in the same cache line, so that the entry's line need not be loaded. When a value is kept the
 * rounds are loaded after it was read: if the version is not the same by then, or the entry has another LSN, they are not those of the value, and it is kept
 * as one that has to be looked up first.
 *
 * What cannot be frozen (bytes, dates, maps and sets) is not kept. Two generations bound the memory, by number and by weight: when the younger one is full it becomes the older one, and the
 * older one goes; a hit in the older one moves the value to the younger one.
 */

import { loadAcquire } from '../memory/fence.js';
import * as M from '../memory/metrics.js';
import * as E from '../table/entry.js';
import { encodeKey } from '../table/key-codec.js';
import type { Shard } from '../table/shard.js';
import type { Core } from './core.js';

/** Values in each of the two generations, and what they may weigh. */
const GENERATION_MAX = 16_384;
const GENERATION_BYTES_MAX = 64 * 1024 * 1024;
/** Longer values are not kept, nor such that weigh more when they are decoded. */
const VALUE_BYTES_MAX = 4096;
const WEIGHT_MAX = 64 * 1024;
/** Longer keys are not kept. */
const KEY_CHARACTERS_MAX = 1024;
/** About what an object or an array, and a field or an item, take in the heap; and what is kept beside a value. */
const OBJECT_BYTES = 64;
const ITEM_BYTES = 16;
const KEPT_BYTES = 256;
/** No number of rounds: there have not been 2^32 of 2^31 changes each. */
const NO_ROUND = -1;

interface Kept {
  value: unknown;
  shard: Shard;
  keyHash: number;
  /** Of the shard, when the entry was last found there. */
  version: number;
  /** Of that version, or NO_ROUND. */
  rounds: number;
  lsnLow: number;
  lsnHigh: number;
  /** 0: never. */
  expiresMs: number;
  valueLength: number;
  /** Of value and key in the heap, about. */
  weight: number;
}

export class ValueCache {
  #young = new Map<string, Kept>();
  #youngBytes = 0;
  #old = new Map<string, Kept>();
  readonly #control: Int32Array;
  readonly #counters: Float64Array;

  /** @param readThrough reads a value as if there were no cache, and leaves in its shard what was found */
  constructor(
    readonly core: Core,
    readonly readThrough: (key: string) => unknown,
  ) {
    this.#control = core.words;
    this.#counters = core.metrics.counters;
  }

  get(key: string): unknown {
    const kept = this.#young.get(key) ?? this.#promoted(key);
    if (kept === undefined) return this.#read(key);
    const { shard } = kept;
    const control = this.#control;
    // The rounds after the version: they are counted up before it comes round.
    if (loadAcquire(control, shard.versionWord) !== kept.version || control[shard.roundsWord] !== kept.rounds)
      return this.#again(key, kept);
    if (kept.expiresMs !== 0 && kept.expiresMs <= this.core.clock.now()) return this.#read(key);
    return this.#hit(kept);
  }

  #hit(kept: Kept): unknown {
    const counters = this.#counters;
    counters[M.COUNTER_READS]++;
    counters[M.COUNTER_HITS]++;
    counters[M.COUNTER_BYTES_READ] += kept.valueLength;
    if (kept.shard.marks !== undefined) kept.shard.marks.touch(kept.keyHash);
    return kept.value;
  }

  #promoted(key: string): Kept | undefined {
    const kept = this.#old.get(key);
    if (kept !== undefined) this.#keep(key, kept);
    return kept;
  }

  /** Something in the shard has changed: was it this entry? */
  #again(key: string, kept: Kept): unknown {
    const { scratch } = this.core;
    encodeKey(scratch, key);
    const { shard } = kept;
    if (!shard.has() || shard.lsnLow !== kept.lsnLow || shard.lsnHigh !== kept.lsnHigh) return this.#read(key);
    kept.version = shard.foundVersion;
    kept.rounds = this.#roundsOf(shard);
    return this.#hit(kept);
  }

  /** The rounds of the version under which the shard was read just now. */
  #roundsOf(shard: Shard): number {
    const { words } = shard.region;
    const entry = shard.foundEntry;
    const rounds = loadAcquire(this.#control, shard.roundsWord);
    const isSame =
      loadAcquire(this.#control, shard.versionWord) === shard.foundVersion &&
      words[entry + E.ENTRY_LSN_LOW] === shard.lsnLow &&
      words[entry + E.ENTRY_LSN_HIGH] === shard.lsnHigh;
    return isSame ? rounds : NO_ROUND;
  }

  #read(key: string): unknown {
    const value = this.readThrough(key);
    const { scratch, shards, shardMask } = this.core;
    const shard = shards[scratch.keyHash & shardMask];
    const weight = value === undefined || shard.valueLength > VALUE_BYTES_MAX || key.length > KEY_CHARACTERS_MAX ? Infinity : weigh(value);
    if (weight > WEIGHT_MAX) {
      this.#drop(key);
      return value;
    }
    freeze(value);
    // A key that is a part of a longer string would keep all of it.
    this.#keep(this.#young.has(key) ? key : Buffer.from(key).toString(), {
      value,
      shard,
      keyHash: scratch.keyHash,
      version: shard.foundVersion,
      rounds: this.#roundsOf(shard),
      lsnLow: shard.lsnLow,
      lsnHigh: shard.lsnHigh,
      expiresMs: shard.expiresMs,
      valueLength: shard.valueLength,
      weight: weight + key.length * 2 + KEPT_BYTES,
    });
    return value;
  }

  #drop(key: string): void {
    this.#youngBytes -= this.#young.get(key)?.weight ?? 0;
    this.#young.delete(key);
    this.#old.delete(key);
  }

  #keep(key: string, kept: Kept): void {
    const before = this.#young.get(key);
    this.#youngBytes += kept.weight - (before?.weight ?? 0);
    if (before === undefined && (this.#young.size >= GENERATION_MAX || this.#youngBytes > GENERATION_BYTES_MAX)) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#youngBytes = kept.weight;
    }
    this.#young.set(key, kept);
  }
}

/** About what a value takes in the heap; Infinity for one that cannot be frozen, down to the last thing in it. */
function weigh(value: unknown): number {
  if (typeof value === 'string') return value.length * 2;
  if (typeof value !== 'object' || value === null) return ITEM_BYTES;
  if (!Array.isArray(value)) {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return Infinity;
  }
  let weight = OBJECT_BYTES;
  for (const item of Object.values(value) as unknown[]) weight += ITEM_BYTES + weigh(item);
  return weight;
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  Object.freeze(value);
  for (const item of Object.values(value) as unknown[]) freeze(item);
}
