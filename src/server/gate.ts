/**
 * Whether commands may run now. They may not while writes wait for the log (what runs then would not see them), nor
 * while one command wants the store for itself. Who finds it shut waits here and is let in again in the order of coming.
 */

import type { FlashVector } from '../index.js';

export class Gate {
  #exclusive = 0;
  #waiting: (() => void)[] = [];
  #isDraining = false;

  constructor(readonly db: FlashVector) {}

  get isOpen(): boolean {
    return this.#exclusive === 0 && !this.db.isBackedUp;
  }

  /** Calls `resume` once, when it may be open again; it looks again then. */
  wait(resume: () => void): void {
    this.#waiting.push(resume);
    this.#watch();
  }

  /** Runs `work` with the gate shut for everybody else. */
  async exclusively(work: () => Promise<void>): Promise<void> {
    this.#exclusive++;
    try {
      await work();
    } finally {
      this.#exclusive--;
      this.#watch();
    }
  }

  #watch(): void {
    if (this.#exclusive > 0 || this.#isDraining || this.#waiting.length === 0) return;
    this.#isDraining = true;
    const open = (): void => {
      this.#isDraining = false;
      if (this.#exclusive > 0) return;
      for (const resume of this.#waiting.splice(0)) resume();
    };
    // Waiting never fails: a write that cannot be made says so to whoever made it.
    void this.db.drained().then(open, open);
  }
}
