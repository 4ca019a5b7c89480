/**
 * The watch over threads that use the store: who notices that one has died, and sees to its burial (repair.ts).
 *
 * Only the owner buries: its own death is the end of the store, so no burial is ever left half done. It hears of a death
 *
 * - by `process.on('worker')`, which announces every worker that it creates once the module is loaded, and the worker's `exit` event;
 * - by attached threads, which hear of workers that they create, and mark the slots of those that have ended;
 * - by looking, twenty times a second, whether every thread lives, where the system can tell;
 * - and by looking after the holder of a lock that itself waits for (lock.ts asks the guardian): so it never waits for its own
 *   event loop.
 *
 * A thread that detached has freed its slot; one that did not is dead. Where what it held cannot be made whole the store turns
 * read-only with FV_IO: nothing acknowledged is lost, and reopening recovers.
 */

import type { Worker } from 'node:worker_threads';
import { FlashVectorError } from '../base/errors.js';
import * as L from '../memory/layout.js';
import { setGuardian } from '../memory/lock.js';
import { freeSlot, threadWord } from '../memory/registry.js';
import { hasEnded } from '../platform/thread-life.js';
import type { Core } from './core.js';
import { Repair } from './repair.js';

/** One listener for all stores of this thread, from the moment this module is loaded. */
const watches = new Set<ThreadWatch>();
process.on('worker', (worker: Worker) => {
  const id = worker.threadId;
  worker.once('exit', () => {
    for (const watch of watches) watch.threadEnded(id);
  });
});

/** How often the owner looks at every slot. */
const PATROL_MS = 50;

export class ThreadWatch {
  readonly #core: Core;
  readonly #onFailure: (failure: FlashVectorError) => void;
  readonly #patrol: NodeJS.Timeout | undefined;
  readonly #burying = new Set<number>();

  /** @param onFailure called when a death has turned the store read-only */
  constructor(core: Core, onFailure: (failure: FlashVectorError) => void) {
    this.#core = core;
    this.#onFailure = onFailure;
    watches.add(this);
    if (!this.#isOwner) return;
    setGuardian(core.words, (slot) => this.#look(slot));
    this.#patrol = setInterval(() => {
      for (let slot = L.LOG_SLOT; slot < L.THREADS_MAX; slot++) this.#look(slot);
      // Asked for by an attached thread.
      if (Atomics.load(core.words, L.CONTROL_INDEXER) === L.INDEXER_WANTED) core.onIndexerWanted?.();
    }, PATROL_MS);
    this.#patrol.unref();
  }

  get #isOwner(): boolean {
    return this.#core.slot === L.OWNER_SLOT;
  }

  dispose(): void {
    watches.delete(this);
    if (this.#isOwner) setGuardian(this.#core.words, undefined);
    clearInterval(this.#patrol);
  }

  #fail(failure: FlashVectorError): void {
    this.#core.control.fail(failure);
    this.#onFailure(failure);
  }

  /** The thread with this id of Node's has ended. */
  threadEnded(threadId: number): void {
    const { control, words } = this.#core;
    for (let slot = L.LOG_SLOT; slot < L.THREADS_MAX; slot++) {
      const word = threadWord(control, slot);
      if (Atomics.load(words, word + L.THREAD_ID) !== threadId + 1) continue;
      if (this.#isOwner) this.#ended(slot, threadId);
      else Atomics.store(words, word + L.THREAD_ENDED, threadId + 1);
    }
  }

  /** Looks whether the thread in a slot lives. Owner only. */
  #look(slot: number): void {
    const { control, words } = this.#core;
    const word = threadWord(control, slot);
    const id = Atomics.load(words, word + L.THREAD_ID);
    if (id === 0 || slot === L.OWNER_SLOT) return;
    const ended = Atomics.load(words, word + L.THREAD_ENDED) === id || hasEnded(Atomics.load(words, word + L.THREAD_SYSTEM_ID));
    // The id once more: between the loads the slot may have changed hands.
    if (ended && Atomics.load(words, word + L.THREAD_ID) === id) this.#ended(slot, id - 1);
  }

  #ended(slot: number, threadId: number): void {
    if (slot === L.LOG_SLOT) {
      this.#logDied();
      return;
    }
    // A burial may meet a lock of another dead thread and lead to its burial; none is begun twice.
    if (this.#burying.has(slot)) return;
    this.#burying.add(slot);
    try {
      // When it must be done again, for a lock that was taken, the slot says so to the patrol.
      if (!new Repair(this.#core).bury(slot))
        Atomics.store(this.#core.words, threadWord(this.#core.control, slot) + L.THREAD_ENDED, threadId + 1);
    } catch (error) {
      const cause = error instanceof Error ? error : new Error(String(error));
      this.#fail(
        new FlashVectorError('FV_IO', `thread ${threadId} ended in the middle of a write, which could not be finished: ${cause.message}`, {
          cause,
        }),
      );
      freeSlot(this.#core.control, slot);
    } finally {
      this.#burying.delete(slot);
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
}
