/**
 * The bell of an indexer (engine/indexer.ts): what wakes the thread that puts waiting keys into ordered indexes. One for all stores of a thread.
 *
 * The sleeper says that it sleeps, looks once more whether there is work, and waits; who has work looks whether it sleeps, without a fence. So a
 * ring may be missed: then the work waits for the next ring, for whoever needs it done, or for the end of the sleep, which is bounded.
 */

import { loadAcquire } from './fence.js';

/** Counts rings; waited on. */
const RINGS = 0;
/** 1 while the thread sleeps, or is about to. Written by it. On a line of its own. */
const ASLEEP = 16;
const BELL_BYTES = 128;

export class Bell {
  readonly #words: Int32Array;

  constructor(readonly buffer = new SharedArrayBuffer(BELL_BYTES)) {
    this.#words = new Int32Array(buffer);
  }

  /** Wakes the thread if it sleeps. Cost: one load if it does not. */
  ring(): void {
    if (loadAcquire(this.#words, ASLEEP) === 0) return;
    this.ringAnyway();
  }

  /** Wakes the thread, also out of a nap. */
  ringAnyway(): void {
    Atomics.add(this.#words, RINGS, 1);
    Atomics.notify(this.#words, RINGS);
  }

  /** Waits for a moment: only `ringAnyway` ends it early. */
  nap(ms: number): void {
    Atomics.wait(this.#words, RINGS, Atomics.load(this.#words, RINGS), ms);
  }

  /** Waits until somebody rings, unless `hasWork` says that there is something to do by now. */
  sleep(ms: number, hasWork: () => boolean): void {
    const rings = Atomics.load(this.#words, RINGS);
    Atomics.store(this.#words, ASLEEP, 1);
    if (!hasWork()) Atomics.wait(this.#words, RINGS, rings, ms);
    Atomics.store(this.#words, ASLEEP, 0);
  }
}
