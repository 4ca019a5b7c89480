/** Bounds the waits of whoever waits for the log's thread: that one may have gone with its owner, or hang in the disk, and tells nobody. */

import { FlashVectorError } from '../base/errors.js';
import type { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';

/** The log's thread gives a sign of life every second, and after every write and sync. */
const SILENCE_MS = 60_000;

export class LogSilence {
  /** The heartbeat last seen, and when it was new; 0: not looked at yet. */
  #heartbeat = 0;
  #heardMs = 0;

  constructor(
    readonly control: Control,
    readonly silenceMs = SILENCE_MS,
  ) {}

  /** A wait begins: what nobody has listened to before counts for nothing. */
  begin(): void {
    this.#heardMs = 0;
  }

  /** To be called time and again while somebody waits. Fails the store, for all of its threads, when the log has been silent for too long. */
  look(): void {
    const { words } = this.control;
    const beat = Atomics.load(words, L.CONTROL_LOG_HEARTBEAT);
    const now = performance.now();
    if (beat !== this.#heartbeat || this.#heardMs === 0) {
      this.#heartbeat = beat;
      this.#heardMs = now;
    } else if (now - this.#heardMs > this.silenceMs && Atomics.load(words, L.CONTROL_LOG_STATE) === L.LOG_RUNNING) {
      this.control.fail(
        new FlashVectorError('FV_IO', `the log thread has been silent for ${this.silenceMs} ms: it has ended, or the disk hangs`),
      );
    }
  }
}
