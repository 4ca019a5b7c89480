/**
 * What commands read and write: a database of the store, directly or inside a transaction. The same command runs on both.
 */

import type { Entry, FlashVector, Replacement, TransactionView } from '../index.js';
import { DATABASES, isOf, lookUpKey, numberedPrefixOf, ownKey, prefixOf, storeKey } from './key-spaces.js';
import type { Session } from './session.js';

export type Modifier = (entry: Entry | undefined) => Replacement | null | undefined;

export interface KeyRange {
  /** Keys behind this one. */
  gt?: Buffer;
  gte?: Buffer;
  lt?: Buffer;
  lte?: Buffer;
  prefix?: Buffer;
  reverse?: boolean;
}

export interface CommandStore {
  get(key: Buffer): unknown;
  has(key: Buffer): boolean;
  entry(key: Buffer): Entry | undefined;
  /** @param expiresAt ms since 1970, or 0 */
  put(key: Buffer, value: unknown, expiresAt: number): void;
  del(key: Buffer): void;
  /**
   * Replaces, removes or leaves an entry, then replies.
   * @param fn only computes; what it throws is thrown here, or rejects the promise
   * @param reply called when it has taken effect
   * @returns a promise when that is not so yet
   */
  modify(key: Buffer, fn: Modifier, reply: () => void): Promise<void> | undefined;
  /** Runs `body` with all its reads and writes as one. It may run again, so it writes its reply from the beginning each time. */
  atomically(body: (store: CommandStore) => void): Promise<void> | undefined;
  /** Keys in order. Numbered databases are not part of database 0. */
  keys(range?: KeyRange): Generator<Buffer>;
  entries(range?: KeyRange): Generator<[key: Buffer, value: unknown]>;
  count(range?: KeyRange): number;
  /** Removes all keys of the database, or of all databases. */
  clear(all: boolean): Promise<void> | undefined;
}

type StoreRange = Record<string, string | Uint8Array | boolean>;

function rangeOf(database: number, range: KeyRange): StoreRange {
  const { reverse, ...bounds } = range;
  const prefix = prefixOf(database);
  const out: StoreRange = reverse === true ? { reverse } : {};
  if (prefix !== '') out.prefix = prefix;
  for (const [name, bound] of Object.entries(bounds) as [string, Buffer | undefined][]) {
    // An empty key lies below all others.
    if (bound === undefined || bound.length === 0) continue;
    out[name] = prefix === '' ? bound : Buffer.concat([Buffer.from(prefix), bound]);
  }
  return out;
}

/** Whether nothing can lie in a range: below an empty key there is none. */
function isEmptyRange({ lt, lte }: KeyRange): boolean {
  return lt?.length === 0 || lte?.length === 0;
}

abstract class RangedStore {
  protected abstract readonly session: Session;
  protected abstract readonly source: Pick<FlashVector, 'keys' | 'entries' | 'count'> | Pick<TransactionView, 'keys' | 'entries' | 'count'>;

  *keys(range: KeyRange = {}): Generator<Buffer> {
    for (const [key] of this.#walk((bounds) => pairs(this.source.keys(bounds)), range)) yield key;
  }

  *entries(range: KeyRange = {}): Generator<[key: Buffer, value: unknown]> {
    yield* this.#walk((bounds) => this.source.entries(bounds), range);
  }

  /** Keys of database 0 lie around those of the numbered ones: where one of these is met, the walk goes on behind all of its database. */
  *#walk(
    read: (bounds: StoreRange) => Iterable<readonly [string | Uint8Array, unknown]>,
    range: KeyRange,
  ): Generator<[key: Buffer, value: unknown]> {
    const { database } = this.session;
    if (isEmptyRange(range)) return;
    const bounds = rangeOf(database, range);
    for (let isOver = false; !isOver;) {
      isOver = true;
      for (const [key, value] of read(bounds)) {
        const other = database === 0 ? numberedPrefixOf(key) : undefined;
        if (other !== undefined) {
          // The prefix ends in "!", and what comes next after all that begin with it begins with what comes next after "!".
          if (range.reverse === true) bounds.lt = other;
          else bounds.gte = `${other.slice(0, -1)}"`;
          if (range.reverse !== true) delete bounds.gt;
          else delete bounds.lte;
          isOver = false;
          break;
        }
        yield [ownKey(database, key), value];
      }
    }
  }

  count(range: KeyRange = {}): number {
    const { database } = this.session;
    if (isEmptyRange(range)) return 0;
    const bounds = rangeOf(database, range);
    let count = this.source.count(bounds);
    if (database !== 0 || count === 0) return count;
    for (let n = 1; n < DATABASES; n++) {
      const prefix = Buffer.from(prefixOf(n));
      const own = range.prefix ?? Buffer.alloc(0);
      const shared = Math.min(own.length, prefix.length);
      if (!own.subarray(0, shared).equals(prefix.subarray(0, shared))) continue;
      count -= this.source.count({ ...bounds, prefix: own.length > prefix.length ? own : prefix });
    }
    return count;
  }
}

function* pairs(keys: Iterable<string | Uint8Array>): Generator<readonly [string | Uint8Array, unknown]> {
  for (const key of keys) yield [key, undefined];
}

/** Straight on the store. Writes are acknowledged by the promises that `session.track` gets. */
export class DirectStore extends RangedStore implements CommandStore {
  readonly #db: FlashVector;

  constructor(
    protected readonly session: Session,
    protected readonly source: FlashVector,
  ) {
    super();
    this.#db = source;
  }

  get(key: Buffer): unknown {
    return this.#db.get(lookUpKey(this.session.database, key));
  }

  has(key: Buffer): boolean {
    return this.#db.has(lookUpKey(this.session.database, key));
  }

