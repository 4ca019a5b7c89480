/** lmdb-js as it opens by default; with `noSync` where nothing has to be durable. */

import path from 'node:path';
import { loadLmdb } from '../support/engines.js';
import type { Engine, EngineSettings } from './engine.js';

interface Database {
  get(key: string): unknown;
  put(key: string, value: unknown): Promise<boolean>;
  getRange(options: { start: string; limit: number }): Iterable<{ key: string; value: unknown }>;
  transaction(action: () => unknown): Promise<unknown>;
  readonly flushed: Promise<boolean>;
  close(): Promise<void>;
}

class LmdbEngine implements Engine {
  readonly name: string;
  readonly readsAtOnce = true;
  #last: Promise<unknown> | undefined;

  constructor(
    readonly db: Database,
    readonly durable: boolean,
    isSharing: boolean,
  ) {
    this.name = `lmdb-js${durable ? '' : ', noSync'}${isSharing ? ', sharedStructuresKey' : ''}`;
  }

  get(key: string): unknown {
    return this.db.get(key);
  }

  getLater(key: string): Promise<unknown> {
    return Promise.resolve(this.db.get(key));
  }

  put(key: string, value: unknown): void {
    this.#last = this.db.put(key, value);
  }

  async safe(): Promise<void> {
    await this.#last;
    if (this.durable) await this.db.flushed;
  }

  async putSafely(key: string, value: unknown): Promise<void> {
    await this.db.put(key, value);
    if (this.durable) await this.db.flushed;
  }

  async batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<void> {
    await this.db.transaction(() => {
      for (let i = from; i < to; i++) void this.db.put(keys[i], values[i]);
    });
    if (this.durable) await this.db.flushed;
  }

  fill(keys: readonly string[], values: readonly unknown[]): Promise<unknown> {
    for (let i = 0; i < keys.length; i++) this.put(keys[i], values[i]);
    return this.safe();
  }

  scan(start: string, limit: number): number {
    let count = 0;
    for (const { key, value } of this.db.getRange({ start, limit })) if (key !== '' && value !== undefined) count++;
    return count;
  }

  close(): Promise<unknown> {
    return this.db.close();
  }
}

async function openEngine({ folder, durable }: EngineSettings, isSharing: boolean): Promise<Engine> {
  const lmdb = await loadLmdb();
  if (lmdb instanceof Error) throw lmdb;
  const options = {
    path: path.join(folder, 'lmdb'),
    noSync: !durable,
    ...(isSharing ? { sharedStructuresKey: Symbol.for('structures') } : {}),
  };
  return new LmdbEngine(lmdb.open<unknown, string>(options), durable, isSharing);
}

export function openLmdbEngine(settings: EngineSettings): Promise<Engine> {
  return openEngine(settings, false);
}

/** With structures that all values share, which lmdb-js does not do unless it is told a key for them. Makes a difference for objects only. */
export function openLmdbSharing(settings: EngineSettings): Promise<Engine> {
  return openEngine(settings, true);
}
