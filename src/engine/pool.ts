/**
 * The piscina pool of a store: the only file that knows piscina.
 *
 * The log task occupies one thread for as long as the store is open; the others come when there is
 * work and go when there is none. Threads do not keep the process alive: pending promises do (acks.ts).
 */

import { Piscina } from 'piscina';
import { FlashVectorError } from '../base/errors.js';

const worker = (name: string): string => new URL(`../../workers/${name}.js`, import.meta.url).href;
const IDLE_MS = 1000;

export class Pool {
  readonly #piscina: Piscina;
  #destroyed = false;

  /** @param threads tasks that may run at once, the log task included */
  constructor(threads: number) {
    this.#piscina = new Piscina({
      filename: worker('recover'),
      minThreads: 1,
      maxThreads: threads,
      // The log task sleeps on its own words; an idle worker must keep its event loop.
      atomics: 'disabled',
      idleTimeout: IDLE_MS,
      concurrentTasksPerWorker: 1,
    });
  }

  /** Runs `workers/<name>.js`. A task that fails says so in its result; a rejection means that its thread died. */
  async run<Task, Result>(name: string, task: Task, transfer: readonly unknown[] = []): Promise<Result> {
    // A destroyed pool would start a new thread.
    if (this.#destroyed) throw new FlashVectorError('FV_CLOSED', 'the store is closed');
    const running = this.#piscina.run(task, { filename: worker(name), transferList: transfer as never });
    this.#release();
    return (await running) as Result;
  }

  /** Lets the process end although threads run. */
  #release(): void {
    for (const thread of this.#piscina.threads) thread.unref();
  }

  async destroy(): Promise<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    await this.#piscina.destroy();
  }
}
