/**
 * The piscina threads of a store: the only file that knows piscina.
 *
 * The lead thread runs the first part of recovery and then the log task. To piscina that task is over as soon as
 * the loop is about to start: while piscina waits for a task it holds a reference that keeps the
 * process alive, and a store that somebody forgot to close must not do that. How the log ends is said
 * in the control region. Further threads come when there is other work and go when there is none.
 */

import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { FlashVectorError, describe } from '../base/errors.js';

const worker = (name: string): string => new URL(`../../workers/${name}.js`, import.meta.url).href;
/**
 * How long a thread without work is kept. A new one takes 70 to 96 ms of processor time until it has loaded its code, at the cost of who writes meanwhile, and is slow until that is compiled: a
 * store that is written to steadily keeps the one that writes its checkpoints.
 */
const IDLE_MS = 30_000;
/** Longest that destroying waits for threads that load code or have a task; and how often it looks. */
const SETTLE_MS = 10_000;
const LOOK_MS = 5;

/**
 * A piscina that knows which of its threads have loaded their code. Ending one that is loading can abort the whole process (seen with Node 20: V8 asks about a module that was not
 * linked to the end), and where a thread has died piscina starts another one at once.
 */
class PoolThreads {
  readonly #piscina: Piscina;
  readonly #loaded = new WeakSet<Worker>();
  #running = 0;

  constructor(
    minThreads: number,
    maxThreads: number,
    idleTimeout: number,
    readonly settleMs: number,
  ) {
    const piscina = new Piscina({
      filename: worker('recover'),
      minThreads,
      maxThreads,
      idleTimeout,
      // An idle worker must keep its event loop: with 'sync' it would block in Atomics.wait.
      atomics: 'disabled',
      concurrentTasksPerWorker: 1,
    });
    // The first ones are announced before they have loaded anything, all others when they have. What a thread says first is that it has.
    const first = new WeakSet(piscina.threads);
    for (const thread of piscina.threads) thread.once('message', () => this.#loaded.add(thread));
    piscina.on('workerCreate', ({ id }) => {
      const thread = piscina.threads.find(({ threadId }) => threadId === id);
      if (thread !== undefined && !first.has(thread)) this.#loaded.add(thread);
    });
    this.#piscina = piscina;
  }

  /** Runs `workers/<name>.js`. Rejects when its thread ends before that. */
  async run<Task, Result>(name: string, task: Task, transfer: readonly unknown[]): Promise<Result> {
    this.#running++;
    try {
      return (await this.#piscina.run(task, { filename: worker(name), transferList: transfer as never })) as Result;
    } finally {
      this.#running--;
    }
  }

  /** Ends all threads, as soon as none is loading code: for its start, or for a task. */
  async destroy(): Promise<void> {
    const deadline = performance.now() + this.settleMs;
    while ((this.#running > 0 || this.#isLoading()) && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    await this.#piscina.destroy();
  }

  #isLoading(): boolean {
    return this.#piscina.threads.some((thread) => thread.threadId >= 0 && !this.#loaded.has(thread));
  }
}

export class Pool {
  readonly #lead: PoolThreads;
  #others: PoolThreads | undefined;
  #destroyed = false;

  /**
   * @param threads tasks that may run at once beside the log task
   * @param settleMs longest that destroying waits
   */
  constructor(
    readonly threads: number,
    readonly settleMs = SETTLE_MS,
  ) {
    this.#lead = new PoolThreads(1, 1, Infinity, settleMs);
  }

  /**
   * Runs `workers/<name>.js` on the lead thread. A task says in its result if it failed.
   * Rejects with `FV_ABORTED` when its thread died (it ran out of memory, say), with `FV_CLOSED` when the pool is destroyed.
   */
  runOnLead<Task, Result>(name: string, task: Task, transfer: readonly unknown[] = []): Promise<Result> {
    return this.#run(this.#lead, name, task, transfer);
  }

  /** Runs `workers/<name>.js` on another thread. Rejects as `runOnLead`. */
  run<Task, Result>(name: string, task: Task): Promise<Result> {
    this.#others ??= new PoolThreads(0, this.threads, IDLE_MS, this.settleMs);
    return this.#run(this.#others, name, task, []);
  }

  async #run<Task, Result>(threads: PoolThreads, name: string, task: Task, transfer: readonly unknown[]): Promise<Result> {
    // A destroyed pool would start a new thread.
    if (this.#destroyed) throw new FlashVectorError('FV_CLOSED', 'the store is closed');
    try {
      return await threads.run<Task, Result>(name, task, transfer);
    } catch (cause) {
      if (this.#destroyed) throw new FlashVectorError('FV_CLOSED', 'the store is closed', { cause });
      const reason = cause instanceof Error ? cause.message : describe(cause);
      throw new FlashVectorError('FV_ABORTED', `the thread of the task ${name} ended before it was done: ${reason}`, { cause });
    }
  }

  /** Ends all threads. Waits for tasks that have begun, and for threads that are starting, for a moment; what is not done by then rejects. */
  async destroy(): Promise<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    await Promise.all([this.#lead.destroy(), this.#others?.destroy()]);
  }
}
