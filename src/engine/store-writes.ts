/**
 * The writing half of a store as a thread sees it; store-reads.ts is the reading one, database.ts adds the store's life.
 *
 * Public methods check their arguments here; what they call trusts them.
 */

import { describe, FlashVectorError } from '../base/errors.js';
import {
  checkDeleteOptions,
  checkLoadOptions,
  checkPutOptions,
  checkTransactionOptions,
  checkTtl,
  checkWriteOptions,
  type DeleteOptions,
  type Durability,
  type PutOptions,
  type TransactionOptions,
  type WriteOptions,
} from '../base/options.js';
import { DURABILITY_INTERVAL, DURABILITY_MEMORY, DURABILITY_SYNC, OPERATION_DELETE, OPERATION_PUT } from '../base/record.js';
import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import { addExpiry } from '../table/expiry.js';
import { encodeKey, settledKey } from '../table/key-codec.js';
import { EncodedBatch } from './batch.js';
import type { Guard } from './batch-writer.js';
import { clearRange, loadEntries, type LoadOptions } from './bulk.js';
import { ChainedBatch } from './chained-batch.js';
import type { Core } from './core.js';
import { copyOfKey, type AnyKey, type Entry, type Key } from './key.js';
import { Modifications, type Modifier, type Replacement } from './modify.js';
import { checkRange, type Range } from './range.js';
import { TRANSACTION_RETRIES, runTransaction, type TransactionContext } from './run-transaction.js';
import { StoreReads } from './store-reads.js';
import type { TransactionView } from './transaction.js';
import { CONFLICT, DEFER, FIRST_PATIENCE_MS, conflictError, isDeferred, type Condition } from './write-result.js';
import type { Writer } from './writer.js';

export type BatchOperation = { type: 'put'; key: AnyKey; value: unknown; ttl?: number } | { type: 'del'; key: AnyKey };

const DURABILITIES: Record<Durability, number> = { sync: DURABILITY_SYNC, interval: DURABILITY_INTERVAL, memory: DURABILITY_MEMORY };
const PUT_SAMPLE_MASK = 63;

export abstract class StoreWrites extends StoreReads {
  protected readonly writer: Writer;
  /** This thread has begun to end its use of the store: new writes are refused. */
  protected isClosing = false;
  readonly #modifications: Modifications;
  #puts = 0;
  readonly #writable = (): void => this.checkWritable();

  protected constructor(core: Core, writer: Writer, isCached: boolean) {
    super(core, isCached);
    this.writer = writer;
    this.#modifications = new Modifications(core, writer, this.counters, (key) => this.readEntry(key));
  }

