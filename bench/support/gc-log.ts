/** The garbage collector's pauses, so that what was slow because of them can be told apart. */

import { PerformanceObserver, type PerformanceEntry } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';

/** Collections while it is open. */
export class GcLog {
  readonly pauses: PerformanceEntry[] = [];
  readonly #observer = new PerformanceObserver((list) => this.pauses.push(...list.getEntries()));

  constructor() {
    this.#observer.observe({ entryTypes: ['gc'] });
  }

  async close(): Promise<void> {
    // Entries are delivered by the event loop.
    await turn();
    await turn();
    this.pauses.push(...this.#observer.takeRecords());
    this.#observer.disconnect();
  }

  /** Whether one of them ran during a call. */
  overlaps(call: { startMs: number; durationMs: number }): boolean {
    return this.pauses.some((pause) => pause.startTime < call.startMs + call.durationMs && pause.startTime + pause.duration > call.startMs);
  }
}
