/**
 * How busy the store and its owner's thread are, and so how much of the processors a checkpoint leaves to them.
 *
 * Judged between two looks: of the moment since the store was opened nothing can be told.
 */

import { polledMs } from './ack-poll.js';

/** Bytes of log a second from which on the store counts as being written to. */
const BUSY_BYTES = 1024 * 1024;
/** Share of its time that the owner's thread works from which on it is busy. */
const BUSY_SHARE = 0.5;
/** Share of its time that the owner's thread works and from which on it has none to spare. */
const SATURATED_SHARE = 0.95;
/** Share up to which it has time to spare. */
const SPARE_SHARE = 0.8;
/** As long as a stretch of work. */
const REST_MS = 0.1;
/**
 * As long as a stretch, and what it lasts longer than meant. With 0.1 a loop that made 200,000 durable puts a second was delayed by 2 to 6 % more (p99). Always so
 * long, checkpoints beside a thread that writes all the time took half as long again, and 205 MB of log and checkpoints gathered instead of 180.
 */
const LONG_REST_MS = 0.2;
/** Bytes of log a second from which on a checkpoint that rests lets so much log gather meanwhile that it had better hurry. */
const HURRY_BYTES = 16 * 1024 * 1024;
/** The same where the thread still has a little time: what it waits for is the log, behind all that it writes. */
const FLOOD_BYTES = 64 * 1024 * 1024;

/** For how long an event loop has run what was to be run, and has had nothing to run, in ms. */
interface LoopTimes {
  active: number;
  idle: number;
}

export class OwnerLoad {
  /** Bytes logged a second, between the last two looks. */
  #logRate = 0;
  /** Share of its time that the owner's thread was at work, between the same; what it turned its loop for while it waited is not work. */
  #utilization = 0;
  #looked: LoopTimes;
  #lookedPolledMs = polledMs();
  #lookedMs: number;
  #lookedBytes = 0;

  /** @param apartMs looks that follow sooner count for nothing */
  constructor(
    readonly apartMs: number,
    readonly now: () => number = () => performance.now(),
    readonly loopTimes: () => LoopTimes = () => performance.eventLoopUtilization(),
  ) {
    this.#looked = loopTimes();
    this.#lookedMs = now();
  }

  /** @param logged bytes of log since the store was opened */
  look(logged: number): void {
    const now = this.now();
    if (now - this.#lookedMs < this.apartMs) return;
    this.#logRate = ((logged - this.#lookedBytes) * 1000) / (now - this.#lookedMs);
    const times = this.loopTimes();
    const active = times.active - this.#looked.active;
    const idle = times.idle - this.#looked.idle;
    const polled = polledMs();
    this.#utilization = (active - polled + this.#lookedPolledMs) / (active + idle);
    this.#looked = times;
    this.#lookedPolledMs = polled;
    this.#lookedMs = now;
    this.#lookedBytes = logged;
  }

  /** Whether the store is being written to, or its thread is at work: then some processors stay free for that. */
  get isBusy(): boolean {
    return this.#logRate > BUSY_BYTES || this.#utilization > BUSY_SHARE;
  }

  /**
   * How long a checkpoint's threads rest after every stretch of work, in ms; 0: not at all. Where the owner's thread has no time to spare and the log grows fast, or has
   * hardly any and it grows very fast, a short one is rather over soon. A thread that only seems to have none, because it turns its loop all the time, still waits for the log, whose thread
   * needs a processor for it. One that has some may be waited for by others: it is what the longer rests are for.
   * @param isLong whether the checkpoint takes more than a moment
   */
  restMs(isLong: boolean): number {
    if (!this.isBusy) return 0;
    if (this.#utilization < SPARE_SHARE) return LONG_REST_MS;
    const hurryBytes = this.#utilization < SATURATED_SHARE ? FLOOD_BYTES : HURRY_BYTES;
    return isLong || this.#logRate < hurryBytes ? REST_MS : 0;
  }
}