  entry(key: Buffer): Entry | undefined {
    return this.#db.getEntry(this.#key(key));
  }

  put(key: Buffer, value: unknown, expiresAt: number): void {
    const storedKey = this.#key(key);
    this.session.server.watches.touch(storedKey);
    this.session.track(expiresAt === 0 ? this.#db.put(storedKey, value) : this.#db.put(storedKey, value, { expiresAt }));
  }

  del(key: Buffer): void {
    const storedKey = this.#key(key);
    const { watches } = this.session.server;
    if (!watches.isEmpty && this.#db.has(storedKey)) watches.touch(storedKey);
    this.session.track(this.#db.del(storedKey));
  }

  modify(key: Buffer, fn: Modifier, reply: () => void): Promise<void> | undefined {
    let failure: unknown;
    // Until it has been asked: what the store refuses at once is not asked at all.
    let isWritten = true;
    const storedKey = this.#key(key);
    const { watches } = this.session.server;
    const promise = this.#db.modify(storedKey, (entry) => {
      failure = undefined;
      isWritten = false;
      try {
        const replacement = fn(entry);
        isWritten = replacement !== undefined && (replacement !== null || entry !== undefined);
        return replacement;
      } catch (error) {
        failure = error ?? new Error('a command threw nothing');
        return undefined;
      }
    });
    if (this.#db.isBackedUp) {
      this.session.replyApart();
      return promise.then(() => {
        if (failure !== undefined) throw failure;
        if (isWritten) watches.touch(storedKey);
        reply();
      });
    }
    if (failure !== undefined) {
      // Nothing was written, and what `promise` says is known.
      promise.catch(() => undefined);
      throw failure;
    }
    if (isWritten) {
      watches.touch(storedKey);
      this.session.track(promise);
    } else promise.catch(() => undefined);
    reply();
    return undefined;
  }

  atomically(body: (store: CommandStore) => void): Promise<void> | undefined {
    const { session } = this;
    session.replyApart();
    const { database } = session;
    let touched: readonly (string | Uint8Array)[] = [];
    const committed = this.#db.transaction((tx) => {
      session.database = database;
      session.reply.truncate(0);
      const store = new TransactionStore(session, tx);
      touched = store.touched;
      session.store = store;
      try {
        body(store);
      } finally {
        session.store = this;
      }
    });
    return committed.then(() => {
      for (const key of touched) session.server.watches.touch(key);
    });
  }

  clear(all: boolean): Promise<void> {
    const { session } = this;
    const db = this.#db;
    const clear = async (): Promise<void> => {
      for (const key of [...session.server.watches.keys()])
        if ((all || isOf(session.database, key)) && db.has(key)) session.server.watches.touch(key);
      if (all) {
        await db.clear();
      } else if (session.database !== 0) {
        await db.clear({ prefix: prefixOf(session.database) });
      } else {
        // Around the numbered databases, which lie between these two.
        await db.clear({ lt: '!db1!' });
        await db.clear({ gte: '!db9"' });
        const between: Buffer[] = [...this.keys({ gte: Buffer.from('!db1!'), lt: Buffer.from('!db9"') })];
        await Promise.all(between.map((key) => db.del(this.#key(key))));
      }
    };
    return session.server.gate.exclusively(clear);
  }

  #key(key: Buffer): string | Uint8Array {
    return storeKey(this.session.database, key);
  }
}

/** Inside a transaction: EXEC, and commands that touch several keys. */
class TransactionStore extends RangedStore implements CommandStore {
  readonly #tx: TransactionView;
  /** Keys that it has written or removed. */
  readonly touched: (string | Uint8Array)[] = [];

  constructor(
    protected readonly session: Session,
    protected readonly source: TransactionView,
  ) {
    super();
    this.#tx = source;
  }

  get(key: Buffer): unknown {
    return this.#tx.get(this.#key(key));
  }

  has(key: Buffer): boolean {
    return this.#tx.has(this.#key(key));
  }

  entry(key: Buffer): Entry | undefined {
    return this.#tx.getEntry(this.#key(key));
  }

  put(key: Buffer, value: unknown, expiresAt: number): void {
    const storedKey = this.#key(key);
    this.touched.push(storedKey);
    if (expiresAt === 0) this.#tx.put(storedKey, value);
    else this.#tx.put(storedKey, value, { expiresAt });
  }

  del(key: Buffer): void {
    const storedKey = this.#key(key);
    if (this.#tx.has(storedKey)) this.touched.push(storedKey);
    this.#tx.del(storedKey);
  }

  modify(key: Buffer, fn: Modifier, reply: () => void): undefined {
    const storedKey = this.#key(key);
    const entry = this.#tx.getEntry(storedKey);
    const replacement = fn(entry);
    if (replacement !== undefined && (replacement !== null || entry !== undefined)) this.touched.push(storedKey);
    if (replacement === null && entry !== undefined) this.#tx.del(storedKey);
    else if (replacement !== undefined && replacement !== null) {
      const { value, expiresAt } = replacement;
      this.#tx.put(storedKey, value, expiresAt === undefined || expiresAt === 0 ? undefined : { expiresAt });
    }
    reply();
    return undefined;
  }

  atomically(body: (store: CommandStore) => void): undefined {
    body(this);
    return undefined;
  }

  clear(all: boolean): undefined {
    if (!all) {
      for (const key of this.keys()) this.del(key);
      return undefined;
    }
    for (const key of this.#tx.keys()) {
      this.touched.push(key);
      this.#tx.del(key);
    }
    return undefined;
  }

  #key(key: Buffer): string | Uint8Array {
    return storeKey(this.session.database, key);
  }
}
