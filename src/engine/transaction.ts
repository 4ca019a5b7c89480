/**
 * A transaction as its body sees it, reading as of one moment and collecting its writes, and what is compared at its commit; run-transaction.ts runs it.
 *
 * Optimistic: nothing is locked while the body runs. Every key read is noted with the LSN found (0 for absent), every range with the LSNs of its
 * entries and their keys as far as they were read. At commit the shards of all keys read and written are locked, all shards when a range was read;
 * then what was noted is compared with what is there. If all is the same, the writes are one record, as of that moment: the transaction is as if it
 * had run then, alone. If not, the body runs again.
 */

import { FlashVectorError, describe } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import { checkTransactionPutOptions, type PutOptions } from '../base/options.js';
import {
  KEY_LENGTH_MASK,
  OPERATION_HEADER_WORDS,
  OPERATION_PUT,
  ENTRY_FLAGS_MASK,
  ENTRY_FLAGS_SHIFT,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
  wordsOf,
} from '../base/record.js';
import { encodeKey } from '../table/key-codec.js';
import { KeyProbe, compareKeys } from '../table/key-probe.js';
import type { View } from '../table/shard-reader.js';
import { decodeStored, storedExpiry } from '../table/stored-value.js';
import type { EncodedBatch } from './batch.js';
import type { Core } from './core.js';
import type { AnyKey, Entry, Key } from './key.js';
import { RangeReader, checkRange, isInside, type Bounds, type Range } from './range.js';
import { OrderedRange, type EntrySource, type RangeIterable, type RangeOrigin, type Yields } from './range-iterable.js';
import { entryOf } from './snapshot.js';
import type { Lease, Views } from './views.js';
import type { Guard } from './batch-writer.js';

/** What was read of a range: LSNs and keys of its entries in order, and whether it was read to its end. */
interface RangeRead {
  bounds: Bounds;
  lsns: number[];
  /** Bytes of the keys: writes of one record have one LSN. */
  keys: string[];
  atEnd: boolean;
}

/** What the body of a transaction gets. It is good until the body has ended. */
export interface TransactionView {
  /** As `db.get`, at the transaction's moment, its own writes included. */
  get(key: AnyKey): unknown;
  has(key: AnyKey): boolean;
  /** As `db.getEntry`; the `lsn` of what the transaction itself has written is 0. */
  getEntry(key: AnyKey): Entry | undefined;
  getMany(keys: readonly AnyKey[]): unknown[];
  /** As `db.entries`, at the transaction's moment, with the writes that it had made when the iterator was made. */
  entries(range?: Range): RangeIterable<[key: Key, value: unknown]>;
  keys(range?: Range): RangeIterable<Key>;
  values(range?: Range): RangeIterable<unknown>;
  count(range?: Range): number;
  /** Takes effect when the transaction does. @throws TypeError, FlashVectorError `FV_KEY`, `FV_VALUE`, `FV_OPTION` */
  put(key: Key, value: unknown, options?: Pick<PutOptions, 'ttl' | 'expiresAt'>): void;
  del(key: AnyKey): void;
}

export class Transaction implements TransactionView, Guard {
  readonly batch: EncodedBatch;
  readonly #core: Core;
  readonly #views: Views;
  #lease: Lease | undefined;
  #isOver = false;
  /** Keys read, each once, as deletes in a batch; and the LSN found of each. */
  readonly reads: EncodedBatch;
  readonly #readLsns: number[] = [];
  readonly #ranges: RangeRead[] = [];

  constructor(core: Core, views: Views) {
    this.#core = core;
    this.#views = views;
    this.batch = core.takeBatch();
    this.reads = core.takeBatch();
  }

  // What the body calls -----------------------------------------------------------------------

  get(key: AnyKey): unknown {
    const view = this.#begin();
    const { scratch, shards, shardMask } = this.#core;
    encodeKey(scratch, key);
    const own = this.batch.find(scratch);
    if (own >= 0) return this.#isPut(own) ? this.#ownValue(own) : undefined;
    const shard = shards[scratch.keyHash & shardMask];
    const value = shard.getAt(view);
    this.#note(value === undefined ? 0 : lsnFrom(shard.lsnLow, shard.lsnHigh));
    return value;
  }

  has(key: AnyKey): boolean {
    const view = this.#begin();
    const { scratch, shards, shardMask } = this.#core;
    encodeKey(scratch, key);
    const own = this.batch.find(scratch);
    if (own >= 0) return this.#isPut(own);
    const shard = shards[scratch.keyHash & shardMask];
    const found = shard.hasAt(view);
    this.#note(found ? lsnFrom(shard.lsnLow, shard.lsnHigh) : 0);
    return found;
  }

