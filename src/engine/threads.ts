/**
 * The watch over threads that use the store.
 *
 * `process.on('worker')` announces every worker that this thread creates once the module is loaded, its `exit` event
 * the end of it; attached threads watch theirs in the same way. A thread that detached has freed its
 * slot; one that did not is dead, and its slot is looked at here:
 *
 * - Its reader bits are cleared, so no writer waits for it.
 * - A record that it reserved and did not publish becomes a SKIP record: the log goes on behind it.
 * - If it held no lock, that is all: the slot is freed.
 * - If it died holding a lock, what the lock guards may be half changed. The store turns read-only with
 *   FV_IO: nothing acknowledged is lost, reopening recovers from the log, and writers are told at once
 *   instead of waiting for the lock.
 */

import type { Worker } from 'node:worker_threads';
import { FlashVectorError } from '../base/errors.js';
import { KIND_SKIP, RECORD_STATE, STATE_MASK, STATE_RESERVED } from '../base/record.js';
import * as L from '../memory/layout.js';
import { freeSlot, threadWord } from '../memory/registry.js';
import type { Core } from './core.js';

/** One listener for all stores of this thread, from the moment this module is loaded. */
const watches = new Set<ThreadWatch>();
process.on('worker', (worker: Worker) => {
  const id = worker.threadId;
  worker.once('exit', () => {
    for (const watch of watches) watch.threadEnded(id);
  });
});

export class ThreadWatch {
  readonly #core: Core;
  readonly #onFailure: (failure: FlashVectorError) => void;

  /** @param onFailure called when a death has turned the store read-only */
  constructor(core: Core, onFailure: (failure: FlashVectorError) => void) {
    this.#core = core;
    this.#onFailure = onFailure;
    watches.add(this);
  }

  dispose(): void {
    watches.delete(this);
  }

  #fail(failure: FlashVectorError): void {
    this.#core.control.fail(failure);
    this.#onFailure(failure);
  }

  threadEnded(threadId: number): void {
    const { control, words } = this.#core;
    if (Atomics.load(words, threadWord(control, L.LOG_SLOT) + L.THREAD_ID) === threadId + 1) this.#logDied();
    for (let slot = L.LOG_SLOT + 1; slot < L.THREADS_MAX; slot++) {
      if (Atomics.load(words, threadWord(control, slot) + L.THREAD_ID) === threadId + 1) this.#bury(slot);
    }
  }

  /** The log thread ended without saying how: nothing can be acknowledged any more. */
  #logDied(): void {
    const { control, words } = this.#core;
    const state = Atomics.load(words, L.CONTROL_LOG_STATE);
    if (state === L.LOG_ENDED || state === L.LOG_FAILED) return;
    this.#fail(new FlashVectorError('FV_IO', 'the log thread died'));
    Atomics.store(words, L.CONTROL_LOG_STATE, L.LOG_FAILED);
    Atomics.notify(words, L.CONTROL_LOG_STATE);
    control.bump(L.CONTROL_ACK_EPOCH);
  }

  #bury(slot: number): void {
    const { control, words, ring } = this.#core;
    const self = slot + 1;
    const thread = threadWord(control, slot);
    let held = this.#holdsLock(self);
    for (let shard = 0; shard < control.shape.shards; shard++) {
      Atomics.and(words, L.shardWord(shard) + L.SHARD_READERS + (slot >>> 5), ~(1 << (slot & 31)));
    }
    if (Atomics.load(words, thread + L.THREAD_BUSY) === 1) {
      held = true;
      const at = (Atomics.load(words, thread + L.THREAD_APPLYING) & (ring.words.length / 2 - 1)) * 2;
      if ((Atomics.load(ring.words, at + RECORD_STATE) & STATE_MASK) === STATE_RESERVED) {
        ring.publish(at, KIND_SKIP, 0);
        control.bump(L.CONTROL_LOG_WAKE);
      }
    }
    Atomics.store(words, thread + L.THREAD_DEFERRED, 0);
    if (Atomics.exchange(words, thread + L.THREAD_WAITS_FOR_ROOM, 0) !== 0) Atomics.sub(words, L.CONTROL_ROOM_WAITERS, 1);
    if (held) {
      const id = words[thread + L.THREAD_ID] - 1;
      this.#fail(new FlashVectorError('FV_IO', `thread ${id} ended in the middle of a write; reopen the store to recover from the log`));
    } else {
      this.#core.staging.abandonAllOf(slot);
    }
    freeSlot(control, slot);
  }

  #holdsLock(self: number): boolean {
    const { control, words } = this.#core;
    for (const lock of [L.CONTROL_LOG_LOCK, L.CONTROL_STAGING_LOCK, L.CONTROL_DICTIONARY_LOCK]) {
      if (Atomics.load(words, lock) === self) return true;
    }
    for (let shard = 0; shard < control.shape.shards; shard++) {
      if (Atomics.load(words, L.shardWord(shard) + L.SHARD_LOCK) === self) return true;
    }
    return false;
  }
}
