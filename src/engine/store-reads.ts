/**
 * The reading half of a store as a thread sees it; store-writes.ts adds writing, database.ts the store's life.
 *
 * Public methods check their arguments here; what they call trusts them.
 */

import { EventEmitter } from 'node:events';
import { describe } from '../base/errors.js';
import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import { encodeKey } from '../table/key-codec.js';
import type { ShardEntry } from '../table/shard-reader.js';
import type { CheckpointReport } from './checkpoints.js';
import type { Core } from './core.js';
import type { AnyKey, Entry, Key } from './key.js';
import { checkRange, type Range } from './range.js';
import { OrderedRange, countRange, type RangeIterable, type RangeOrigin, type Yields } from './range-iterable.js';
import { Snapshot, entryOf } from './snapshot.js';
import { ValueCache } from './value-cache.js';
import { Views } from './views.js';

export interface FlashVectorEvents {
  error: [error: Error];
  /** A checkpoint has ended, for whatever reason it was made; on the owner's object. */
  checkpoint: [report: CheckpointReport];
  readonly: [cause: Error];
  close: [];
}

const GET_SAMPLE_MASK = 255;

/** A range, and the moment at which it is read. */
export interface ReadRange extends Range {
  /** Reads from this snapshot instead of from one of its own. */
  snapshot?: Snapshot;
}

export abstract class StoreReads extends EventEmitter<FlashVectorEvents> {
  protected readonly core: Core;
  protected readonly views: Views;
  protected readonly counters: Float64Array;
  protected readonly words: Int32Array;
  /** This thread does not use the store any more. */
  protected isDetached = false;
  readonly #origin: RangeOrigin;
  #gets = 0;

  readonly #cache: ValueCache | undefined;

  /** @param isCached whether `get` keeps decoded values */
  protected constructor(core: Core, isCached: boolean) {
    super();
    this.core = core;
    this.#cache = isCached ? new ValueCache(core, (key) => this.read(key)) : undefined;
    this.views = new Views(core);
    this.counters = core.metrics.counters;
    this.words = core.words;
    this.#origin = { core, views: this.views, view: () => undefined };
  }

