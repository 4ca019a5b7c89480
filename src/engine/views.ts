/**
 * The moments at which this thread reads: registered in the snapshot table, shared by all who read at the same one, and given back.
 *
 * When nothing was written since the last one was opened, the next reader shares it: opening costs a few loads then. Versions that nobody needs
 * any more after a close are freed in slices from the event loop, by whoever closed; the owner looks after those of dead threads.
 */

import { FlashVectorError } from '../base/errors.js';
import * as L from '../memory/layout.js';
import { releaseWrite, tryAcquireWrite } from '../memory/lock.js';
import { reclaimLocked } from '../table/reclaim.js';
import type { View } from '../table/shard-reader.js';
import type { Core } from './core.js';

/** Old versions freed in one turn of the event loop, some 300 µs; and while a shard's lock is held. */
const RECLAIM_SLICE = 512;
const RECLAIM_PER_LOCK = 64;

interface Registered {
  index: number;
  lsn: number;
  readers: number;
}

/** A moment to read at, until `release`. */
export interface Lease extends View {
  /** May be called again: then it does nothing. */
  release(): void;
}

/** For what is collected as garbage: nobody is there to be told when the log lock is not to be had. The burial of the thread closes it then. */
export function releaseQuietly(lease: Lease): void {
  try {
    lease.release();
  } catch (error) {
    if (!(error instanceof FlashVectorError)) throw error;
  }
}

export class Views {
  readonly #core: Core;
  readonly #words: Int32Array;
  #latest: Registered | undefined;
  readonly #registered = new Set<Registered>();
  #reclaiming = false;
  #closed = false;

  constructor(core: Core) {
    this.#core = core;
    this.#words = core.words;
  }

  /** This thread's use of the store has ended, and with it whatever it reads at. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** @throws FlashVectorError FV_CLOSED, FV_MEMORY_FULL when too many are open, FV_TIMEOUT */
  acquire(): Lease {
    const core = this.#core;
    if (this.#closed) throw core.control.closedError();
    let registered = this.#latest;
    if (registered === undefined || registered.readers === 0 || registered.lsn !== core.control.lastLsn) {
      const index = core.snapshots.open();
      registered = { index, lsn: core.snapshots.lsnOf(index), readers: 0 };
      this.#latest = registered;
      this.#registered.add(registered);
    }
    registered.readers++;
    const shared = registered;
    let isOpen = true;
    return {
      lsn: shared.lsn,
      nowMs: core.clock.now(),
      release: () => {
        if (!isOpen) return;
        isOpen = false;
        this.#release(shared);
      },
    };
  }

  #release(registered: Registered): void {
    if (--registered.readers > 0 || this.#closed) return;
    this.#registered.delete(registered);
    if (this.#latest === registered) this.#latest = undefined;
    this.#core.snapshots.close(registered.index);
    this.reclaim();
  }

  /** Gives everything back, whoever still holds it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { index } of this.#registered) this.#core.snapshots.close(index);
    this.#registered.clear();
  }

  /** Frees versions that nobody needs, a slice a turn, until none is left that can go. */
  reclaim(): void {
    if (this.#reclaiming || this.#closed || !this.#core.shards.some((shard) => shard.hasVersions())) return;
    this.#reclaiming = true;
    // Referenced: an unreferenced one does not wake an idle process, and this ends by itself.
    setImmediate(() => {
      this.#reclaiming = false;
      if (this.#closed || Atomics.load(this.#words, L.CONTROL_STATUS) > L.STATUS_READONLY) return;
      if (this.#reclaimSlice()) this.reclaim();
    });
  }

  /** @returns whether there may be more */
  #reclaimSlice(): boolean {
    const { shards, slot } = this.#core;
    let left = RECLAIM_SLICE;
    let more = false;
    for (const shard of shards) {
      if (left <= 0) return true;
      if (!shard.hasVersions() || !tryAcquireWrite(this.#words, shard.lockWord, slot + 1, 0)) continue;
      try {
        shard.region.sync();
        const freed = reclaimLocked(shard, RECLAIM_PER_LOCK);
        left -= freed;
        if (freed === RECLAIM_PER_LOCK) more = true;
      } finally {
        releaseWrite(this.#words, shard.lockWord);
      }
    }
    return more;
  }
}
