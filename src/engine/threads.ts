/**
 * The watch over threads that use the store: who notices that one has died, and sees to its burial (repair.ts).
 *
 * - `process.on('worker')` announces every worker that this thread creates once the module is loaded, its `exit` event
 *   the end of it. Attached threads watch theirs in the same way.
 * - Whoever waits for a lock longer than a moment looks whether its holder lives (lock.ts asks the guardian): so nobody waits
 *   for an event loop, not even its own, and an unnoticed death is found by whom it hinders.
 * - The owner looks at every slot now and then.
 *
 * A thread that detached has freed its slot; one that did not is dead. If the thread that buries dies itself, or what the
 * dead one held cannot be made whole, the store turns read-only with FV_IO: nothing acknowledged is lost, and reopening recovers.
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
const PATROL_MS = 1000;

export class ThreadWatch {
  readonly #core: Core;
  readonly #onFailure: (failure: FlashVectorError) => void;
  readonly #patrol: NodeJS.Timeout | undefined;

  /** @param onFailure called when a death has turned the store read-only */
  constructor(core: Core, onFailure: (failure: FlashVectorError) => void) {
    this.#core = core;
    this.#onFailure = onFailure;
    watches.add(this);
    setGuardian(core.words, (slot) => this.#look(slot));
    if (core.slot !== L.OWNER_SLOT) return;
    this.#patrol = setInterval(() => {
      for (let slot = L.LOG_SLOT; slot < L.THREADS_MAX; slot++) this.#look(slot);
    }, PATROL_MS);
    this.#patrol.unref();
  }

  dispose(): void {
    watches.delete(this);
    setGuardian(this.#core.words, undefined);
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
      if (Atomics.load(words, threadWord(control, slot) + L.THREAD_ID) === threadId + 1) this.#ended(slot, threadId + 1);
    }
  }

  /** Looks whether the thread in a slot lives, where the system can tell; or, if it is being buried, whether who buries it does. */
  #look(slot: number): void {
    const { control, words } = this.#core;
    const word = threadWord(control, slot);
    const id = Atomics.load(words, word + L.THREAD_ID);
    const systemId = Atomics.load(words, word + L.THREAD_SYSTEM_ID);
    // The id once more: between the two loads the slot may have changed hands.
    if (id < 0) this.#look(-id - 1);
    else if (id > 0 && hasEnded(systemId) && Atomics.load(words, word + L.THREAD_ID) === id) this.#ended(slot, id);
  }

  #ended(slot: number, id: number): void {
    if (slot === L.LOG_SLOT) {
      this.#logDied();
      return;
    }
    if (slot === L.OWNER_SLOT) return;
    const { control, words, slot: own } = this.#core;
    const word = threadWord(control, slot) + L.THREAD_ID;
    // One burial may lead to another, of who holds what the first one waits for.
    if (Atomics.compareExchange(words, word, id, -(own + 1)) !== id) return;
    try {
      this.#failUnfinishedBurials(slot);
      new Repair(this.#core).bury(slot);
    } catch (error) {
      const cause = error instanceof Error ? error : new Error(String(error));
      this.#fail(
        new FlashVectorError('FV_IO', `thread ${id - 1} ended in the middle of a write, which could not be finished: ${cause.message}`, {
          cause,
        }),
      );
      freeSlot(control, slot);
    }
  }

  /** If the dead thread was burying another one, what that one held is in an unknown state. */
  #failUnfinishedBurials(slot: number): void {
    const { control, words } = this.#core;
    for (let other = L.LOG_SLOT + 1; other < L.THREADS_MAX; other++) {
      const word = threadWord(control, other) + L.THREAD_ID;
      if (Atomics.load(words, word) !== -(slot + 1)) continue;
      this.#fail(
        new FlashVectorError('FV_IO', 'a thread ended while it repaired what another had left; reopen the store to recover from the log'),
      );
      freeSlot(control, other);
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
