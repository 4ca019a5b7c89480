/** FlashVector as it opens by default; where nothing has to be on disk with durability `interval`: what is safe has reached the operating system, as with the peers. */

import path from 'node:path';
import { open, type FlashVector } from '../../src/index.js';
import type { Engine, EngineSettings } from './engine.js';

class FlashVectorEngine implements Engine {
  readonly name = 'FlashVector';
  readonly readsAtOnce = true;
  #last: Promise<unknown> | undefined;

  constructor(readonly db: FlashVector) {}

  get(key: string): unknown {
    return this.db.get(key);
  }

  getLater(key: string): Promise<unknown> {
    return Promise.resolve(this.db.get(key));
  }

  put(key: string, value: unknown): void {
    this.#last = this.db.put(key, value);
  }

  safe(): Promise<unknown> {
    return Promise.resolve(this.#last);
  }

  putSafely(key: string, value: unknown): Promise<unknown> {
    return this.db.put(key, value);
  }

  batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<unknown> {
    const operations = [];
    for (let i = from; i < to; i++) operations.push({ type: 'put' as const, key: keys[i], value: values[i] });
    return this.db.batch(operations);
  }

  fill(keys: readonly string[], values: readonly unknown[]): Promise<unknown> {
    for (let i = 0; i < keys.length; i++) this.put(keys[i], values[i]);
    return this.safe();
  }

  scan(start: string, limit: number): number {
    let count = 0;
    for (const [key, value] of this.db.entries({ gte: start, limit })) if (key !== '' && value !== undefined) count++;
    return count;
  }

  close(): Promise<unknown> {
    return this.db.close();
  }
}

export async function openFlashVectorEngine({ folder, durable }: EngineSettings): Promise<Engine> {
  return new FlashVectorEngine(await open(path.join(folder, 'flashvector'), { durability: durable ? 'sync' : 'interval' }));
}
