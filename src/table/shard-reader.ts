/**
 * A shard as its readers see it: one lock, one hash table, its entries. This is one thread's access to it; shard.ts adds writing.
 *
 * Reads are optimistic: load the version, look up, copy the value out, load the version again; equal
 * and even means that no writer was inside. After OPTIMISTIC_ATTEMPTS the reader takes the lock. What is read meanwhile may be torn; see entry-reader.ts.
 */

import { assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import {
  ENTRY_FLAGS_MASK,
  ENTRY_FLAGS_SHIFT,
  KEY_FLAGS_MASK,
  KEY_LENGTH_MASK,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
  wordsOf,
} from '../base/record.js';
import type { Clock } from '../memory/clock.js';
import { fence, loadAcquire } from '../memory/fence.js';
import * as L from '../memory/layout.js';
import { acquireRead, releaseRead } from '../memory/lock.js';
import { AccessMarks } from '../memory/marks.js';
import type { Region } from '../memory/region.js';
import * as E from './entry.js';
import { EXPIRES_BIT, EntryReader, INVISIBLE, PACKED, TORN } from './entry-reader.js';
import { ABSENT, HashTable, RETRY } from './hash-table.js';
import type { IndexCursor } from './index-cursor.js';
import { decodeKey } from './key-codec.js';
import type { KeyProbe } from './key-probe.js';
import type { OrderedIndex } from './ordered-index.js';
import type { Scratch } from './scratch.js';
import type { ValueCodec } from './value-codec.js';

/** Tries of an optimistic read. With a writer always inside, this is some 10 µs of trying. */
const OPTIMISTIC_ATTEMPTS = 64;
/** Loads of an odd version before the next attempt. */
const ODD_SPINS = 32;
/** Versions in a chain: more than a key can have, since each takes a snapshot to be kept. */
const CHAIN_MAX = 100_000;

export interface ShardEntry {
  key: string | Uint8Array;
  value: unknown;
  lsn: number;
}

/** An entry that has expired: its key's bytes and flags, and its LSN. */
export interface ExpiredEntry {
  key: Buffer;
  flags: number;
  lsn: number;
}

/** At what moment a reader looks: what was written up to `lsn`, and what had not expired at `nowMs` of the store's clock. */
export interface View {
  readonly lsn: number;
  readonly nowMs: number;
}

/** What a shard shares with the others of its thread. */
export interface ShardContext {
  scratch: Scratch;
  codec: ValueCodec;
  clock: Clock;
  /** Slot of the thread in the registry. */
  slot: number;
  /** Absent while a store is recovered, and where none is kept. */
  index: OrderedIndex | undefined;
  /** When keys were last used, for all shards; absent or empty where nobody asks. */
  marks?: SharedArrayBuffer;
}

export class ShardReader extends EntryReader {
  readonly table: HashTable;
  readonly lockWord: number;
  readonly roundsWord: number;
  readonly entriesWord: number;
  protected readonly slot: number;
  /** Optimistic attempts that failed, since the start; read and reset by the metrics. */
  retries = 0;
  /** Word index of the entry that `get` or `has` found last, and the version under which it was found. */
  foundEntry = 0;
  foundVersion = 0;
  /** Flags of the key last read by `readAt`. */
  keyFlags = 0;
  readonly ordered: OrderedIndex | undefined;
  readonly marks: AccessMarks | undefined;

  constructor(
    region: Region,
    readonly index: number,
    context: ShardContext,
  ) {
    const { scratch, codec, clock, slot, index: ordered, marks } = context;
    const word = L.shardWord(index);
    super(region, word + L.SHARD_VERSION, scratch, codec, clock);
    this.ordered = ordered;
    this.table = new HashTable(region);
    this.marks = marks === undefined || marks.byteLength === 0 ? undefined : new AccessMarks(marks, index, region.control);
    this.slot = slot;
    this.lockWord = word;
    this.roundsWord = word + L.SHARD_VERSION_ROUNDS;
    this.entriesWord = word + L.SHARD_ENTRIES;
  }

  get entryCount(): number {
    return Atomics.load(this.control, this.entriesWord);
  }

  // Reading -----------------------------------------------------------------------------------

  /** The value of the key in the scratch, or `undefined`. */
  get(): unknown {
    const control = this.control;
    const versionWord = this.versionWord;
    for (let attempt = 0; attempt < OPTIMISTIC_ATTEMPTS; attempt++) {
      const version = loadAcquire(control, versionWord);
      if ((version & 1) === 0) {
        const entry = this.table.find(this.scratch);
        if (entry > 0) {
          const value = this.capture(entry, version, 0);
          fence(control);
          if (value !== TORN && loadAcquire(control, versionWord) === version) {
            if (this.marks !== undefined) this.marks.touch(this.scratch.keyHash);
            this.foundEntry = entry;
            this.foundVersion = version;
            return value === PACKED ? this.decode() : value === INVISIBLE ? undefined : value;
          }
        } else {
          fence(control);
          if (entry === ABSENT && loadAcquire(control, versionWord) === version) return undefined;
        }
        this.region.refresh();
      } else {
        this.awaitEven();
      }
      this.retries++;
    }
    return this.#getUnderLock();
  }

  /** Whether the key in the scratch has a value. */
  has(): boolean {
    const control = this.control;
    for (let attempt = 0; attempt < OPTIMISTIC_ATTEMPTS; attempt++) {
      const version = loadAcquire(control, this.versionWord);
      if ((version & 1) === 0) {
        const entry = this.table.find(this.scratch);
        const found = entry > 0 ? this.isVisible(entry, 0) : false;
        fence(control);
        if (entry !== RETRY && found !== TORN && loadAcquire(control, this.versionWord) === version) {
          this.foundEntry = entry;
          this.foundVersion = version;
          return found;
        }
        this.region.refresh();
      } else {
        this.awaitEven();
      }
      this.retries++;
    }
    acquireRead(control, this.lockWord, this.slot);
    try {
      this.region.sync();
      const entry = this.table.find(this.scratch);
      this.foundEntry = entry;
      this.foundVersion = Atomics.load(control, this.versionWord);
      return entry > 0 && this.isVisible(entry, 0) === true;
    } finally {
      releaseRead(control, this.lockWord, this.slot);
    }
  }

  /** The value of the key in the scratch as of a view, or `undefined`. */
  getAt(view: View): unknown {
    const value = this.#readAt(view, undefined, ABSENT, undefined, true);
    return value === INVISIBLE ? undefined : value;
  }

  /** Whether the key in the scratch had a value as of a view. */
  hasAt(view: View): boolean {
    return this.#readAt(view, undefined, ABSENT, undefined, false) !== INVISIBLE;
  }

  /**
   * Reads the entry at `unit`, to which the leaf at the cursor refers, as of a view. When the leaf has changed meanwhile the result is INVISIBLE, or
   * anything: the caller looks at the leaf once more.
   * @param key receives the key, also of an entry that the view does not see
   * @returns the value, `undefined` where `wantsValue` is false, or INVISIBLE
   */
  readAt(view: View, cursor: IndexCursor, unit: number, key: KeyProbe, wantsValue: boolean): unknown {
    const value = this.#readAt(view, cursor, unit * 2, key, wantsValue);
    this.cursor = undefined;
    return value;
  }

  /** @param from word index of an entry, or ABSENT: the key in the scratch is looked up */
  #readAt(view: View, cursor: IndexCursor | undefined, from: number, key: KeyProbe | undefined, wantsValue: boolean): unknown {
    const control = this.control;
    this.cursor = cursor;
    for (let attempt = 0; attempt < OPTIMISTIC_ATTEMPTS; attempt++) {
      const version = loadAcquire(control, this.versionWord);
      if ((version & 1) === 0) {
        // A block that the leaf does not lead to any more may have been given to anything, a long time ago and under this very version.
        if (cursor !== undefined && !cursor.isCurrent()) return INVISIBLE;
        const value = this.#captureAt(view, from, key, wantsValue, version);
        fence(control);
        if (value !== TORN && loadAcquire(control, this.versionWord) === version) {
          if (value !== PACKED) return value;
          // And it may be given away while it is read: nothing that is not a value must reach msgpackr.
          return cursor === undefined || cursor.isCurrent() ? this.decode() : INVISIBLE;
        }
        this.region.refresh();
      } else {
        this.awaitEven();
      }
      this.retries++;
    }
    acquireRead(control, this.lockWord, this.slot);
    let value: unknown;
    try {
      this.region.refresh();
      if (cursor !== undefined && !cursor.isCurrent()) return INVISIBLE;
      value = this.#captureAt(view, from, key, wantsValue, Atomics.load(control, this.versionWord));
    } finally {
      releaseRead(control, this.lockWord, this.slot);
    }
    if (value === TORN || (cursor !== undefined && !cursor.isCurrent())) return INVISIBLE;
    return value === PACKED ? this.decode() : value;
  }

  #captureAt(view: View, from: number, key: KeyProbe | undefined, wantsValue: boolean, version: number): unknown {
    let entry = from === ABSENT ? this.table.find(this.scratch) : from;
    if (entry === ABSENT) return INVISIBLE;
    if (entry === RETRY) return TORN;
    const words = this.region.words;
    if (key !== undefined) {
      if (entry + E.ENTRY_HEADER_WORDS > words.length) return TORN;
      const length = words[entry] & KEY_LENGTH_MASK;
      if (entry + E.ENTRY_HEADER_WORDS + wordsOf(length) > words.length) return TORN;
      key.setWords(words, entry + E.ENTRY_HEADER_WORDS, length);
      this.keyFlags = (words[entry] >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    }
    for (let hops = 0; ; hops++) {
      if (entry + E.ENTRY_HEADER_WORDS > words.length || hops > CHAIN_MAX) return TORN;
      if (lsnFrom(words[entry + E.ENTRY_LSN_LOW], words[entry + E.ENTRY_LSN_HIGH]) <= view.lsn) break;
      entry = words[entry + E.ENTRY_OLDER] * 2;
      if (entry === 0) return INVISIBLE;
      if (entry < 0) return TORN;
    }
    if (wantsValue) return this.capture(entry, version, view.nowMs);
    const isVisible = this.isVisible(entry, view.nowMs);
    return isVisible === true ? undefined : isVisible === false ? INVISIBLE : TORN;
  }

  #getUnderLock(): unknown {
    acquireRead(this.control, this.lockWord, this.slot);
    let value: unknown;
    try {
      this.region.sync();
      const entry = this.table.find(this.scratch);
      if (entry === ABSENT) return undefined;
      assert(entry !== RETRY, 'the hash table is whole while its lock is held');
      this.foundEntry = entry;
      this.foundVersion = Atomics.load(this.control, this.versionWord);
      value = this.capture(entry, this.foundVersion, 0);
      assert(value !== TORN, 'an entry is whole while its lock is held');
    } finally {
      releaseRead(this.control, this.lockWord, this.slot);
    }
    return value === PACKED ? this.decode() : value === INVISIBLE ? undefined : value;
  }

  protected awaitEven(): void {
    for (let i = 0; i < ODD_SPINS; i++) {
      if ((Atomics.load(this.control, this.versionWord) & 1) === 0) return;
    }
  }

  /**
   * One step of a walk over the table: the entries of one segment, as they are at one moment.
   * @param prefix where the walk is: 0 at first, then what was returned
   * @returns the next prefix, or 2^32 at the end
   */
  walk(prefix: number, into: ShardEntry[]): number {
    const control = this.control;
    const units: number[] = [];
    for (let attempt = 0; ; attempt++) {
      const underLock = attempt >= OPTIMISTIC_ATTEMPTS;
      if (underLock) acquireRead(control, this.lockWord, this.slot);
      try {
        const version = Atomics.load(control, this.versionWord);
        if ((version & 1) !== 0) {
          this.awaitEven();
          continue;
        }
        if (underLock) this.region.sync();
        into.length = 0;
        const span = this.table.collect(prefix | 0, units);
        const whole = span !== RETRY && units.every((unit) => this.#walkEntry(unit * 2, version, into));
        fence(control);
        if (whole && Atomics.load(control, this.versionWord) === version) return (prefix >>> 0) + 2 ** span;
        this.region.refresh();
      } finally {
        if (underLock) releaseRead(control, this.lockWord, this.slot);
      }
    }
  }

  /**
   * One step of a walk for entries that have expired. See `walk`.
   * @param into receives their keys and LSNs; added to, never cleared
   */
  collectExpired(prefix: number, nowMs: number, into: ExpiredEntry[]): number {
    const control = this.control;
    const units: number[] = [];
    const had = into.length;
    for (let attempt = 0; ; attempt++) {
      const underLock = attempt >= OPTIMISTIC_ATTEMPTS;
      if (underLock) acquireRead(control, this.lockWord, this.slot);
      try {
        const version = Atomics.load(control, this.versionWord);
        if ((version & 1) === 0) {
          if (underLock) this.region.sync();
          into.length = had;
          const span = this.table.collect(prefix | 0, units);
          const whole = span !== RETRY && units.every((unit) => this.#expiredEntry(unit * 2, nowMs, into));
          fence(control);
          if (whole && Atomics.load(control, this.versionWord) === version) return (prefix >>> 0) + 2 ** span;
          this.region.refresh();
        } else {
          this.awaitEven();
        }
      } finally {
        if (underLock) releaseRead(control, this.lockWord, this.slot);
      }
    }
  }

  /** @returns false when what is there cannot be right */
  #expiredEntry(entry: number, nowMs: number, into: ExpiredEntry[]): boolean {
    const { words, bytes } = this.region;
    if (entry <= 0 || entry + E.ENTRY_HEADER_WORDS > words.length) return false;
    const meta = words[entry];
    if ((meta & EXPIRES_BIT) === 0) return true;
    const isVisible = this.isVisible(entry, nowMs);
    if (isVisible === TORN) return false;
    const start = (entry + E.ENTRY_HEADER_WORDS) * 4;
    const length = meta & KEY_LENGTH_MASK;
    if (start + length > bytes.length) return false;
    if (isVisible || ((meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK) === E.TYPE_TOMBSTONE) return true;
    const flags = (meta >>> ENTRY_FLAGS_SHIFT) & KEY_FLAGS_MASK;
    into.push({ key: Buffer.from(bytes.subarray(start, start + length)), flags, lsn: lsnFrom(this.lsnLow, this.lsnHigh) });
    return true;
  }

  #walkEntry(entry: number, version: number, into: ShardEntry[]): boolean {
    const words = this.region.words;
    if (entry <= 0 || entry + E.ENTRY_HEADER_WORDS > words.length) return false;
    const meta = words[entry];
    const keyStart = (entry + E.ENTRY_HEADER_WORDS) * 4;
    const keyEnd = keyStart + (meta & 0xffff);
    if (keyEnd > this.region.bytes.length) return false;
    let value = this.capture(entry, version, 0);
    if (value === INVISIBLE) return true;
    const lsn = lsnFrom(this.lsnLow, this.lsnHigh);
    if (value === PACKED) {
      // The version is checked before decoding: torn bytes must not reach msgpackr.
      fence(this.control);
      if (Atomics.load(this.control, this.versionWord) !== version) return false;
      value = this.decode();
    }
    if (value === TORN) return false;
    const key = this.copyForDecoding(keyStart, keyEnd - keyStart);
    into.push({
      key: decodeKey(key, 0, keyEnd - keyStart, (meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK, this.scratch.hasOrderedKeys),
      value,
      lsn,
    });
    return true;
  }

  // Under the write lock ----------------------------------------------------------------------

  /** Value of an entry that `locate` found. */
  valueLocked(entry: number): unknown {
    const value = this.capture(entry, Atomics.load(this.control, this.versionWord), 0);
    return value === PACKED ? this.decode() : value === INVISIBLE ? undefined : value;
  }

  /** Whether what `locate` found has a value: it is there, not deleted, not expired. */
  isLiveLocked(entry: number): boolean {
    return entry !== ABSENT && this.isVisible(entry, 0) === true;
  }

  /** LSN of what `locate` found; 0 where it is absent, deleted, or had expired at `nowMs`. */
  liveLsnLocked(entry: number, nowMs: number): number {
    return entry !== ABSENT && this.isVisible(entry, nowMs) === true ? this.lsnLocked(entry) : 0;
  }
}
