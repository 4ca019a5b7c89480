/**
 * Keeps the event loop turning for a moment while a write is awaited.
 *
 * A loop with nothing to do sleeps in the kernel, and its processor goes idle; to wake it takes some 50 µs on a virtual machine, a
 * quarter of the time of a durable write. So while a thread waits that has written again as soon as it was told, several times in a row, its loop
 * goes round without sleeping: all else that comes in is served as ever, and the acknowledgement finds the processor awake. It is
 * the same bargain as the log thread's, which looks for the next record for a moment before it sleeps: processor time, of which such a
 * writer leaves most unused, for latency, by which it is bound.
 *
 * It does harm where others want the processor. So a thread polls only while no more threads of the store wait than leave the log thread a processor, for not
 * much longer than a wait usually takes, and where trials show that it pays (poll-trial.ts).
 */

import { availableParallelism } from 'node:os';
import * as L from '../memory/layout.js';
import { PollTrial, ROUND_MS_MAX } from './poll-trial.js';

/** Longest time between an acknowledgement and the next wait in a chain of writes. */
const CHAIN_MS = 0.1;
/** Waits of a chain before the first one that counts. */
const CHAIN_MIN = 4;
/** A wait that is polled for so many times as long as those usually take that sleep is better slept through; and one that usually takes longer than that many times `maxMs` is. */
const PATIENCE = 1.5;
/** Weight of the last wait in what waits usually take. */
const USUAL_WEIGHT = 1 / 8;
/** A turn of the loop that took longer had something to do. */
const IDLE_TURN_MS_MAX = 0.02;

/** What turns the loop; another one in tests. */
export interface LoopClock {
  now(): number;
  /** Calls `run` in the next turn of the event loop, which does not sleep before. */
  soon(run: () => void): void;
  readonly processors: number;
}

const LOOP: LoopClock = {
  now: () => performance.now(),
  soon: (run) => void setImmediate(run),
  processors: availableParallelism(),
};

let idleTurnsMs = 0;
/** Up to here turns of this thread's loop have been counted: each once, however many stores it turns for. */
let countedUntilMs = 0;

/** Time that this thread's event loop has been kept turning for nothing else, in ms, over all stores: it counts as utilization, and is no work. */
export function polledMs(): number {
  return idleTurnsMs;
}

function countTurn(fromMs: number, nowMs: number): void {
  idleTurnsMs += Math.min(IDLE_TURN_MS_MAX, nowMs - Math.max(fromMs, Math.min(nowMs, countedUntilMs)));
  countedUntilMs = nowMs;
}

export class AckPoll {
  readonly #words: Int32Array;
  readonly #threadWord: number;
  readonly #clock: LoopClock;
  readonly #maxMs: number;
  readonly #waitersMax: number;
  readonly #turn: () => void;
  readonly #look: () => void;
  readonly #trial = new PollTrial();
  #isWaiting = false;
  /** Whether the wait under way, or the one that ended last, is polled. */
  #isPolled = false;
  /** The next turn of the loop is asked for. */
  #isTurning = false;
  #turnedMs = 0;
  #beganMs = 0;
  #endedMs = -Infinity;
  /** Waits in a row, each soon after the one before. */
  #chain = 0;
  /** What a wait of a chain takes that sleeps, in the mean of the last ones. */
  #usualMs = 0;
  /** Low word of the LSN up to which the log was written when the last wait began. */
  #written = 0;

  /**
   * @param words the control region, with the thread's line of the registry at `threadWord`
   * @param maxMs longest time that one wait is polled; 0: none is
   * @param look is called in each turn: may find that the wait is over before the loop is told
   */
  constructor(words: Int32Array, threadWord: number, maxMs: number, look: () => void, clock: LoopClock = LOOP) {
    this.#words = words;
    this.#threadWord = threadWord;
    this.#clock = clock;
    this.#waitersMax = clock.processors - 1;
    this.#maxMs = this.#waitersMax > 0 ? maxMs : 0;
    this.#turn = (): void => this.#onTurn();
    this.#look = look;
  }

  /** An acknowledgement is waited for from here on. */
  begin(): void {
    if (this.#maxMs === 0) return;
    const now = this.#clock.now();
    const written = Atomics.load(this.#words, L.CONTROL_WRITTEN + L.LSN_LOW);
    const isChain = now - this.#endedMs <= CHAIN_MS;
    if (isChain && this.#chain >= CHAIN_MIN) this.#trial.count(this.#isPolled, now - this.#beganMs, (written - this.#written) | 0);
    this.#chain = isChain ? this.#chain + 1 : 0;
    this.#written = written;
    this.#beganMs = now;
    this.#isWaiting = true;
    this.#announce(1);
    this.#isPolled = this.#chain >= CHAIN_MIN && this.#usualMs <= PATIENCE * this.#maxMs && this.#trial.isDue && this.#hasProcessor();
    if (!this.#isPolled) return;
    this.#turnedMs = now;
    if (this.#isTurning) return;
    this.#isTurning = true;
    this.#clock.soon(this.#turn);
  }

  /** The wait has ended. */
  end(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#announce(-1);
    this.#endedMs = this.#clock.now();
    if (this.#isPolled || this.#chain === 0) return;
    const ms = Math.min(ROUND_MS_MAX, this.#endedMs - this.#beganMs);
    this.#usualMs = this.#usualMs === 0 ? ms : this.#usualMs + (ms - this.#usualMs) * USUAL_WEIGHT;
  }

  /** The flag is for who buries this thread, and takes its part of the count back. */
  #announce(delta: 1 | -1): void {
    Atomics.store(this.#words, this.#threadWord + L.THREAD_WAITS_FOR_ACK, delta === 1 ? 1 : 0);
    Atomics.add(this.#words, L.CONTROL_ACK_WAITERS, delta);
  }

  #hasProcessor(): boolean {
    return Atomics.load(this.#words, L.CONTROL_ACK_WAITERS) <= this.#waitersMax;
  }

  #onTurn(): void {
    const now = this.#clock.now();
    const limitMs = Math.min(this.#maxMs, PATIENCE * this.#usualMs);
    this.#isTurning = this.#isWaiting && this.#isPolled && now - this.#beganMs < limitMs && this.#hasProcessor();
    if (!this.#isTurning) return;
    countTurn(this.#turnedMs, now);
    this.#turnedMs = now;
    this.#clock.soon(this.#turn);
    this.#look();
  }
}
