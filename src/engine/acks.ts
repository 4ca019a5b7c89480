/**
 * Acknowledgements: the promises of one thread's writes.
 *
 * Writes of one turn of the event loop with the same durability share a group and its promise, which
 * resolves with the LSN of the group's last write once the log has got that far. A group is sealed
 * by a microtask, so later turns start another.
 *
 * One `Atomics.waitAsync` on ACK_EPOCH serves all groups. It is bounded by RECHECK_MS, and a
 * referenced timer stands for it while groups are pending, because a pending waitAsync does not keep
 * the process alive.
 */

import { FlashVectorError } from '../base/errors.js';
import { DURABILITY_INTERVAL, DURABILITY_SYNC } from '../base/record.js';
import { lsnReached } from '../base/lsn.js';
import type { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { HISTOGRAM_PUT_DURABLE, type ThreadMetrics } from '../memory/metrics.js';
import { threadWord } from '../memory/registry.js';
import type { Ring } from '../memory/ring.js';
import { AckPoll } from './ack-poll.js';
import { LogSilence } from './log-silence.js';

const RECHECK_MS = 100;
const KEEP_ALIVE_MS = 0x7fff_ffff;

interface Group {
  promise: Promise<number>;
  resolve: (lsn: number) => void;
  reject: (error: Error) => void;
  lsn: number;
  startedMs: number;
}

// One executor for all groups: it allocates no closure of its own.
let executorResolve: (lsn: number) => void;
let executorReject: (error: Error) => void;
const executor = (resolve: (lsn: number) => void, reject: (error: Error) => void): void => {
  executorResolve = resolve;
  executorReject = reject;
};

/** Groups that wait for one of the two progress words, oldest first. */
class Queue {
  groups: Group[] = [];
  /** Still open for writes of this turn. */
  open: Group | undefined;
  /** Groups settled already, at the front of `groups`. */
  #settled = 0;

  constructor(readonly progressWord: number) {}

  get pending(): boolean {
    return this.#settled < this.groups.length;
  }

  first(): Group {
    return this.groups[this.#settled];
  }

  shift(): Group {
    const group = this.groups[this.#settled++];
    if (this.#settled === this.groups.length) {
      this.groups = [];
      this.#settled = 0;
    }
    if (group === this.open) this.open = undefined;
    return group;
  }
}

export class Acks {
  readonly #words: Int32Array;
  readonly #synced = new Queue(L.CONTROL_DURABLE + L.LSN_LOW);
  readonly #written = new Queue(L.CONTROL_WRITTEN + L.LSN_LOW);
  readonly #keepAlive: NodeJS.Timeout;
  readonly #seal: () => void;
  readonly #wake: () => void;
  readonly #poll: AckPoll;
  #waiting = false;
  readonly #silence: LogSilence;
  #idle: (() => void)[] = [];

  constructor(
    readonly control: Control,
    readonly ring: Ring,
    readonly metrics: ThreadMetrics,
    slot: number,
  ) {
    this.#words = control.words;
    this.#silence = new LogSilence(control);
    this.#poll = new AckPoll(control.words, threadWord(control, slot), control.words[L.CONTROL_ACK_POLL_US] / 1000, () => this.#look());
    this.#keepAlive = setInterval(() => undefined, KEEP_ALIVE_MS);
    this.#keepAlive.unref();
    this.#seal = (): void => {
      this.#synced.open = undefined;
      this.#written.open = undefined;
    };
    this.#wake = (): void => {
      this.#waiting = false;
      this.#poll.end();
      this.#silence.look();
      this.#settle();
      this.#arm();
    };
  }

  /** A promise for the record `lsn` to be as safe as `durability` says. */
  join(lsn: number, durability: number): Promise<number> {
    if (durability === DURABILITY_SYNC) return this.#join(this.#synced, lsn);
    if (durability === DURABILITY_INTERVAL) return this.#join(this.#written, lsn);
    return Promise.resolve(lsn);
  }

  #join(queue: Queue, lsn: number): Promise<number> {
    const open = queue.open;
    if (open !== undefined) {
      if (lsn > open.lsn) open.lsn = lsn;
      return open.promise;
    }
    if (!this.#waiting) this.#silence.begin();
    const promise = new Promise<number>(executor);
    const group: Group = { promise, resolve: executorResolve, reject: executorReject, lsn, startedMs: performance.now() };
    queue.open = group;
    queue.groups.push(group);
    queueMicrotask(this.#seal);
    if (!this.#waiting) this.#arm();
    return promise;
  }

  /** Resolves when nothing is pending. */
  idle(): Promise<void> {
    if (!this.#synced.pending && !this.#written.pending) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  dispose(): void {
    clearInterval(this.#keepAlive);
  }

  #arm(): void {
    while (this.#synced.pending || this.#written.pending) {
      // The epoch first, then the progress: what comes in between ends the wait at once.
      const epoch = Atomics.load(this.#words, L.CONTROL_ACK_EPOCH);
      this.#settle();
      if (!this.#synced.pending && !this.#written.pending) break;
      const wait = Atomics.waitAsync(this.#words, L.CONTROL_ACK_EPOCH, epoch, RECHECK_MS);
      if (wait.async) {
        this.#waiting = true;
        this.ring.callFromRest();
        this.#poll.begin();
        this.#keepAlive.ref();
        // The promise of waitAsync never rejects.
        void wait.value.then(this.#wake);
        return;
      }
    }
    this.#keepAlive.unref();
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /**
   * Settles what the log has reached while the loop was kept turning for it, some microseconds before the wait for its telling is over; that wait goes on, and
   * listens for the next groups.
   */
  #look(): void {
    if (!this.#isReached(this.#synced) && !this.#isReached(this.#written)) return;
    this.#poll.end();
    this.#settle();
  }

  #isReached(queue: Queue): boolean {
    return queue.pending && lsnReached(Atomics.load(this.#words, queue.progressWord), queue.first().lsn);
  }

  #settle(): void {
    this.#settleReached(this.#synced);
    this.#settleReached(this.#written);
    const failure = this.#failure();
    if (failure === undefined) return;
    // What was reached before the failure counts: look once more, then nothing can come any more.
    this.#settleReached(this.#synced);
    this.#settleReached(this.#written);
    while (this.#synced.pending) this.#synced.shift().reject(failure);
    while (this.#written.pending) this.#written.shift().reject(failure);
  }

  #settleReached(queue: Queue): void {
    if (!queue.pending) return;
    const reached = Atomics.load(this.#words, queue.progressWord);
    const now = performance.now();
    while (queue.pending && lsnReached(reached, queue.first().lsn)) {
      const group = queue.shift();
      this.metrics.record(HISTOGRAM_PUT_DURABLE, (now - group.startedMs) * 1e6);
      group.resolve(group.lsn);
    }
  }

  /** Why nothing more will be acknowledged, if that is so. */
  #failure(): Error | undefined {
    const state = Atomics.load(this.#words, L.CONTROL_LOG_STATE);
    if (Atomics.load(this.#words, L.CONTROL_FAILURE_BYTES) !== 0) {
      const cause = this.control.failure;
      if (cause instanceof FlashVectorError) return cause;
      return new FlashVectorError('FV_IO', 'the log failed; the write may not be on disk', { cause });
    }
    return state === L.LOG_ENDED ? new FlashVectorError('FV_CLOSED', 'the store was closed before the write was logged') : undefined;
  }
}