  /**
   * Sets the value of a key: in memory at once, acknowledged when it is as durable as was asked for.
   *
   * Resolves with an LSN at which this write is durable. Writes of one turn of the event loop share
   * a promise, and then it is the LSN of the last of them; a write with a condition has its own.
   *
   * Rejects with `FV_CONFLICT` (condition), `FV_KEY`, `FV_VALUE`, `FV_OPTION`, `FV_MEMORY_FULL`, `FV_READONLY`,
   * `FV_CLOSED`, `FV_IO` (the log failed: the store is read-only from then on), or a TypeError.
   * @param value encoded before `put` returns; later changes to it do not count
   * @example await db.put('user:1', { name: 'Ada' })
   */
  put(key: Key, value: unknown, options?: PutOptions): Promise<number> {
    const startedMs = (++this.#puts & PUT_SAMPLE_MASK) === 0 ? performance.now() : 0;
    try {
      this.checkWritable();
      const core = this.core;
      let condition: Condition = 'none';
      let durability = core.durability;
      let expiresMs = 0;
      if (options !== undefined) {
        checkPutOptions(options);
        condition = conditionOf(options);
        if (options.durability !== undefined) durability = DURABILITIES[options.durability];
        if (options.ttl !== undefined) expiresMs = core.clock.momentIn(options.ttl);
        else if (options.expiresAt !== undefined) expiresMs = options.expiresAt;
      }
      if (this.writer.deferring) this.writer.retryDeferred();
      const settled = typeof key === 'string' ? key : settledKey(core.scratch, key);
      core.codec.prepare(value);
      encodeKey(core.scratch, settled);
      core.codec.place(value);
      if (expiresMs !== 0) addExpiry(core.scratch, expiresMs);
      this.counters[M.COUNTER_BYTES_WRITTEN] += core.scratch.keyLength + core.scratch.valueLength;
      this.counters[M.COUNTER_PUTS]++;
      const written = this.#write(OPERATION_PUT, condition, durability);
      if (startedMs !== 0) core.metrics.record(M.HISTOGRAM_PUT_APPLIED, (performance.now() - startedMs) * 1e6);
      return written;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Removes a key; no error when it is not there. Resolves and rejects as `put`.
   */
  del(key: AnyKey, options?: DeleteOptions): Promise<number> {
    try {
      this.checkWritable();
      const core = this.core;
      let condition: Condition = 'none';
      let durability = core.durability;
      if (options !== undefined) {
        checkDeleteOptions(options);
        condition = conditionOf(options);
        if (options.durability !== undefined) durability = DURABILITIES[options.durability];
      }
      if (this.writer.deferring) this.writer.retryDeferred();
      core.encodeDelete(key);
      this.counters[M.COUNTER_DELETES]++;
      return this.#write(OPERATION_DELETE, condition, durability);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Writes what is in the scratch, or queues it. */
  #write(type: number, condition: Condition, durability: number): Promise<number> {
    const writer = this.writer;
    const lsn = writer.deferring ? DEFER : writer.tryWrite(type, condition, durability, FIRST_PATIENCE_MS);
    if (isDeferred(lsn)) return this.#countConflict(writer.deferWrite(type, condition, durability), condition);
    if (lsn === CONFLICT) {
      this.counters[M.COUNTER_CONFLICTS]++;
      return Promise.reject(conflictError());
    }
    if (condition === 'none') return writer.acks.join(lsn, durability);
    return writer.acks.join(lsn, durability).then(() => lsn);
  }

  #countConflict(promise: Promise<number>, condition: Condition): Promise<number> {
    if (condition === 'none') return promise;
    return promise.catch((error: unknown) => {
      if (error instanceof FlashVectorError && error.code === 'FV_CONFLICT') this.counters[M.COUNTER_CONFLICTS]++;
      throw error;
    });
  }

  /**
   * Writes several operations as one: all or nothing, in memory, on disk, across shards. Of several
   * operations on one key the last counts. Without arguments, starts a chained batch.
   * Resolves and rejects as `put`; a bad operation rejects the whole batch and names its index.
   * @example
   * await db.batch([{ type: 'put', key: 'a', value: 1 }, { type: 'del', key: 'b' }])
   * await db.batch().put('a', 1).del('b').write()
   */
  batch(): ChainedBatch;
  batch(operations: readonly BatchOperation[], options?: WriteOptions): Promise<number>;
  batch(operations?: readonly BatchOperation[], options?: WriteOptions): ChainedBatch | Promise<number> {
    if (operations === undefined) return new ChainedBatch(this.core, (batch, chainedOptions) => this.#writeBatch(batch, chainedOptions));
    try {
      this.checkWritable();
      if (!Array.isArray(operations)) throw new TypeError(`batch takes an array of operations, not ${describe(operations)}`);
      const batch = this.core.takeBatch();
      for (let i = 0; i < operations.length; i++) this.#addOperation(batch, operations[i] as BatchOperation, i);
      const written = this.#writeBatch(batch, options);
      // Where it was deferred it is still needed.
      if (!this.writer.deferring) this.core.giveBatch(batch);
      return written;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #addOperation(batch: EncodedBatch, operation: BatchOperation, index: number): void {
    const type: unknown = (operation as BatchOperation | null)?.type;
    if (type !== 'put' && type !== 'del')
      throw new TypeError(`batch: operation ${index} has type ${describe(type)}; allowed is 'put' or 'del'`);
    try {
      if (operation.type === 'put') {
        const expiresMs = operation.ttl === undefined ? 0 : this.core.clock.momentIn(checkTtl('put', operation.ttl));
        batch.put(this.core, operation.key, operation.value, expiresMs);
      } else batch.del(this.core, operation.key);
    } catch (error) {
      if (error instanceof FlashVectorError)
        throw new FlashVectorError(error.code, `batch: operation ${index}: ${error.message}`, { cause: error.cause });
      if (error instanceof TypeError) throw new TypeError(`batch: operation ${index}: ${error.message}`, { cause: error });
      throw error;
    }
  }

  #writeBatch(batch: EncodedBatch, options: WriteOptions | undefined): Promise<number> {
    this.checkWritable();
    const durability = this.#durabilityOf('batch', options);
    if (batch.count === 0) return Promise.resolve(this.core.control.lastLsn);
    if (this.writer.deferring) this.writer.retryDeferred();
    return this.#countAndWrite(batch, durability);
  }

  #countAndWrite(batch: EncodedBatch, durability: number, guard?: Guard): Promise<number> {
    const counters = this.counters;
    counters[M.COUNTER_BATCHES]++;
    counters[M.COUNTER_BYTES_WRITTEN] += batch.length * 4;
    for (let i = 0; i < batch.count; i++) counters[batch.typeOf(i) === OPERATION_PUT ? M.COUNTER_PUTS : M.COUNTER_DELETES]++;
    const writer = this.writer;
    const lsn = writer.deferring ? DEFER : writer.tryBatch(batch, durability, FIRST_PATIENCE_MS, guard);
    if (isDeferred(lsn)) return writer.defer(durability, (patienceMs) => writer.tryBatch(batch, durability, patienceMs, guard));
    if (lsn === CONFLICT) return Promise.reject(conflictError());
    return writer.acks.join(lsn, durability);
  }

  /** A batch of `load` or `clear`. */
  #sendBatch(batch: EncodedBatch, durability: number, guard?: Guard): Promise<number> {
    try {
      this.checkWritable();
      return this.#countAndWrite(batch, durability, guard);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Adds to a number, atomically; an absent key counts as 0. Resolves with the new number when it is durable.
   * Rejects as `put`, and with `FV_VALUE` when the key holds something else.
   */
  increment(key: AnyKey, by = 1, options?: WriteOptions): Promise<number> {
    try {
      this.checkWritable();
      if (typeof by !== 'number' || !Number.isFinite(by)) throw new TypeError(`increment: by must be a finite number, not ${describe(by)}`);
      const core = this.core;
      const durability = this.#durabilityOf('increment', options);
      const copy = copyOfKey(core.scratch, key);
      encodeKey(core.scratch, copy);
      this.counters[M.COUNTER_PUTS]++;
      this.counters[M.COUNTER_BYTES_WRITTEN] += core.scratch.keyLength + 8;
      const writer = this.writer;
      const result = { value: 0 };
      const lsn = writer.deferring ? DEFER : writer.tryIncrement(by, durability, FIRST_PATIENCE_MS, result);
      const acknowledged = isDeferred(lsn)
        ? writer.defer(durability, (patienceMs) => {
            encodeKey(core.scratch, copy);
            return writer.tryIncrement(by, durability, patienceMs, result);
          })
        : writer.acks.join(lsn, durability);
      return acknowledged.then(() => result.value);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Replaces a value by what `fn` makes of it, atomically. Resolves with the new value when it is durable.
   * @param fn gets the value or `undefined`, returns the new one; it may be called again when another
   *   writer was faster, so it should only compute. What it throws rejects the promise and nothing is written
   */
  update<V = unknown>(key: AnyKey, fn: (value: V | undefined) => V, options?: WriteOptions): Promise<V> {
    try {
      this.checkWritable();
      if (typeof fn !== 'function') throw new TypeError(`update: fn must be a function, not ${describe(fn)}`);
      const durability = this.#durabilityOf('update', options);
      const copy = copyOfKey(this.core.scratch, key);
      const writer = this.writer;
      const result = {} as { value: V };
      const run = (patienceMs: number): number => this.#modifications.tryUpdate(copy, fn, durability, patienceMs, result);
      const lsn = writer.deferring ? DEFER : run(FIRST_PATIENCE_MS);
      if (lsn === CONFLICT) return Promise.reject(conflictError());
      const acknowledged = isDeferred(lsn) ? writer.defer(durability, run) : writer.acks.join(lsn, durability);
      return acknowledged.then(() => result.value);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Looks at an entry and writes, removes or leaves it, atomically. Resolves with an LSN at which that is durable, or 0 when nothing was written.
   * Rejects as `put`.
   * @param fn gets the entry or `undefined`. It returns what takes its place: `{ value }`, with `ttl` or `expiresAt` when that is to expire; `null`: nothing
   *   does, the key goes; or `undefined`: all stays as it is. It may be called again when another writer was faster, so it should only compute.
   *   What it throws rejects the promise and nothing is written
   * @example await db.modify('seat:1', (entry) => (entry === undefined ? { value: 'Ada', ttl: 60_000 } : undefined))
   */
  modify<V = unknown>(
    key: Key,
    fn: (entry: Entry<V> | undefined) => Replacement | null | undefined,
    options?: WriteOptions,
  ): Promise<number> {
    try {
      this.checkWritable();
      if (typeof fn !== 'function') throw new TypeError(`modify: fn must be a function, not ${describe(fn)}`);
      const durability = this.#durabilityOf('modify', options);
      const writer = this.writer;
      const copy = copyOfKey(this.core.scratch, key) as Key;
      if (!writer.deferring) {
        const lsn = this.#modifications.tryModify(copy, fn as Modifier, durability, FIRST_PATIENCE_MS);
        if (lsn === 0) return Promise.resolve(0);
        if (lsn === CONFLICT) return Promise.reject(conflictError());
        if (!isDeferred(lsn)) return writer.acks.join(lsn, durability);
      }
      return writer.defer(durability, (patienceMs) => this.#modifications.tryModify(copy, fn as Modifier, durability, patienceMs));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Lets a key expire in `ttl` milliseconds, whatever was said of it before. Resolves with whether the key was there, once that is durable.
   * Rejects as `put`.
   */
  expire(key: AnyKey, ttl: number, options?: WriteOptions): Promise<boolean> {
    try {
      return this.#expire('expire', key, this.core.clock.momentIn(checkTtl('expire', ttl)), options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Lets a key stay for good that was to expire. Resolves with whether the key was there. Rejects as `put`. */
  persist(key: AnyKey, options?: WriteOptions): Promise<boolean> {
    return this.#expire('persist', key, 0, options);
  }

  #expire(call: string, key: AnyKey, expiresMs: number, options: WriteOptions | undefined): Promise<boolean> {
    try {
      this.checkWritable();
      const core = this.core;
      const durability = this.#durabilityOf(call, options);
      const writer = this.writer;
      const result = { found: false };
      const copy = copyOfKey(core.scratch, key);
      encodeKey(core.scratch, copy);
      this.counters[M.COUNTER_PUTS]++;
      const lsn = writer.deferring ? DEFER : writer.tryExpire(expiresMs, durability, FIRST_PATIENCE_MS, result);
      const acknowledged = isDeferred(lsn)
        ? writer.defer(durability, (patienceMs) => {
            encodeKey(core.scratch, copy);
            return writer.tryExpire(expiresMs, durability, patienceMs, result);
          })
        : lsn === 0
          ? Promise.resolve(0)
          : writer.acks.join(lsn, durability);
      return acknowledged.then(() => result.found);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Runs `body` as if it were alone with the store: it reads as of one moment, its own writes included, and what it writes takes
   * effect as a whole, once it has returned, and only if nothing that it has read, ranges included, was changed meanwhile. Otherwise it runs again, so it
   * should do nothing but read, compute and write through `tx`. Resolves with what `body` returned when its writes are durable.
   *
   * Rejects with what `body` throws (nothing is written then), with `FV_CONFLICT` when it had to run more than `maxRetries` times again, and as `put`.
   * @example
   * await db.transaction(async (tx) => {
   *   tx.put('a', tx.get('a') - 10)
   *   tx.put('b', tx.get('b') + 10)
   * })
   */
  transaction<T>(body: (tx: TransactionView) => Promise<T> | T, options?: TransactionOptions): Promise<T> {
    try {
      this.checkWritable();
      if (typeof body !== 'function') throw new TypeError(`transaction takes a function, not ${describe(body)}`);
      if (options !== undefined) checkTransactionOptions(options);
      const context: TransactionContext = {
        core: this.core,
        views: this.views,
        writer: this.writer,
        durability: options?.durability === undefined ? this.core.durability : DURABILITIES[options.durability],
        maxRetries: options?.maxRetries ?? TRANSACTION_RETRIES,
        checkWritable: this.#writable,
      };
      return runTransaction(context, body);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Removes the entries that a range holds at this moment, all without one. They go in batches, each atomic, not all at once. Resolves with an
   * LSN at which they are gone, 0 when there were none. Rejects as `put`.
   */
  async clear(range?: Range, options?: WriteOptions): Promise<number> {
    this.checkWritable();
    const durability = this.#durabilityOf('clear', options);
    return clearRange(this.core, this.views, checkRange(this.core, 'clear', range), durability, (batch, wanted, guard) =>
      this.#sendBatch(batch, wanted, guard),
    );
  }

  /**
   * Writes many entries, in batches, with bounded memory. Resolves with their number when all are durable.
   * Rejects as `put`, with what the iterable throws, and with `FV_ABORTED`; what was written until then stays.
   * @param entries pairs of key and value
   * @example await db.load(new Map([['a', 1], ['b', 2]]))
   */
  async load(
    entries: Iterable<readonly [AnyKey, unknown]> | AsyncIterable<readonly [AnyKey, unknown]>,
    options: LoadOptions = {},
  ): Promise<number> {
    this.checkWritable();
    checkLoadOptions(options);
    const source = entries as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined;
    if (typeof source?.[Symbol.iterator] !== 'function' && typeof source?.[Symbol.asyncIterator] !== 'function')
      throw new TypeError(`load takes an iterable of pairs of key and value, not ${describe(entries)}`);
    return loadEntries(
      this.core,
      entries,
      options,
      (batch, durability) => this.#sendBatch(batch, durability),
      () => this.flush(),
    );
  }

  /**
   * Writes of this thread wait for room in the log, or for a lock, and take effect only later, in the order of their calls. A program that writes
   * more than the disk takes sees it here, and can wait for `drained`.
   */
  get isBackedUp(): boolean {
    return this.writer.deferring;
  }

  /** Resolves when every write that this thread has called so far has taken effect in memory, or failed. */
  drained(): Promise<void> {
    return this.writer.drained();
  }

  /** Resolves, with its LSN, when everything written so far, by any thread, is on disk. */
  async flush(): Promise<number> {
    this.checkWritable();
    await this.writer.idle();
    const { control, staging } = this.core;
    const lsn = control.lastLsn;
    await this.writer.makeDurable(lsn);
    staging.reclaim();
    return lsn;
  }

  #durabilityOf(call: string, options: WriteOptions | undefined): number {
    if (options === undefined) return this.core.durability;
    checkWriteOptions(call, options);
    return options.durability === undefined ? this.core.durability : DURABILITIES[options.durability];
  }

  protected checkWritable(): void {
    const status = this.words[L.CONTROL_STATUS];
    if (status === L.STATUS_OPEN && !this.isClosing) return;
    if (status === L.STATUS_READONLY && !this.isClosing) throw this.core.control.readonlyError();
    throw this.core.control.closedError();
  }
}

function conditionOf(options: PutOptions): Condition {
  if (options.ifAbsent === true) return 'absent';
  return options.ifVersion ?? 'none';
}
