/** classic-level: LevelDB. Many writes are given to it in batches of 1,000, because a call for each goes through the thread pool. */

import path from 'node:path';
import { codecOf, type Codec } from './codec.js';
import { FILL_BATCH, type Engine, type EngineSettings } from './engine.js';
import { loadPeer } from './load-peer.js';

type Stored = Buffer | string;
interface Operation {
  type: 'put';
  key: string;
  value: Stored;
}
interface Level {
  open(): Promise<void>;
  getSync(key: string): Stored | undefined;
  get(key: string): Promise<Stored | undefined>;
  put(key: string, value: Stored, options: { sync: boolean }): Promise<void>;
  batch(operations: readonly Operation[], options: { sync: boolean }): Promise<void>;
  iterator(options: { gte: string; limit: number }): { nextv(size: number): Promise<[string, Stored][]>; close(): Promise<void> };
  close(): Promise<void>;
}
interface Module {
  ClassicLevel: new (location: string, options: { keyEncoding: string; valueEncoding: string }) => Level;
}

class ClassicLevelEngine implements Engine {
  readonly name = 'classic-level';
  readonly readsAtOnce = true;
  #waiting: Operation[] = [];
  #batches: Promise<unknown>[] = [];

  constructor(
    readonly db: Level,
    readonly codec: Codec,
    readonly durable: boolean,
  ) {}

  get(key: string): unknown {
    const stored = this.db.getSync(key);
    return stored === undefined ? undefined : this.codec.decode(stored);
  }

  async getLater(key: string): Promise<unknown> {
    const stored = await this.db.get(key);
    return stored === undefined ? undefined : this.codec.decode(stored);
  }

  put(key: string, value: unknown): void {
    this.#waiting.push({ type: 'put', key, value: this.codec.encode(value) });
    if (this.#waiting.length === FILL_BATCH) this.#send(false);
  }

  #send(sync: boolean): void {
    this.#batches.push(this.db.batch(this.#waiting, { sync }));
    this.#waiting = [];
  }

  /** Its log is one: a synced batch makes all before it durable, too. */
  async safe(): Promise<void> {
    if (this.#waiting.length > 0) this.#send(this.durable);
    const batches = this.#batches;
    this.#batches = [];
    await Promise.all(batches);
  }

  putSafely(key: string, value: unknown): Promise<unknown> {
    return this.db.put(key, this.codec.encode(value), { sync: this.durable });
  }

  batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<unknown> {
    return this.#batch(keys, values, from, to, this.durable);
  }

  #batch(keys: readonly string[], values: readonly unknown[], from: number, to: number, sync: boolean): Promise<unknown> {
    const operations: Operation[] = [];
    for (let i = from; i < to; i++) operations.push({ type: 'put', key: keys[i], value: this.codec.encode(values[i]) });
    return this.db.batch(operations, { sync });
  }

  async fill(keys: readonly string[], values: readonly unknown[]): Promise<void> {
    for (let from = 0; from < keys.length; from += FILL_BATCH) {
      const to = Math.min(keys.length, from + FILL_BATCH);
      await this.#batch(keys, values, from, to, this.durable && to === keys.length);
    }
  }

  async scan(start: string, limit: number): Promise<number> {
    const iterator = this.db.iterator({ gte: start, limit });
    let count = 0;
    for (;;) {
      const entries = await iterator.nextv(FILL_BATCH);
      if (entries.length === 0) break;
      for (const [key, stored] of entries) if (key !== '' && this.codec.decode(stored) !== undefined) count++;
    }
    await iterator.close();
    return count;
  }

  close(): Promise<unknown> {
    return this.db.close();
  }
}

export async function openClassicLevel({ folder, durable, kind }: EngineSettings): Promise<Engine> {
  const { ClassicLevel } = (await loadPeer('classic-level')) as Module;
  const codec = codecOf(kind);
  const db = new ClassicLevel(path.join(folder, 'classic-level'), { keyEncoding: 'utf8', valueEncoding: codec.isText ? 'utf8' : 'buffer' });
  await db.open();
  return new ClassicLevelEngine(db, codec, durable);
}