  getEntry(key: AnyKey): Entry | undefined {
    const view = this.#begin();
    const { scratch, shards, shardMask } = this.#core;
    encodeKey(scratch, key);
    const own = this.batch.find(scratch);
    if (own >= 0) return this.#isPut(own) ? this.#ownEntry(own) : undefined;
    const shard = shards[scratch.keyHash & shardMask];
    const value = shard.getAt(view);
    const entry = value === undefined ? undefined : entryOf(shard, value);
    this.#note(entry?.lsn ?? 0);
    return entry;
  }

  getMany(keys: readonly AnyKey[]): unknown[] {
    if (!Array.isArray(keys)) throw new TypeError(`getMany takes an array of keys, not ${describe(keys)}`);
    return keys.map((key: AnyKey) => this.get(key));
  }

  entries(range?: Range): RangeIterable<[key: Key, value: unknown]> {
    return this.#range('entries', range);
  }

  keys(range?: Range): RangeIterable<Key> {
    return this.#range('keys', range);
  }

  values(range?: Range): RangeIterable<unknown> {
    return this.#range('values', range);
  }

  count(range?: Range): number {
    return [...this.keys(range)].length;
  }

  put(key: Key, value: unknown, options?: Pick<PutOptions, 'ttl' | 'expiresAt'>): void {
    this.#begin();
    if (options !== undefined) checkTransactionPutOptions(options);
    const expiresMs = options?.ttl === undefined ? (options?.expiresAt ?? 0) : this.#core.clock.momentIn(options.ttl);
    this.batch.put(this.#core, key, value, expiresMs);
  }

  del(key: AnyKey): void {
    this.#begin();
    this.batch.del(this.#core, key);
  }

  // Reading -----------------------------------------------------------------------------------

  #begin(): View {
    if (this.#isOver) throw new FlashVectorError('FV_CLOSED', 'the transaction is over');
    this.#lease ??= this.#views.acquire();
    return this.#lease;
  }

  /** Notes the key in the scratch as read, unless it has been read before. */
  #note(lsn: number): void {
    if (this.reads.find(this.#core.scratch) >= 0) return;
    this.reads.delEncoded(this.#core);
    this.#readLsns.push(lsn);
  }

  #isPut(index: number): boolean {
    return this.batch.typeOf(index) === OPERATION_PUT;
  }

  #ownValue(index: number): unknown {
    const { codec, scratch } = this.#core;
    const { words, bytes, starts } = this.batch;
    const at = starts[index];
    const meta = words[at];
    const start = (at + OPERATION_HEADER_WORDS + wordsOf(meta & KEY_LENGTH_MASK)) * 4;
    const flags = (meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    return decodeStored(codec, scratch, (meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK, flags, bytes, start, words[at + 1]);
  }

  #ownEntry(index: number): Entry {
    const entry: Entry = { value: this.#ownValue(index), lsn: 0 };
    const { words, bytes, starts } = this.batch;
    const at = starts[index];
    const start = (at + OPERATION_HEADER_WORDS + wordsOf(words[at] & KEY_LENGTH_MASK)) * 4;
    const expiresMs = storedExpiry((words[at] >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK, bytes, start);
    if (expiresMs !== 0) entry.expiresAt = Math.ceil(expiresMs);
    return entry;
  }

  #range<T>(yields: Yields, range: Range | undefined): RangeIterable<T> {
    this.#begin();
    const core = this.#core;
    const origin: RangeOrigin = {
      core,
      views: this.#views,
      view: () => this.#begin(),
      source: (bounds, view, wantsValue) => new MergedSource(this, this.#noteRange(bounds), view, wantsValue),
    };
    return new OrderedRange<T>(origin, checkRange(core, yields, range), yields);
  }

  #noteRange(bounds: Bounds): RangeRead {
    const read: RangeRead = { bounds, lsns: [], keys: [], atEnd: false };
    this.#ranges.push(read);
    return read;
  }

  /** The transaction's own writes in a range, in the order of reading. */
  ownWrites({ bounds }: RangeRead): OwnEntry[] {
    const { words, bytes, starts } = this.batch;
    const own: OwnEntry[] = [];
    for (const index of this.batch.latest()) {
      const at = starts[index];
      const length = words[at] & KEY_LENGTH_MASK;
      const key = KeyProbe.own();
      key.setWords(words, at + OPERATION_HEADER_WORDS, length);
      if (!isInside(bounds, key)) continue;
      const flags = (words[at] >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
      const start = (at + OPERATION_HEADER_WORDS) * 4;
      own.push({
        key,
        isPut: this.#isPut(index),
        decodeKey: () => this.#core.decodeKey(bytes, start, start + length, flags),
        value: () => this.#ownValue(index),
      });
    }
    const sign = bounds.reverse ? -1 : 1;
    return own.sort((a, b) => sign * compareProbes(a.key, b.key));
  }

  readerOf(read: RangeRead, view: View, wantsValue: boolean): RangeReader {
    return new RangeReader(this.#core, read.bounds, view, wantsValue);
  }

  // Committing --------------------------------------------------------------------------------

  get needsAllShards(): boolean {
    return this.#ranges.length > 0;
  }

  holdsLocked(): boolean {
    const { shards, shardMask } = this.#core;
    const lease = this.#lease;
    if (lease === undefined) return true;
    const { reads } = this;
    for (let i = 0; i < reads.count; i++) {
      const shard = shards[reads.hashes[i] & shardMask];
      if (shard.liveLsnLocked(reads.locate(i, shard.table), lease.nowMs) !== this.#readLsns[i]) return false;
    }
    const now: View = { lsn: Number.MAX_SAFE_INTEGER, nowMs: lease.nowMs };
    return this.#ranges.every((read) => this.#isUnchanged(read, now));
  }

  #isUnchanged({ bounds, lsns, keys, atEnd }: RangeRead, now: View): boolean {
    const reader = new RangeReader(this.#core, bounds, now, false);
    for (let i = 0; i < lsns.length; i++) {
      if (!reader.advance() || lsnFrom(reader.lsnLow, reader.lsnHigh) !== lsns[i] || reader.keyBytes() !== keys[i]) return false;
    }
    return !atEnd || !reader.advance();
  }

  /** The body has ended: nothing more is read or written. What was read is still compared at the commit. */
  end(): void {
    this.#isOver = true;
    this.#lease?.release();
  }

  /** Nobody needs what it has read and written any more. */
  recycle(): void {
    this.#core.giveBatch(this.batch);
    this.#core.giveBatch(this.reads);
  }
}

/** One of a transaction's own writes, as a range meets it. */
interface OwnEntry {
  key: KeyProbe;
  isPut: boolean;
  decodeKey(): Key;
  value(): unknown;
}

function compareProbes(a: KeyProbe, b: KeyProbe): number {
  return compareKeys(a.words, a.at, a.length, b.words, b.at, b.length);
}

/** A range as a transaction sees it: the store's entries and its own writes over them. */
class MergedSource implements EntrySource {
  readonly #reader: RangeReader;
  readonly #read: RangeRead;
  readonly #own: OwnEntry[];
  #next = 0;
  readonly isPaused = false;
  /** Whether the reader stands at an entry that has not been shown. */
  #hasStored = false;
  #shown: OwnEntry | undefined;

  constructor(transaction: Transaction, read: RangeRead, view: View, wantsValue: boolean) {
    this.#read = read;
    this.#own = transaction.ownWrites(read);
    this.#reader = transaction.readerOf(read, view, wantsValue);
  }

  get value(): unknown {
    return this.#shown === undefined ? this.#reader.value : this.#shown.value();
  }

  decodeKey(): Key {
    return this.#shown === undefined ? this.#reader.decodeKey() : this.#shown.decodeKey();
  }

  advance(): boolean {
    const reader = this.#reader;
    const sign = this.#read.bounds.reverse ? -1 : 1;
    for (;;) {
      if (!this.#hasStored && !this.#read.atEnd) {
        this.#hasStored = reader.advance();
        if (this.#hasStored) {
          this.#read.lsns.push(lsnFrom(reader.lsnLow, reader.lsnHigh));
          this.#read.keys.push(reader.keyBytes());
        } else {
          this.#read.atEnd = true;
        }
      }
      const own = this.#own[this.#next];
      if (own === undefined) {
        this.#shown = undefined;
        const found = this.#hasStored;
        this.#hasStored = false;
        return found;
      }
      const order = this.#hasStored ? sign * compareProbes(own.key, reader.key) : -1;
      if (order > 0) {
        this.#shown = undefined;
        this.#hasStored = false;
        return true;
      }
      this.#next++;
      // An own write of the same key hides what is stored.
      if (order === 0) this.#hasStored = false;
      if (!own.isPut) continue;
      this.#shown = own;
      return true;
    }
  }
}
