/**
 * rocksdb-native. All its calls are asynchronous, so it reads one key at a time as quickly as a thread can be asked. It has no synced
 * write: where writes have to be durable, they are so when its memory has been flushed to a table file, which is done for `safe` and after each
 * `batch`; a single durable write is not asked of it.
 */

import path from 'node:path';
import { codecOf, type Codec } from './codec.js';
import { FILL_BATCH, type Engine, type EngineSettings } from './engine.js';
import { loadPeer } from './load-peer.js';

interface WriteBatch {
  tryPut(key: string, value: Buffer | string): void;
  flush(): Promise<void>;
  destroy(): void;
}
interface Rocks {
  ready(): Promise<void>;
  get(key: string): Promise<Buffer | null>;
  put(key: string, value: Buffer | string): Promise<void>;
  write(options: { capacity: number; autoDestroy: boolean }): WriteBatch;
  iterator(range: { gte: string; limit: number }, options: { capacity: number }): AsyncIterable<{ key: Buffer; value: Buffer }>;
  flush(): Promise<void>;
  close(): Promise<void>;
}
interface Module {
  default: new (directory: string) => Rocks;
}

class RocksEngine implements Engine {
  readonly name = 'rocksdb-native';
  readonly readsAtOnce = false;
  #waiting: WriteBatch | undefined;
  #count = 0;
  #batches: Promise<unknown>[] = [];

  constructor(
    readonly db: Rocks,
    readonly codec: Codec,
    readonly durable: boolean,
  ) {}

  get(): unknown {
    throw new Error('rocksdb-native has no synchronous read');
  }

  async getLater(key: string): Promise<unknown> {
    const stored = await this.db.get(key);
    return stored === null ? undefined : this.#decode(stored);
  }

  #decode(stored: Buffer): unknown {
    return this.codec.decode(this.codec.isText ? stored.toString() : stored);
  }

  put(key: string, value: unknown): void {
    this.#waiting ??= this.db.write({ capacity: FILL_BATCH, autoDestroy: true });
    this.#waiting.tryPut(key, this.codec.encode(value));
    if (++this.#count === FILL_BATCH) this.#send();
  }

  #send(): void {
    if (this.#waiting !== undefined) this.#batches.push(this.#waiting.flush());
    this.#waiting = undefined;
    this.#count = 0;
  }

  async safe(): Promise<void> {
    this.#send();
    const batches = this.#batches;
    this.#batches = [];
    await Promise.all(batches);
    if (this.durable) await this.db.flush();
  }

  async putSafely(key: string, value: unknown): Promise<void> {
    if (this.durable) throw new Error('rocksdb-native has no synced write');
    await this.db.put(key, this.codec.encode(value));
  }

  async batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<void> {
    const batch = this.db.write({ capacity: to - from, autoDestroy: true });
    for (let i = from; i < to; i++) batch.tryPut(keys[i], this.codec.encode(values[i]));
    await batch.flush();
    if (this.durable) await this.db.flush();
  }

  async fill(keys: readonly string[], values: readonly unknown[]): Promise<void> {
    const batch = this.db.write({ capacity: FILL_BATCH, autoDestroy: false });
    for (let from = 0; from < keys.length; from += FILL_BATCH) {
      const to = Math.min(keys.length, from + FILL_BATCH);
      for (let i = from; i < to; i++) batch.tryPut(keys[i], this.codec.encode(values[i]));
      await batch.flush();
    }
    batch.destroy();
    if (this.durable) await this.db.flush();
  }

  async scan(start: string, limit: number): Promise<number> {
    let count = 0;
    for await (const { key, value } of this.db.iterator({ gte: start, limit }, { capacity: Math.min(limit, FILL_BATCH) }))
      if (key.toString() !== '' && this.#decode(value) !== undefined) count++;
    return count;
  }

  close(): Promise<unknown> {
    return this.db.close();
  }
}

export async function openRocks({ folder, durable, kind }: EngineSettings): Promise<Engine> {
  const { default: RocksDB } = (await loadPeer('rocksdb-native')) as Module;
  const db = new RocksDB(path.join(folder, 'rocksdb'));
  await db.ready();
  return new RocksEngine(db, codecOf(kind), durable);
}
