/**
 * Sublevels: a part of the store under a name, with keys of its own encoding. A key of a sublevel is one of the store that begins with `!name!`, so
 * everything that holds for the store holds for it: batches and transactions reach over several, and a sublevel may have sublevels.
 *
 * The encoding of its keys is its own: what the store's keys are does not matter to it. A key of a sublevel that itself begins with `!name!` is one of the sublevel
 * `name` in it; so keys that come from outside, and may begin like that, need another first character put before them.
 */

import { FlashVectorError, describe } from '../base/errors.js';
import { checkSublevelOptions, type DeleteOptions, type PutOptions, type SublevelOptions, type WriteOptions } from '../base/options.js';
import { ENTRY_FLAG_BINARY_KEY, ENTRY_FLAG_FOREIGN_KEY } from '../base/record.js';
import { RawKey } from '../table/key-codec.js';
import { decodeOrderedKey, encodeOrderedKey, encodeOrderedPrefix } from '../table/ordered-keys.js';
import type { FlashVector } from './database.js';
import type { AnyKey, Entry, Key } from './key.js';
import type { Range } from './range.js';
import type { RangeIterable } from './range-iterable.js';
import type { Snapshot } from './snapshot.js';
import type { BatchOperation } from './store-writes.js';

/** A range of a sublevel's keys, and the moment at which it is read. */
export interface SublevelRange extends Range {
  snapshot?: Snapshot;
}

export class Sublevel {
  readonly #db: FlashVector;
  readonly #prefix: Buffer;
  readonly #isOrdered: boolean;
  readonly #isForeign: boolean;

  /** @internal Use `db.sublevel()`. */
  constructor(db: FlashVector, parentPrefix: Buffer, name: string, options: SublevelOptions) {
    if (typeof name !== 'string') throw new TypeError(`sublevel: name must be a string, not ${describe(name)}`);
    if (!/^[^!\0]{1,255}$/.test(name) || !(name as string & { isWellFormed(): boolean }).isWellFormed())
      throw new FlashVectorError('FV_OPTION', `sublevel: name is ${describe(name)}; allowed are 1 to 255 characters but "!" and "\\0"`);
    checkSublevelOptions(options);
    this.#db = db;
    this.#prefix = Buffer.concat([parentPrefix, Buffer.from(`!${name}!`)]);
    this.#isOrdered = options.keyEncoding === 'ordered';
    this.#isForeign = this.#isOrdered || db.hasOrderedKeys;
  }

