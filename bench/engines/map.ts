/** A Map: no store, and it returns the very object that it was given. It shows what a table in memory costs at the least. */

import type { Engine } from './engine.js';

class MapEngine implements Engine {
  readonly name = 'Map';
  readonly readsAtOnce = true;
  readonly #map = new Map<string, unknown>();

  get(key: string): unknown {
    return this.#map.get(key);
  }

  getLater(key: string): Promise<unknown> {
    return Promise.resolve(this.#map.get(key));
  }

  put(key: string, value: unknown): void {
    this.#map.set(key, value);
  }

  safe(): Promise<unknown> {
    return Promise.resolve();
  }

  putSafely(key: string, value: unknown): Promise<unknown> {
    this.#map.set(key, value);
    return Promise.resolve();
  }

  batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<unknown> {
    for (let i = from; i < to; i++) this.#map.set(keys[i], values[i]);
    return Promise.resolve();
  }

  fill(keys: readonly string[], values: readonly unknown[]): Promise<unknown> {
    // Keys of its own: it would compare the very same strings by address.
    for (let i = 0; i < keys.length; i++) this.#map.set(Buffer.from(keys[i]).toString(), values[i]);
    return Promise.resolve();
  }

  scan(): number {
    throw new Error('a Map has no order of keys');
  }

  close(): Promise<unknown> {
    return Promise.resolve();
  }
}

export function openMap(): Promise<Engine> {
  return Promise.resolve(new MapEngine());
}
