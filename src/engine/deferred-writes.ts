/**
 * Writes that found no room in the ring, or a lock that was not free within a few microseconds: a queue of one thread. They are tried again from the
 * event loop, in the order of their calls, and while there are any, every new write of the thread joins them. Where the first ones are single puts and removals, further puts, removals and
 * batches of the thread try them, too.
 */

import { FlashVectorError } from '../base/errors.js';
import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import type { Acks } from './acks.js';
import type { Core } from './core.js';
import { CONFLICT, DEFER, DEFER_LOCK, conflictError } from './write-result.js';

/** How long a deferred write may sleep for a lock, on its second try and later. */
const PATIENCE_MS = 1;
/** Longest wait for room before looking again. */
const ROOM_WAIT_MS = 10;
/** After so long a deferred write gives up: on a lock that stays busy, on a log that does not move at all. */
const STUCK_LOCK_MS = 10_000;
const STUCK_LOG_MS = 60_000;
/** Deferred writes carried out before the event loop gets a turn. */
const PUMP_MAX = 256;
/** Every so many puts, removals and batches of the thread try the queue, a power of two, and carry out so many at most: with a busy lock a try takes 5 µs. */
const RETRY_EVERY = 16;
const RETRY_MAX = 64;
/** Deferred writes done after which the front of the queue is cut off. */
const COMPACT_AT = 1024;

interface Deferred {
  run: (patienceMs: number) => number;
  /** Whether it is a put or a removal, of a value that is not long: nothing of the user's runs in a try of it. */
  isSingle: boolean;
  durability: number;
  resolve: (lsn: number) => void;
  reject: (error: unknown) => void;
  /** When it was queued, and how far the log was when it last moved since. */
  sinceMs: number;
  writtenLsn: number;
}

export class DeferredWrites {
  readonly #core: Core;
  readonly #words: Int32Array;
  readonly #acks: Acks;
  #deferred: Deferred[] = [];
  #deferredDone = 0;
  #pumping = false;
  #idle: (() => void)[] = [];
  /** Calls of `retry`. */
  #calls = 0;

  /** @param beforeTry called before each try: makes room where a write found none */
  constructor(
    core: Core,
    acks: Acks,
    readonly beforeTry: () => void,
  ) {
    this.#core = core;
    this.#words = core.words;
    this.#acks = acks;
  }

  get isEmpty(): boolean {
    return this.#deferredDone === this.#deferred.length;
  }

  /**
   * Tries the queue again, now and then: a thread that writes much before its event loop comes round would otherwise defer all of it, long after there is room again.
   * Called before a write has put anything into the scratch. Not for batches, nor for what runs a function of the user's: a try of those may take long, and a function is not to run inside another call.
   */
  retry(): void {
    if ((++this.#calls & (RETRY_EVERY - 1)) !== 0) return;
    for (let done = 0; done < RETRY_MAX && !this.isEmpty; done++) {
      const head = this.#deferred[this.#deferredDone];
      if (!head.isSingle || !this.#attempt(head, 0)) return;
    }
  }

  /** Queues a write. `run` puts its operation into the scratch and tries it. @param isSingle see Deferred */
  add(durability: number, isSingle: boolean, run: (patienceMs: number) => number): Promise<number> {
    return new Promise<number>((resolve, reject) => {
      this.#deferred.push({ run, isSingle, durability, resolve, reject, sinceMs: 0, writtenLsn: -1 });
      Atomics.add(this.#words, this.#core.threadWord + L.THREAD_DEFERRED, 1);
      this.#core.metrics.add(M.COUNTER_DEFERRALS, 1);
      if (!this.#pumping) {
        this.#pumping = true;
        setImmediate(() => this.#pump());
      }
    });
  }

  #pump(): void {
    const words = this.#words;
    for (let done = 0; done < PUMP_MAX; done++) {
      if (this.#deferredDone === this.#deferred.length) {
        this.#deferred = [];
        this.#deferredDone = 0;
        this.#pumping = false;
        for (const resolve of this.#idle.splice(0)) resolve();
        return;
      }
      const head = this.#deferred[this.#deferredDone];
      if (this.#attempt(head, PATIENCE_MS)) continue;
      // Said before looking again: from here on the log thread announces room.
      this.#waitForRoom(true);
      this.#core.ring.callLog();
      const epoch = Atomics.load(words, L.CONTROL_ROOM_EPOCH);
      if (this.#attempt(head, 0)) {
        this.#waitForRoom(false);
        continue;
      }
      const wait = Atomics.waitAsync(words, L.CONTROL_ROOM_EPOCH, epoch, ROOM_WAIT_MS);
      const resume = (): void => {
        this.#waitForRoom(false);
        this.#pump();
      };
      if (wait.async) {
        // Keeps the process alive as long as the wait at most lasts.
        const alive = setTimeout(() => undefined, ROOM_WAIT_MS * 10);
        void wait.value.then(() => {
          clearTimeout(alive);
          resume();
        });
      } else {
        setImmediate(resume);
      }
      return;
    }
    setImmediate(() => this.#pump());
  }

  #waitForRoom(waits: boolean): void {
    Atomics.store(this.#words, this.#core.threadWord + L.THREAD_WAITS_FOR_ROOM, waits ? 1 : 0);
    if (waits) Atomics.add(this.#words, L.CONTROL_ROOM_WAITERS, 1);
    else Atomics.sub(this.#words, L.CONTROL_ROOM_WAITERS, 1);
  }

  /** Tries a deferred write. @returns whether it is done, for better or worse */
  #attempt(head: Deferred, patienceMs: number): boolean {
    const control = this.#core.control;
    try {
      if (control.failure !== undefined) throw control.failure;
      if (Atomics.load(this.#words, L.CONTROL_LOG_STATE) === L.LOG_ENDED) throw control.closedError();
      this.beforeTry();
      const lsn = head.run(patienceMs);
      if (lsn === DEFER || lsn === DEFER_LOCK) {
        this.#checkPatience(head, lsn);
        return false;
      }
      if (lsn === CONFLICT) throw conflictError();
      // 0: there was nothing to write.
      if (lsn === 0) head.resolve(0);
      else this.#acks.join(lsn, head.durability).then(() => head.resolve(lsn), head.reject);
    } catch (error) {
      head.reject(error);
    }
    this.#deferredDone++;
    if (this.#deferredDone >= COMPACT_AT && this.#deferredDone * 2 > this.#deferred.length) {
      this.#deferred = this.#deferred.slice(this.#deferredDone);
      this.#deferredDone = 0;
    }
    Atomics.sub(this.#words, this.#core.threadWord + L.THREAD_DEFERRED, 1);
    return true;
  }

  /** Bounds the wait of a deferred write: for a lock whose holder is stuck, for a log that does not move. */
  #checkPatience(head: Deferred, reason: number): void {
    const now = performance.now();
    const written = this.#core.control.writtenLsn;
    if (head.sinceMs === 0 || (reason === DEFER && written !== head.writtenLsn)) {
      head.sinceMs = now;
      head.writtenLsn = written;
    } else if (now - head.sinceMs > (reason === DEFER ? STUCK_LOG_MS : STUCK_LOCK_MS)) {
      const what = reason === DEFER ? 'room in the log' : "a shard's lock";
      throw new FlashVectorError(
        'FV_TIMEOUT',
        `the write has waited ${Math.round(now - head.sinceMs)} ms for ${what}; nothing was written`,
      );
    }
  }

  /** Resolves when none is left, and nobody waits for room for them any more: after a retry that has carried out the last one that takes ROOM_WAIT_MS at most. */
  async empty(): Promise<void> {
    if (this.#pumping) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}