  /** A key of the store. @throws TypeError, FlashVectorError FV_KEY */
  #raw(key: AnyKey): Key {
    let bytes: Uint8Array;
    // A string under a string prefix is a string of the store, too; everything else is bytes to it.
    let flags = this.#isForeign ? ENTRY_FLAG_FOREIGN_KEY : 0;
    if (this.#isOrdered) bytes = encodeOrderedKey(key);
    else if (key instanceof Uint8Array) [bytes, flags] = [key, flags | ENTRY_FLAG_BINARY_KEY];
    else if (typeof key === 'string') bytes = bytesOf(key);
    else throw new TypeError(`a key must be a string or a Uint8Array, not ${describe(key)}`);
    if (bytes.length === 0) throw new FlashVectorError('FV_KEY', 'a key has at least 1 byte');
    return rawKey(Buffer.concat([this.#prefix, bytes]), flags);
  }

  /** A key of the sublevel, as the user sees it. */
  #own(bytes: Buffer, flags: number): Key {
    const own = bytes.subarray(this.#prefix.length);
    if (this.#isOrdered) return decodeOrderedKey(own) as string;
    return (flags & ENTRY_FLAG_BINARY_KEY) === 0 ? own.toString('utf8') : Uint8Array.prototype.slice.call(own);
  }

  /** A range of the store that lies within the sublevel. */
  #rangeOf(range: SublevelRange = {}): SublevelRange {
    if (typeof range !== 'object' || range === null || Array.isArray(range) || range instanceof Uint8Array)
      throw new TypeError(`a range is an object such as { gte: 'a', lt: 'b' }, not ${describe(range)}`);
    const { gt, gte, lt, lte, prefix, ...rest } = range;
    const within: SublevelRange = { ...rest, prefix: rawKey(this.#prefix, 0) };
    if (gt !== undefined) within.gt = this.#raw(gt);
    if (gte !== undefined) within.gte = this.#raw(gte);
    if (lt !== undefined) within.lt = this.#raw(lt);
    if (lte !== undefined) within.lte = this.#raw(lte);
    if (prefix !== undefined) {
      const bytes = this.#isOrdered ? encodeOrderedPrefix(prefix) : typeof prefix === 'string' ? bytesOf(prefix) : (prefix as Uint8Array);
      within.prefix = rawKey(Buffer.concat([this.#prefix, bytes]), 0);
    }
    return within;
  }

  /** As `db.get`, and so on for every call of the same name. */
  get(key: AnyKey): unknown {
    return this.#db.get(this.#raw(key));
  }

  has(key: AnyKey): boolean {
    return this.#db.has(this.#raw(key));
  }

  getMany(keys: readonly AnyKey[]): unknown[] {
    if (!Array.isArray(keys)) throw new TypeError(`getMany takes an array of keys, not ${describe(keys)}`);
    return this.#db.getMany(keys.map((key: AnyKey) => this.#raw(key)));
  }

  getEntry(key: AnyKey): Entry | undefined {
    return this.#db.getEntry(this.#raw(key));
  }

  ttl(key: AnyKey): number {
    return this.#db.ttl(this.#raw(key));
  }

  entries(range?: SublevelRange): RangeIterable<[key: Key, value: unknown]> {
    return this.#db.rawRange('entries', this.#rangeOf(range), (bytes, flags) => this.#own(bytes, flags));
  }

  keys(range?: SublevelRange): RangeIterable<Key> {
    return this.#db.rawRange('keys', this.#rangeOf(range), (bytes, flags) => this.#own(bytes, flags));
  }

  values(range?: SublevelRange): RangeIterable<unknown> {
    return this.#db.rawRange('values', this.#rangeOf(range), (bytes, flags) => this.#own(bytes, flags));
  }

  count(range?: SublevelRange): number {
    return this.#db.count(this.#rangeOf(range));
  }

  put(key: AnyKey, value: unknown, options?: PutOptions): Promise<number> {
    return this.#with(key, (raw) => this.#db.put(raw, value, options));
  }

  del(key: AnyKey, options?: DeleteOptions): Promise<number> {
    return this.#with(key, (raw) => this.#db.del(raw, options));
  }

  batch(operations: readonly BatchOperation[], options?: WriteOptions): Promise<number> {
    try {
      if (!Array.isArray(operations)) throw new TypeError(`batch takes an array of operations, not ${describe(operations)}`);
      return this.#db.batch(
        operations.map((operation: BatchOperation) => ({ ...operation, key: this.#raw(operation.key) })),
        options,
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  increment(key: AnyKey, by?: number, options?: WriteOptions): Promise<number> {
    return this.#with(key, (raw) => this.#db.increment(raw, by, options));
  }

  update<V = unknown>(key: AnyKey, fn: (value: V | undefined) => V, options?: WriteOptions): Promise<V> {
    return this.#with(key, (raw) => this.#db.update(raw, fn, options));
  }

  expire(key: AnyKey, ttl: number, options?: WriteOptions): Promise<boolean> {
    return this.#with(key, (raw) => this.#db.expire(raw, ttl, options));
  }

  persist(key: AnyKey, options?: WriteOptions): Promise<boolean> {
    return this.#with(key, (raw) => this.#db.persist(raw, options));
  }

  clear(range?: Range, options?: WriteOptions): Promise<number> {
    try {
      return this.#db.clear(this.#rangeOf(range), options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The store's key for one of the sublevel's: for batches and transactions that reach over several. */
  keyOf(key: AnyKey): Key {
    return this.#raw(key);
  }

  sublevel(name: string, options: SublevelOptions = {}): Sublevel {
    return new Sublevel(this.#db, this.#prefix, name, options);
  }

  #with<T>(key: AnyKey, write: (raw: Key) => Promise<T>): Promise<T> {
    try {
      return write(this.#raw(key));
    } catch (error) {
      return Promise.reject(error);
    }
  }
}

/** Typed as what it stands for: nobody outside looks into it. */
function rawKey(bytes: Uint8Array, flags: number): Key {
  return new RawKey(bytes, flags) as unknown as Key;
}

function bytesOf(key: string): Buffer {
  if (!(key as string & { isWellFormed(): boolean }).isWellFormed())
    throw new FlashVectorError(
      'FV_KEY',
      `a key that is a string must be well-formed Unicode; this one has a lone surrogate: ${describe(key)}`,
    );
  return Buffer.from(key);
}
