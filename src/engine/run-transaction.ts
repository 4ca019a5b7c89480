/** Running transactions: the body, the commit, and both again when another writer was faster. See transaction.ts. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { FlashVectorError } from '../base/errors.js';
import { DURABILITY_MEMORY } from '../base/record.js';
import type { Core } from './core.js';
import { Transaction, type TransactionView } from './transaction.js';
import type { Views } from './views.js';
import { CONFLICT, DEFER, FIRST_PATIENCE_MS, conflictError, isDeferred } from './write-result.js';
import type { Writer } from './writer.js';

export const TRANSACTION_RETRIES = 100;
/** Retries after which a transaction waits for some milliseconds, at random, before it tries again. */
const EAGER_RETRIES = 3;
const BACKOFF_MS_MAX = 10;

/** What a transaction runs with. */
export interface TransactionContext {
  core: Core;
  views: Views;
  writer: Writer;
  durability: number;
  maxRetries: number;
  /** Throws when the store takes no writes any more. */
  checkWritable: () => void;
}

type Body<T> = (tx: TransactionView) => Promise<T> | T;

/** Runs a transaction as often as it takes. See `FlashVector.transaction`. */
export function runTransaction<T>(context: TransactionContext, body: Body<T>): Promise<T> {
  const transaction = new Transaction(context.core, context.views);
  let result: Promise<T> | T;
  try {
    result = body(transaction);
  } catch (error) {
    transaction.end();
    return Promise.reject(error);
  }
  // A body that does not wait is committed at once: nothing can have come in between.
  if (isPromise(result)) return attempts(context, body, transaction, result);
  let committed: Promise<number> | undefined;
  try {
    committed = commit(context, transaction);
  } catch (error) {
    return Promise.reject(error);
  }
  if (committed === undefined) return Promise.resolve(result);
  const value = result;
  return committed.then(
    () => value,
    (error: unknown) => {
      if (!isConflict(error)) throw error;
      return attempts(context, body, undefined, undefined);
    },
  );
}

function isPromise<T>(value: Promise<T> | T): value is Promise<T> {
  return typeof (value as Partial<Promise<T>> | null | undefined)?.then === 'function';
}

function isConflict(error: unknown): boolean {
  return error instanceof FlashVectorError && error.code === 'FV_CONFLICT';
}

/** @param first a transaction whose body runs already, and what it returned; otherwise the first attempt has met a conflict */
async function attempts<T>(
  context: TransactionContext,
  body: Body<T>,
  first: Transaction | undefined,
  running: Promise<T> | undefined,
): Promise<T> {
  for (let attempt = first === undefined ? 1 : 0; ; attempt++) {
    const isFirst = attempt === 0 && first !== undefined;
    if (attempt > context.maxRetries)
      throw new FlashVectorError('FV_CONFLICT', `the transaction met other writers ${attempt} times; nothing was written`);
    if (attempt > EAGER_RETRIES) await new Promise((resolve) => setTimeout(resolve, Math.random() * BACKOFF_MS_MAX));
    else if (attempt > 0) await nextTurn();
    const transaction = isFirst ? first : new Transaction(context.core, context.views);
    let result: T;
    let committed: Promise<number> | undefined;
    try {
      result = isFirst ? await (running as Promise<T>) : await body(transaction);
      committed = commit(context, transaction);
    } finally {
      transaction.end();
    }
    if (committed === undefined) return result;
    try {
      await committed;
      return result;
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
  }
}

/** @returns when it is durable, or `undefined` when there is nothing to wait for: where nothing is written, what was read was of one moment */
function commit({ writer, durability, checkWritable }: TransactionContext, transaction: Transaction): Promise<number> | undefined {
  // Before the writes: what they supersede need not be kept for a transaction that has read all that it will.
  transaction.end();
  const { batch } = transaction;
  if (batch.count === 0) {
    transaction.recycle();
    return undefined;
  }
  checkWritable();
  const run = (patienceMs: number): number => writer.tryBatch(batch, durability, patienceMs, transaction);
  const lsn = writer.deferring ? DEFER : run(FIRST_PATIENCE_MS);
  if (isDeferred(lsn)) return writer.defer(durability, run);
  transaction.recycle();
  if (lsn === CONFLICT) return Promise.reject(conflictError());
  return durability === DURABILITY_MEMORY ? undefined : writer.acks.join(lsn, durability);
}
