/**
 * The indexer: a thread that puts new keys into the ordered indexes of all stores that this thread owns (table/pending-keys.ts), so that
 * who writes many new keys need not do it itself.
 *
 * It is there while there is something for it: a writer that has filled the queues of its store several times within a moment asks for it, and the owner
 * assigns the store to it, for good. It ends a while after the last such store has been closed; a thread that is kept knows its code by heart, which
 * a new one takes a tenth of a second to learn. Without it everything works the same, only that writers settle the keys themselves.
 *
 * A plain worker and not a pool task: the pool hands tasks out from the event loop, which whoever writes in a loop keeps from turning.
 */

import { Worker } from 'node:worker_threads';
import { Bell } from '../memory/bell.js';
import * as L from '../memory/layout.js';
import { threadWord } from '../memory/registry.js';
import type { IndexerMessage } from '../../workers/indexer.js';
import type { Core } from './core.js';

/** How long the thread is kept without a store. */
const LINGER_MS = 10_000;

function warn(error: unknown): void {
  process.emitWarning(`the thread that keeps ordered indexes has ended: ${error instanceof Error ? error.stack : String(error)}`, {
    code: 'FV_INDEXER',
  });
}

class Indexer {
  readonly bell = new Bell();
  readonly #stores = new Set<Core>();
  #worker: Worker | undefined;
  #linger: NodeJS.Timeout | undefined;
  #isRefused = false;

  /** Lets the indexer work for a store. In the owner's thread. */
  assign(core: Core): void {
    const { words, control, handle } = core;
    // Still taken by one that has died and is not buried yet, or is just about to give the store up.
    const isFree = Atomics.load(words, threadWord(control, L.INDEXER_SLOT) + L.THREAD_ID) === 0;
    const isAssigned = Atomics.load(words, L.CONTROL_INDEXER) === L.INDEXER_ASSIGNED;
    if (!isFree || isAssigned || control.status >= L.STATUS_CLOSING || this.#isRefused) return;
    clearTimeout(this.#linger);
    try {
      this.#worker ??= this.#start();
    } catch (error) {
      // No threads to be had: the write that has asked has taken effect, and all goes on without.
      this.#isRefused = true;
      warn(error);
      return;
    }
    this.#stores.add(core);
    Atomics.store(words, L.CONTROL_INDEXER, L.INDEXER_ASSIGNED);
    this.#send(this.#worker, { kind: 'store', control: handle.control, shards: [...handle.shards], index: handle.index });
  }

  /** The store is closed. */
  release(core: Core): void {
    if (!this.#stores.delete(core)) return;
    // It lets go of the memory of closed stores when it looks.
    this.bell.ringAnyway();
    if (this.#stores.size > 0) return;
    clearTimeout(this.#linger);
    this.#linger = setTimeout(() => this.#end(), LINGER_MS);
    this.#linger.unref();
  }

  #start(): Worker {
    const worker = new Worker(new URL('../../workers/indexer.js', import.meta.url), {
      name: 'flashvector indexer',
      workerData: this.bell.buffer,
    });
    worker.unref();
    // It ends, and the stores go on without it.
    worker.on('error', warn);
    worker.on('exit', () => this.#ended(worker));
    return worker;
  }

  #end(): void {
    if (this.#worker === undefined || this.#stores.size > 0) return;
    this.#send(this.#worker, { kind: 'end' });
    this.#worker = undefined;
  }

  #send(worker: Worker, message: IndexerMessage): void {
    worker.postMessage(message);
    this.bell.ringAnyway();
  }

  /** Where it ended by itself the stores do without, until they ask again. */
  #ended(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    for (const { words } of this.#stores) Atomics.store(words, L.CONTROL_INDEXER, L.INDEXER_NONE);
    this.#stores.clear();
  }
}

/** One for each thread: all stores that it owns share it. */
export const indexer = new Indexer();
