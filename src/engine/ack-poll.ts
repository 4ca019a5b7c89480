/**
 * Keeps the event loop turning for a moment while a write is awaited.
 *
 * A loop with nothing to do sleeps in the kernel, and its processor goes idle; to wake it takes some 50 µs on a virtual machine, a
 * quarter of the time of a durable write. So while a thread waits that has written again as soon as it was told, several times in a row, its loop
 * goes round without sleeping: all else that comes in is served as ever, and the acknowledgement finds the processor awake. It is
 * the same bargain as the log thread's, which looks for the next record for a moment before it sleeps: processor time, of which such a
 * writer leaves most unused, for latency, by which it is bound.
 *
 * It does harm where others want the processor. So a thread polls only while no more threads of the store wait than leave the log thread a processor; and
 * whether it pays is measured all the time: of every so many waits the first TRIAL_WAITS are slept through and polled in turn, and
 * the rest are polled only where that has been worth it. The oftener it has not, the longer nothing is tried.
 */

import { availableParallelism } from 'node:os';
import * as L from '../memory/layout.js';

/** Longest time between an acknowledgement and the next wait in a chain of writes. */
const CHAIN_MS = 0.1;
/** Waits of a chain before the first one that counts. */
const CHAIN_MIN = 4;
/** Waits that are tried both ways, in stretches of STRETCH, a power of two, that are slept through and polled in turn. */
const TRIAL_WAITS = 64;
const STRETCH = 8;
/** Waits between two trials, where they are polled; and where they are not: soon again at first, because code that is new is compiled, for which processors are needed; twice as many for each point of the score below 0. */
const POLLED_WAITS = 448;
const SLEPT_WAITS = 56;
const SCORE_MIN = -7;
/** A round of waiting and writing counts for no more in a trial: the disk, or the kernel, was busy with something else. */
const ROUND_MS_MAX = 2;
/** The log has to come forward so much quicker. */
const WORTH = 1.05;

/** What turns the loop; another one in tests. */
export interface LoopClock {
  now(): number;
  /** Calls `run` in the next round of the event loop, which does not sleep before. */
  soon(run: () => void): void;
  readonly processors: number;
}

const LOOP: LoopClock = {
  now: () => performance.now(),
  soon: (run) => void setImmediate(run),
  processors: availableParallelism(),
};

let idleTurnsMs = 0;

/** Time that this thread's event loop has been kept turning for nothing else, in ms, over all stores: it counts as utilization, and is no work. */
export function polledMs(): number {
  return idleTurnsMs;
}

export class AckPoll {
  readonly #words: Int32Array;
  readonly #threadWord: number;
  readonly #clock: LoopClock;
  readonly #maxMs: number;
  readonly #waitersMax: number;
  readonly #turn: () => void;
  #isWaiting = false;
  /** Whether the wait under way, or the one that ended last, is polled. */
  #isPolled = false;
  /** The next round of the loop is asked for. */
  #isTurning = false;
  #turnedMs = 0;
  #beganMs = 0;
  #endedMs = -Infinity;
  #chain = 0;
  /** Rounds of waiting and writing, in chains, since the last trial began; what they took while it lasted, and how far the log came. */
  #rounds = 0;
  #sleptMs = 0;
  #sleptRecords = 0;
  #polledMs = 0;
  #polledRecords = 0;
  /** Low word of the LSN up to which the log was written when the last wait began. */
  #written = 0;
  /** Trials won against trials lost, from SCORE_MIN to 1; at 1 waits are polled. */
  #score = 0;

  /**
   * @param words the control region, with the thread's line of the registry at `threadWord`
   * @param maxMs longest time that one wait is polled; 0: none is
   */
  constructor(words: Int32Array, threadWord: number, maxMs: number, clock: LoopClock = LOOP) {
    this.#words = words;
    this.#threadWord = threadWord;
    this.#clock = clock;
    this.#waitersMax = clock.processors - 1;
    this.#maxMs = this.#waitersMax > 0 ? maxMs : 0;
    this.#turn = (): void => this.#goRound();
  }

  /** An acknowledgement is waited for from here on. */
  begin(): void {
    if (this.#maxMs === 0) return;
    const now = this.#clock.now();
    const written = Atomics.load(this.#words, L.CONTROL_WRITTEN + L.LSN_LOW);
    if (this.#chain >= CHAIN_MIN) this.#count(Math.min(ROUND_MS_MAX, now - this.#beganMs), (written - this.#written) | 0);
    this.#written = written;
    this.#chain = now - this.#endedMs > CHAIN_MS ? 0 : this.#chain + 1;
    this.#beganMs = now;
    this.#isWaiting = true;
    this.#announce(1);
    this.#isPolled = this.#chain >= CHAIN_MIN && this.#isDue() && this.#hasProcessor();
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
  }

  /** The flag is for who buries this thread, and takes its part of the count back. */
  #announce(delta: 1 | -1): void {
    Atomics.store(this.#words, this.#threadWord + L.THREAD_WAITS_FOR_ACK, delta === 1 ? 1 : 0);
    Atomics.add(this.#words, L.CONTROL_ACK_WAITERS, delta);
  }

  #isDue(): boolean {
    return this.#rounds < TRIAL_WAITS ? (this.#rounds & STRETCH) !== 0 : this.#score === 1;
  }

  #hasProcessor(): boolean {
    return Atomics.load(this.#words, L.CONTROL_ACK_WAITERS) <= this.#waitersMax;
  }

  /** All threads' records count, so that nobody gains at the others' cost. */
  #count(ms: number, records: number): void {
    if (this.#isPolled) {
      this.#polledMs += ms;
      this.#polledRecords += records;
    } else {
      this.#sleptMs += ms;
      this.#sleptRecords += records;
    }
    this.#rounds++;
    if (this.#rounds === TRIAL_WAITS) {
      const isWon = this.#polledRecords * this.#sleptMs > this.#sleptRecords * this.#polledMs * WORTH;
      this.#score = isWon ? Math.min(1, this.#score + 1) : Math.max(SCORE_MIN, this.#score - 1);
    } else if (this.#rounds >= TRIAL_WAITS + (this.#score === 1 ? POLLED_WAITS : SLEPT_WAITS << -this.#score)) {
      this.#rounds = 0;
      this.#sleptMs = 0;
      this.#sleptRecords = 0;
      this.#polledMs = 0;
      this.#polledRecords = 0;
    }
  }

  #goRound(): void {
    const now = this.#clock.now();
    this.#isTurning = this.#isWaiting && this.#isPolled && now - this.#beganMs < this.#maxMs && this.#hasProcessor();
    if (!this.#isTurning) return;
    idleTurnsMs += now - this.#turnedMs;
    this.#turnedMs = now;
    this.#clock.soon(this.#turn);
  }
}
