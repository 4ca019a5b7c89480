/**
 * What all engines can do that are compared, each in its own best way. A call that another engine does not have is not here: what is compared is
 * a key-value store with string keys.
 */

import type { ValueKind } from '../support/data-set.js';

export interface Engine {
  /** As the tables print it, with every setting that is not a default. */
  readonly name: string;
  /** Whether `get` is there; if not, `getLater` is the engine's only read. */
  readonly readsAtOnce: boolean;
  /** A copy of the value, or `undefined`. */
  get(key: string): unknown;
  getLater(key: string): Promise<unknown>;
  /** Begins a write. Reads see it from now on, or soon. */
  put(key: string, value: unknown): void;
  /** Resolves when all writes so far are safe: on disk, if the engine was opened to be durable. */
  safe(): Promise<unknown>;
  /** One write, until it is safe. */
  putSafely(key: string, value: unknown): Promise<unknown>;
  /** Writes `keys[from]` to `keys[to - 1]` as one, until that is safe. */
  batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<unknown>;
  /** The quickest way that the engine has to write all of these, until they are safe. */
  fill(keys: readonly string[], values: readonly unknown[]): Promise<unknown>;
  /** Reads up to `limit` entries in order from `start` on, keys and values. @returns how many there were */
  scan(start: string, limit: number): number | Promise<number>;
  close(): Promise<unknown>;
}

export interface EngineSettings {
  /** An empty folder for its files. */
  folder: string;
  /** Whether a write is safe only when it is on disk. */
  durable: boolean;
  kind: ValueKind;
}

/** Operations that engines which commit each write for itself are given at once when there are many. */
export const FILL_BATCH = 1000;
