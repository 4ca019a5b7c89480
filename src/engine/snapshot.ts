/** `Snapshot`: the store as it was at one moment, for reading, in the thread that opened it. */

import { FlashVectorError, describe } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import * as L from '../memory/layout.js';
import { encodeKey } from '../table/key-codec.js';
import type { Shard } from '../table/shard.js';
import type { Core } from './core.js';
import type { AnyKey, Entry, Key } from './key.js';
import { checkRange, type Range } from './range.js';
import { OrderedRange, countRange, type RangeIterable, type RangeOrigin, type Yields } from './range-iterable.js';
import { releaseQuietly, type Lease, type Views } from './views.js';

/** A snapshot that was collected as garbage without having been closed: it held old versions back until now. */
const forgotten = new FinalizationRegistry<{ lease: Lease; where: string }>(({ lease, where }) => {
  releaseQuietly(lease);
  process.emitWarning(`a snapshot was never closed; it was opened ${where}`, { code: 'FV_SNAPSHOT_LEAK' });
});

/**
 * A consistent read view: everything that was written before it was opened, by any thread, and nothing after; across all shards. Opening copies
 * nothing; while it is open, what later writes supersede is kept for it, so close it when it is no longer needed.
 *
 * @example
 * const snapshot = db.snapshot()
 * try { for (const [key, value] of snapshot.entries({ prefix: 'user:' })) … } finally { snapshot.close() }
 */
export class Snapshot implements Disposable {
  readonly #core: Core;
  readonly #lease: Lease;
  /** @internal */
  readonly origin: RangeOrigin;
  #isOpen = true;

  /** @internal Use `db.snapshot()`. */
  constructor(core: Core, views: Views) {
    this.#core = core;
    this.#lease = views.acquire();
    this.origin = {
      core,
      views,
      view: () => {
        this.#check();
        return this.#lease;
      },
    };
    forgotten.register(this, { lease: this.#lease, where: openedAt() }, this);
  }

  /** LSN of the last write that it sees. */
  get lsn(): number {
    return this.#lease.lsn;
  }

  /** The value under `key` at that moment, or `undefined`. @throws TypeError, FlashVectorError `FV_KEY`, `FV_CLOSED` */
  get(key: AnyKey): unknown {
    return this.#shardOf(key).getAt(this.#lease);
  }

  /** Whether `key` had a value. @throws as `get` */
  has(key: AnyKey): boolean {
    return this.#shardOf(key).hasAt(this.#lease);
  }

  /** Values of several keys, in their order. @throws as `get` */
  getMany(keys: readonly AnyKey[]): unknown[] {
    if (!Array.isArray(keys)) throw new TypeError(`getMany takes an array of keys, not ${describe(keys)}`);
    return keys.map((key: AnyKey) => this.get(key));
  }

  /** The value with its version, or `undefined`. @throws as `get` */
  getEntry(key: AnyKey): Entry | undefined {
    const shard = this.#shardOf(key);
    const value = shard.getAt(this.#lease);
    return value === undefined ? undefined : entryOf(shard, value);
  }

  /** Entries in order of their keys. @throws TypeError, FlashVectorError `FV_OPTION`, `FV_KEY`, `FV_CLOSED` */
  entries(range?: Range): RangeIterable<[key: Key, value: unknown]> {
    return this.#range('entries', range);
  }

  keys(range?: Range): RangeIterable<Key> {
    return this.#range('keys', range);
  }

  values(range?: Range): RangeIterable<unknown> {
    return this.#range('values', range);
  }

  /** Number of keys in the range. Cost: some 100 ns a key. */
  count(range?: Range): number {
    this.#check();
    return countRange(this.#core, checkRange(this.#core, 'count', range), this.#lease);
  }

  #range<T>(yields: Yields, range: Range | undefined): RangeIterable<T> {
    this.#check();
    return new OrderedRange<T>(this.origin, checkRange(this.#core, yields, range), yields);
  }

  #shardOf(key: AnyKey): Shard {
    this.#check();
    const core = this.#core;
    encodeKey(core.scratch, key);
    return core.shards[core.scratch.keyHash & core.shardMask];
  }

  #check(): void {
    if (!this.#isOpen) throw new FlashVectorError('FV_CLOSED', 'the snapshot is closed');
    if (this.origin.views.isClosed || Atomics.load(this.#core.words, L.CONTROL_STATUS) >= L.STATUS_CLOSING)
      throw this.#core.control.closedError();
  }

  /** Lets go of what was kept for it. Again does nothing. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    forgotten.unregister(this);
    this.#lease.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The entry that a shard has just read. */
export function entryOf(shard: Shard, value: unknown): Entry {
  const entry: Entry = { value, lsn: lsnFrom(shard.lsnLow, shard.lsnHigh) };
  if (shard.expiresMs !== 0) entry.expiresAt = Math.ceil(shard.expiresMs);
  return entry;
}

/** The line of the caller's code that opened it, for the warning. */
function openedAt(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 5;
  const { stack } = new Error('opened');
  Error.stackTraceLimit = limit;
  return (stack?.split('\n')[4] ?? 'somewhere').trim();
}
