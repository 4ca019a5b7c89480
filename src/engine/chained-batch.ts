/** The chained form of a batch: `db.batch().put(k, v).del(k).write()`. */

import { FlashVectorError } from '../base/errors.js';
import { checkTtl, type WriteOptions } from '../base/options.js';
import { settledKey } from '../table/key-codec.js';
import { EncodedBatch } from './batch.js';
import type { Core } from './core.js';
import type { AnyKey } from './key.js';

/**
 * Collects operations and writes them as one: all or nothing, in memory, on disk, across shards.
 * Keys and values are encoded when they are added; later changes to them do not count.
 */
export class ChainedBatch {
  readonly #core: Core;
  readonly #write: (batch: EncodedBatch, options?: WriteOptions) => Promise<number>;
  #batch = new EncodedBatch();
  #written = false;

  /** @internal */
  constructor(core: Core, write: (batch: EncodedBatch, options?: WriteOptions) => Promise<number>) {
    this.#core = core;
    this.#write = write;
  }

  /** Number of operations so far. */
  get length(): number {
    return this.#batch.count;
  }

  /** @throws TypeError, FlashVectorError `FV_KEY`, `FV_VALUE`, `FV_OPTION`, `FV_CLOSED` */
  put(key: AnyKey, value: unknown, options?: { ttl?: number }): this {
    this.#check();
    const expiresMs = options?.ttl === undefined ? 0 : this.#core.clock.momentIn(checkTtl('batch', options.ttl));
    const settled = settledKey(this.#core.scratch, key);
    this.#core.codec.prepare(value);
    // A getter of the value may have written the batch.
    this.#check();
    this.#batch.putPrepared(this.#core, settled, value, expiresMs);
    return this;
  }

  /** @throws TypeError, FlashVectorError `FV_KEY`, `FV_CLOSED` */
  del(key: AnyKey): this {
    this.#check();
    this.#batch.del(this.#core, key);
    return this;
  }

  /** Forgets the operations so far. */
  clear(): this {
    this.#check();
    this.#batch = new EncodedBatch();
    return this;
  }

  /** Writes the batch. It cannot be used afterwards. @returns an LSN, as `db.batch([…])` */
  write(options?: WriteOptions): Promise<number> {
    try {
      this.#check();
      this.#written = true;
      return this.#write(this.#batch, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #check(): void {
    if (this.#written) throw new FlashVectorError('FV_CLOSED', 'this batch has been written already');
  }
}