  /**
   * The value under `key`, or `undefined`. The value is the caller's own copy; with `cache: true` objects and arrays may be shared, and are frozen.
   * Cost: well under a microsecond for small values; never waits for the disk.
   * @throws TypeError, FlashVectorError `FV_KEY`, `FV_CLOSED`
   * @example db.get('user:1') // { name: 'Ada' }
   */
  get(key: AnyKey): unknown {
    if ((++this.#gets & GET_SAMPLE_MASK) === 0) return this.#getSampled(key);
    return this.#get(key);
  }

  #get(key: AnyKey): unknown {
    if (this.words[L.CONTROL_STATUS] >= L.STATUS_CLOSING || this.isDetached) throw this.core.control.closedError();
    if (this.#cache !== undefined && typeof key === 'string') return this.#cache.get(key);
    return this.read(key);
  }

  protected read(key: AnyKey): unknown {
    const core = this.core;
    const scratch = core.scratch;
    encodeKey(scratch, key);
    const shard = core.shards[scratch.keyHash & core.shardMask];
    const value = shard.get();
    const counters = this.counters;
    counters[M.COUNTER_READS]++;
    if (value !== undefined) {
      counters[M.COUNTER_HITS]++;
      counters[M.COUNTER_BYTES_READ] += shard.valueLength;
    }
    return value;
  }

  #getSampled(key: AnyKey): unknown {
    const started = performance.now();
    const value = this.#get(key);
    this.core.metrics.record(M.HISTOGRAM_GET, (performance.now() - started) * 1e6);
    return value;
  }

  /** Whether `key` has a value. @throws as `get` */
  has(key: AnyKey): boolean {
    this.checkReadable();
    const core = this.core;
    encodeKey(core.scratch, key);
    const found = core.shards[core.scratch.keyHash & core.shardMask].has();
    this.counters[M.COUNTER_READS]++;
    if (found) this.counters[M.COUNTER_HITS]++;
    return found;
  }

  /** Values of several keys, in their order; `undefined` where there is none. @throws as `get` */
  getMany(keys: readonly AnyKey[]): unknown[] {
    if (!Array.isArray(keys)) throw new TypeError(`getMany takes an array of keys, not ${describe(keys)}`);
    const values: unknown[] = [];
    for (const key of keys) values.push(this.#get(key as Key));
    return values;
  }

  /** The value with its version, or `undefined`. @throws as `get` */
  getEntry(key: AnyKey): Entry | undefined {
    this.checkReadable();
    return this.readEntry(key);
  }

  /** For writes that are finished while the store is closing, too. */
  protected readEntry(key: AnyKey): Entry | undefined {
    const value = this.read(key);
    if (value === undefined) return undefined;
    const core = this.core;
    return entryOf(core.shards[core.scratch.keyHash & core.shardMask], value);
  }

  /**
   * How long the key still lives, in milliseconds, as in Redis: -1 when it does not expire, -2 when it is not there.
   * @throws as `get`
   */
  ttl(key: AnyKey): number {
    this.checkReadable();
    const core = this.core;
    encodeKey(core.scratch, key);
    const shard = core.shards[core.scratch.keyHash & core.shardMask];
    if (shard.get() === undefined) return -2;
    return shard.expiresMs === 0 ? -1 : Math.max(0, shard.expiresMs - core.clock.now());
  }

  /** Number of keys. Those that have expired count until they are removed, a moment later. @throws FlashVectorError `FV_CLOSED` */
  get size(): number {
    this.checkReadable();
    let size = 0;
    for (const shard of this.core.shards) size += shard.entryCount;
    return size;
  }

  /**
   * Entries in order of their keys, for `for` and `for await`; each iterator reads at the moment at which it is made, whatever is written
   * meanwhile. `for await` gives the event loop a turn after every hundred entries.
   *
   * In a store opened with `ordered: false` all entries come, in no particular order and not of one moment, and a range is refused.
   * @throws TypeError, FlashVectorError `FV_OPTION`, `FV_KEY`, `FV_CLOSED`
   * @example for (const [key, value] of db.entries({ prefix: 'user:', limit: 10 })) …
   */
  entries(range?: ReadRange): RangeIterable<[key: Key, value: unknown]> {
    return this.#range('entries', range, ({ key, value }) => [key, value]);
  }

  /** Keys in order; see `entries`. */
  keys(range?: ReadRange): RangeIterable<Key> {
    return this.#range('keys', range, ({ key }) => key);
  }

  /** Values in order of their keys; see `entries`. */
  values(range?: ReadRange): RangeIterable<unknown> {
    return this.#range('values', range, ({ value }) => value);
  }

  /** Number of keys in a range, at this moment. Cost: some 100 ns a key. @throws as `entries` */
  count(range?: ReadRange): number {
    this.checkReadable();
    const snapshot = this.#snapshotOf('count', range);
    if (snapshot !== undefined) return snapshot.count(withoutSnapshot(range));
    const bounds = checkRange(this.core, 'count', withoutSnapshot(range));
    const lease = this.views.acquire();
    try {
      return countRange(this.core, bounds, lease);
    } finally {
      lease.release();
    }
  }

  /**
   * Opens a consistent read view of this moment, across shards and threads. Close it when it is no longer needed: what is written
   * meanwhile costs memory. One that is forgotten is given back when it is collected, with a warning, or when its thread ends.
   * @throws FlashVectorError `FV_MEMORY_FULL` when a thousand are open, `FV_CLOSED`
   */
  snapshot(): Snapshot {
    this.checkReadable();
    return new Snapshot(this.core, this.views);
  }

  #range<T>(yields: Yields, range: ReadRange | undefined, pick: (entry: ShardEntry) => T): RangeIterable<T> {
    this.checkReadable();
    if (this.core.index === undefined && range === undefined) return unordered(() => this.#walk(pick));
    const snapshot = this.#snapshotOf(yields, range);
    if (snapshot !== undefined) return snapshot[yields](withoutSnapshot(range)) as RangeIterable<T>;
    return new OrderedRange<T>(this.#origin, checkRange(this.core, yields, withoutSnapshot(range)), yields);
  }

  /** The snapshot that a range is to be read from, if any. @throws TypeError when it is none, or one of another store or thread */
  #snapshotOf(call: string, range: ReadRange | undefined): Snapshot | undefined {
    const snapshot = (range as ReadRange | null | undefined)?.snapshot;
    if (snapshot === undefined) return undefined;
    if (snapshot instanceof Snapshot && snapshot.origin.core === this.core) return snapshot;
    throw new TypeError(`${call}: snapshot must be one of this store's db.snapshot(), not ${describe(snapshot)}`);
  }

  *#walk<T>(pick: (entry: ShardEntry) => T): IterableIterator<T, undefined> {
    for (const shard of this.core.shards) {
      let prefix = 0;
      while (prefix < 0x1_0000_0000) {
        this.checkReadable();
        const found: ShardEntry[] = [];
        prefix = shard.walk(prefix, found);
        for (const entry of found) yield pick(entry);
      }
    }
    return undefined;
  }

  /** @internal */
  get hasOrderedKeys(): boolean {
    return this.core.hasOrderedKeys;
  }

  /** @internal A range whose keys are shown as `decode` says: what a sublevel is made of. */
  rawRange<T>(yields: Yields, range: ReadRange, decode: (bytes: Buffer, flags: number) => Key): RangeIterable<T> {
    this.checkReadable();
    const snapshot = this.#snapshotOf(yields, range);
    const origin: RangeOrigin = { ...(snapshot?.origin ?? this.#origin), decodeKey: decode };
    return new OrderedRange<T>(origin, checkRange(this.core, yields, withoutSnapshot(range)), yields);
  }

  /** @internal Frees what snapshots of threads that have ended kept. */
  reclaimVersions(): void {
    this.views.reclaim();
  }

  protected checkReadable(): void {
    if (this.isDetached || this.words[L.CONTROL_STATUS] >= L.STATUS_CLOSING) throw this.core.control.closedError();
  }
}

function withoutSnapshot(range: ReadRange | undefined): Range | undefined {
  if (range?.snapshot === undefined) return range;
  const bare = { ...range };
  delete bare.snapshot;
  return bare;
}

/** The walk over a store without an index, as something to iterate over. */
function unordered<T>(walk: () => IterableIterator<T, undefined>): RangeIterable<T> {
  return {
    [Symbol.iterator]: walk,
    async *[Symbol.asyncIterator](): AsyncGenerator<T, undefined> {
      let untilTurn = 100;
      for (const entry of walk()) {
        if (--untilTurn === 0) {
          untilTurn = 100;
          await new Promise((resolve) => setImmediate(resolve));
        }
        yield entry;
      }
      return undefined;
    },
  };
}
