/**
 * `FlashVector`: the store as a thread sees it: reads, writes, and here its life and what surrounds it. The same class serves the owner and attached threads;
 * what differs is what closing does.
 *
 * Public methods check their arguments here; what they call trusts them.
 */

import { describe, FlashVectorError } from '../base/errors.js';
import type { SublevelOptions } from '../base/options.js';
import * as M from '../memory/metrics.js';
import { checkChangesOptions, followChanges, type Change, type ChangeSource, type ChangesOptions } from './changes.js';
import type { CheckpointStats } from './checkpoints.js';
import type { Core } from './core.js';
import type { StoreHandle } from './handle.js';
import { exposeMetrics } from './prometheus.js';
import { collectStats, statusName, type Stats, type Status } from './stats.js';
import { StoreWrites } from './store-writes.js';
import { Sublevel } from './sublevel.js';
import type { Writer } from './writer.js';

/** What differs between the owner's object and that of an attached thread. */
export interface Lifecycle {
  close(db: FlashVector): Promise<void>;
  checkpoint(): Promise<number>;
  backup(directory: string): Promise<number>;
  /** Where the change feed reads; `undefined` where there is none. */
  readonly changes?: ChangeSource;
  /** `undefined` where nobody knows: only the owner makes checkpoints. */
  readonly checkpoints: CheckpointStats | undefined;
}

export class FlashVector extends StoreWrites implements AsyncDisposable {
  readonly #lifecycle: Lifecycle;
  #closed: Promise<void> | undefined;

  /** @internal Use `open` or `attach`. */
  constructor(core: Core, writer: Writer, lifecycle: Lifecycle, isCached = false) {
    super(core, writer, isCached);
    this.#lifecycle = lifecycle;
  }

  /**
   * Every committed change, in the order of LSNs, from the log: first those after `since` that were written before, then those that come.
   * What a slow reader has not read holds nobody up. Owner only.
   *
   * Rejects with `FV_ABORTED` (with `lsn`, the oldest change there is, when the log does not reach back to `since` any more), `FV_CLOSED` when the store
   * closes, `FV_OPTION`, `FV_CORRUPT`, `FV_IO`; `FV_ABORTED` without `lsn` when the thread that read the log died.
   * @example for await (const { lsn, type, key, value } of db.changes({ since: 0 })) …
   */
  changes(options: ChangesOptions = {}): AsyncIterableIterator<Change> {
    this.checkReadable();
    checkChangesOptions(options);
    const { changes } = this.#lifecycle;
    if (changes === undefined)
      throw new FlashVectorError(
        'FV_OPTION',
        "changes are read by the store's owner, where it is open for writing, not by an attached thread",
      );
    return followChanges(this.core, changes, options.since ?? this.core.control.lastLsn, options.signal);
  }

  /**
   * A part of the store under a name, with keys of its own; see `Sublevel`.
   * @throws TypeError, FlashVectorError `FV_OPTION`
   * @example db.sublevel('users').put('ada', { name: 'Ada' })
   */
  sublevel(name: string, options: SublevelOptions = {}): Sublevel {
    this.checkReadable();
    return new Sublevel(this, Buffer.alloc(0), name, options);
  }

  // Life --------------------------------------------------------------------------------------

  get status(): Status {
    return this.isDetached ? 'closed' : statusName(this.core.control.status);
  }

  /** What another thread needs to `attach`: pass it in `workerData` or a message. */
  get handle(): StoreHandle {
    return this.core.handle;
  }

  /**
   * Writes a checkpoint of everything acknowledged so far, in the background, and gives up the log before it. A call
   * while one is being written waits for it and for another one. Writers go on meanwhile.
   * Resolves with the checkpoint's LSN: every write below it is in the checkpoint.
   * Rejects with `FV_IO` (nothing is lost and the store goes on), `FV_READONLY`, `FV_CLOSED`, `FV_ABORTED` (the store closed, or the thread that wrote died).
   */
  checkpoint(): Promise<number> {
    try {
      this.checkWritable();
      return this.#lifecycle.checkpoint();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Makes a complete copy of the store, verified and ready to be opened, while writers go on. Owner only.
   * Resolves with the LSN up to which, at least, it holds everything.
   * Rejects with `FV_IO` (also when the folder holds anything), `FV_OPTION` in an attached thread, `FV_READONLY`, `FV_CLOSED`,
   * `FV_ABORTED`, or a TypeError; what had been written of the copy is removed.
   * @param directory a folder that does not exist or is empty
   */
  backup(directory: string): Promise<number> {
    try {
      this.checkWritable();
      if (typeof directory !== 'string' || directory === '' || directory.includes('\0'))
        throw new TypeError(`backup: directory must be a path, not ${describe(directory)}`);
      return this.#lifecycle.backup(directory);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Counts, sizes and latencies of the whole store. Cost: some 100 µs; disturbs nobody. */
  stats(): Stats {
    this.#foldContention();
    return { ...collectStats(this.core), checkpoints: this.#lifecycle.checkpoints };
  }

  /** What `stats` shows, and the distributions of the latencies, as text for Prometheus; names begin with `flashvector_`. Cost: some 200 µs. */
  metrics(): string {
    return exposeMetrics(this.core, this.stats());
  }

  #foldContention(): void {
    for (const shard of this.core.shards) {
      this.counters[M.COUNTER_OPTIMISTIC_RETRIES] += shard.retries;
      shard.retries = 0;
    }
    this.counters[M.COUNTER_LOCK_WAITS] += this.core.ring.lockWaits;
    this.core.ring.lockWaits = 0;
  }

  /**
   * Ends the use of the store. The owner's `close` refuses new operations with `FV_CLOSED`, finishes those in
   * flight, syncs, and ends every thread; an attached thread's detaches that thread only.
   * Calling it again returns the same promise.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.isClosing = true;
    this.views.close();
    try {
      await this.#lifecycle.close(this);
    } finally {
      this.#foldContention();
      this.writer.dispose();
      this.isDetached = true;
      this.emit('close');
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
