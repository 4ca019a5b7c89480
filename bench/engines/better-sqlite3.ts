/**
 * better-sqlite3: a table of keys and values with a write-ahead log; `synchronous` FULL where writes have to be durable, else OFF.
 * Writes that nobody waits for one by one share a transaction, up to 1,000 of them: alone, each would sync.
 */

import path from 'node:path';
import { codecOf, type Codec } from './codec.js';
import { FILL_BATCH, type Engine, type EngineSettings } from './engine.js';
import { loadPeer } from './load-peer.js';

interface Statement {
  run(...parameters: unknown[]): unknown;
  get(...parameters: unknown[]): unknown;
  iterate(...parameters: unknown[]): Iterable<unknown>;
  pluck(): Statement;
  raw(): Statement;
}
interface Sqlite {
  pragma(text: string): unknown;
  exec(text: string): unknown;
  prepare(text: string): Statement;
  close(): void;
}
interface Module {
  default: new (file: string) => Sqlite;
}

class BetterSqliteEngine implements Engine {
  readonly name = 'better-sqlite3';
  readonly readsAtOnce = true;
  readonly #read: Statement;
  readonly #write: Statement;
  readonly #range: Statement;
  readonly #begin: Statement;
  readonly #commit: Statement;
  /** Writes in the transaction that is open. */
  #open = 0;

  constructor(
    readonly db: Sqlite,
    readonly codec: Codec,
  ) {
    db.exec('CREATE TABLE kv (k TEXT PRIMARY KEY, v) WITHOUT ROWID');
    this.#read = db.prepare('SELECT v FROM kv WHERE k = ?').pluck();
    this.#write = db.prepare('INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v');
    this.#range = db.prepare('SELECT k, v FROM kv WHERE k >= ? ORDER BY k LIMIT ?').raw();
    this.#begin = db.prepare('BEGIN');
    this.#commit = db.prepare('COMMIT');
  }

  get(key: string): unknown {
    const stored = this.#read.get(key) as Buffer | string | undefined;
    return stored === undefined ? undefined : this.codec.decode(stored);
  }

  getLater(key: string): Promise<unknown> {
    return Promise.resolve(this.get(key));
  }

  put(key: string, value: unknown): void {
    if (this.#open === 0) this.#begin.run();
    this.#write.run(key, this.codec.encode(value));
    if (++this.#open === FILL_BATCH) this.#end();
  }

  #end(): void {
    if (this.#open > 0) this.#commit.run();
    this.#open = 0;
  }

  safe(): Promise<unknown> {
    this.#end();
    return Promise.resolve();
  }

  putSafely(key: string, value: unknown): Promise<unknown> {
    this.#write.run(key, this.codec.encode(value));
    return Promise.resolve();
  }

  batch(keys: readonly string[], values: readonly unknown[], from: number, to: number): Promise<unknown> {
    this.#begin.run();
    for (let i = from; i < to; i++) this.#write.run(keys[i], this.codec.encode(values[i]));
    this.#commit.run();
    return Promise.resolve();
  }

  /** One transaction: one sync. */
  fill(keys: readonly string[], values: readonly unknown[]): Promise<unknown> {
    return this.batch(keys, values, 0, keys.length);
  }

  scan(start: string, limit: number): number {
    let count = 0;
    for (const row of this.#range.iterate(start, limit)) {
      const [key, stored] = row as [string, Buffer | string];
      if (key !== '' && this.codec.decode(stored) !== undefined) count++;
    }
    return count;
  }

  close(): Promise<unknown> {
    this.#end();
    this.db.close();
    return Promise.resolve();
  }
}

export async function openBetterSqlite({ folder, durable, kind }: EngineSettings): Promise<Engine> {
  const { default: Database } = (await loadPeer('better-sqlite3')) as Module;
  const db = new Database(path.join(folder, 'sqlite.db'));
  db.pragma('journal_mode = WAL');
  db.pragma(`synchronous = ${durable ? 'FULL' : 'OFF'}`);
  return new BetterSqliteEngine(db, codecOf(kind));
}
