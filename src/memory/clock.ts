/**
 * The store's clock: the time of day in milliseconds, the same in every thread and never running backwards while the store is open.
 *
 * It is the monotonic clock of the process plus a difference that the owner notes once, at opening. Whoever sets the machine's clock meanwhile moves
 * nothing here; the next opening takes the clock as it is then.
 */

import * as L from './layout.js';

/** This thread's `performance.now()` counts from its own start; this is what that is on the clock that all threads share. */
function monotonicOriginMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6 - performance.now();
}

export class Clock {
  readonly #difference: Float64Array;
  readonly #originMs = monotonicOriginMs();

  constructor(control: SharedArrayBuffer) {
    this.#difference = new Float64Array(control, L.CONTROL_CLOCK_WORD * 4, 1);
  }

  /** Called once, by the owner, before others use the store. */
  start(dateMs: number): void {
    this.#difference[0] = dateMs - this.#originMs - performance.now();
  }

  /** Milliseconds since 1970. */
  now(): number {
    return this.#difference[0] + this.#originMs + performance.now();
  }

  /** The moment in so many ms, in whole ms, for it may be asked for and said again. */
  momentIn(ms: number): number {
    return Math.ceil(this.now() + ms);
  }
}
