/**
 * A shard: one lock, one hash table, its entries. This is one thread's access to it.
 *
 * Reads are optimistic: load the version, look up, copy the value out, load the version again; equal
 * and even means that no writer was inside. After OPTIMISTIC_ATTEMPTS the reader takes the lock.
 * What is read meanwhile may be torn, so it is bounds-checked, copied to private memory, and decoded
 * only after the version has been found unchanged.
 *
 * Methods whose name ends in `Locked` require the shard's write lock.
 */

import { assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import { ENTRY_FLAGS_MASK, ENTRY_FLAGS_SHIFT, OPERATION_HEADER_WORDS, VALUE_TYPE_MASK, VALUE_TYPE_SHIFT, wordsOf } from '../base/record.js';
import { fence, loadAcquire, storeRelease } from '../memory/fence.js';
import * as L from '../memory/layout.js';
import { acquireRead, releaseRead } from '../memory/lock.js';
import { reserveTop } from '../memory/chunks.js';
import { UnitSet, rebuildAllocator } from '../memory/rebuild.js';
import { REGION_KEY_BYTES, REGION_VALUE_BYTES, Region } from '../memory/region.js';
import { CLASS_LARGE, allocate, blockBytes, classAt, classOf, free } from '../memory/slabs.js';
import * as E from './entry.js';
import { ABSENT, HashTable, RETRY } from './hash-table.js';
import { decodeKey, hashWords } from './key-codec.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';
import type { ValueCodec } from './value-codec.js';

/** Tries of an optimistic read. With a writer always inside, this is some 10 µs of trying. */
const OPTIMISTIC_ATTEMPTS = 64;
/** Loads of an odd version before the next attempt. */
const ODD_SPINS = 32;
/** Above this a value's copy is worth a look at the version first: a torn length can be anything. */
const CHECKED_COPY_BYTES = 4096;
/** Up to here a loop over words beats `Buffer.copy` (25 words: 48 ns against 94 ns). */
export const WORD_COPY_MAX = 64;

/** A value captured as msgpack bytes, still to be decoded. */
const PACKED = Symbol('packed');
const TORN = Symbol('torn');

export interface ShardEntry {
  key: string | Uint8Array;
  value: unknown;
  lsn: number;
}

export class Shard {
  readonly table: HashTable;
  readonly lockWord: number;
  readonly versionWord: number;
  readonly #entriesWord: number;
  readonly #control: Int32Array;
  readonly #slot: number;
  /** Optimistic attempts that failed, since the start; read and reset by the metrics. */
  retries = 0;
  /** LSN words of the entry last captured. */
  lsnLow = 0;
  lsnHigh = 0;
  /** Length in bytes of the value last captured. */
  valueLength = 0;
  #packedBytes: Buffer;
  #packedLength = 0;
  #changeOpen = false;

  constructor(
    readonly region: Region,
    readonly index: number,
    readonly scratch: Scratch,
    readonly codec: ValueCodec,
    slot: number,
  ) {
    this.table = new HashTable(region);
    this.#control = region.control;
    this.#slot = slot;
    this.lockWord = L.shardWord(index);
    this.versionWord = this.lockWord + L.SHARD_VERSION;
    this.#entriesWord = this.lockWord + L.SHARD_ENTRIES;
    this.#packedBytes = scratch.readBytes;
  }

  get entryCount(): number {
    return Atomics.load(this.#control, this.#entriesWord);
  }

  // Reading -----------------------------------------------------------------------------------

  /** The value of the key in the scratch, or `undefined`. */
  get(): unknown {
    const control = this.#control;
    const versionWord = this.versionWord;
    for (let attempt = 0; attempt < OPTIMISTIC_ATTEMPTS; attempt++) {
      const version = loadAcquire(control, versionWord);
      if ((version & 1) === 0) {
        const entry = this.table.find(this.scratch);
        if (entry > 0) {
          const value = this.#capture(entry, version);
          fence(control);
          if (value !== TORN && Atomics.load(control, versionWord) === version) {
            return value === PACKED ? this.#decode() : value;
          }
        } else {
          fence(control);
          if (entry === ABSENT && Atomics.load(control, versionWord) === version) return undefined;
        }
        this.region.refresh();
      } else {
        this.#awaitEven();
      }
      this.retries++;
    }
    return this.#getUnderLock();
  }

  has(): boolean {
    const control = this.#control;
    for (let attempt = 0; attempt < OPTIMISTIC_ATTEMPTS; attempt++) {
      const version = Atomics.load(control, this.versionWord);
      if ((version & 1) === 0) {
        const entry = this.table.find(this.scratch);
        fence(control);
        if (entry !== RETRY && Atomics.load(control, this.versionWord) === version) return entry !== ABSENT;
        this.region.refresh();
      } else {
        this.#awaitEven();
      }
      this.retries++;
    }
    acquireRead(control, this.lockWord, this.#slot);
    try {
      this.region.sync();
      return this.table.find(this.scratch) > 0;
    } finally {
      releaseRead(control, this.lockWord, this.#slot);
    }
  }

  #getUnderLock(): unknown {
    acquireRead(this.#control, this.lockWord, this.#slot);
    let value: unknown;
    try {
      this.region.sync();
      const entry = this.table.find(this.scratch);
      if (entry === ABSENT) return undefined;
      assert(entry !== RETRY, 'the hash table is whole while its lock is held');
      value = this.#capture(entry, Atomics.load(this.#control, this.versionWord));
      assert(value !== TORN, 'an entry is whole while its lock is held');
    } finally {
      releaseRead(this.#control, this.lockWord, this.#slot);
    }
    return value === PACKED ? this.#decode() : value;
  }

  #awaitEven(): void {
    for (let i = 0; i < ODD_SPINS; i++) {
      if ((Atomics.load(this.#control, this.versionWord) & 1) === 0) return;
    }
  }

  #decode(): unknown {
    const bytes = this.#packedBytes;
    // Lets go of a large copy.
    this.#packedBytes = this.scratch.readBytes;
    return this.codec.decodeMsgpack(bytes, this.#packedLength);
  }

  /**
   * Copies the value of an entry out of shared memory.
   * @returns the value; PACKED when its bytes are in the scratch; TORN when they cannot be right
   */
  #capture(entry: number, version: number): unknown {
    const words = this.region.words;
    const meta = words[entry];
    const length = words[entry + E.ENTRY_VALUE_LENGTH];
    this.lsnLow = words[entry + E.ENTRY_LSN_LOW];
    this.lsnHigh = words[entry + E.ENTRY_LSN_HIGH];
    this.valueLength = length;
    const at = entry + E.ENTRY_HEADER_WORDS + wordsOf(meta & 0xffff);
    if (length < 0 || at + wordsOf(length) > words.length) return TORN;
    if (length > CHECKED_COPY_BYTES) {
      fence(this.#control);
      if (Atomics.load(this.#control, this.versionWord) !== version) return TORN;
    }
    const start = at * 4;
    switch ((meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK) {
      case E.TYPE_MSGPACK: {
        this.#packedLength = length;
        // An attempt that failed may have left a buffer of its own here.
        this.#packedBytes = this.scratch.readBytes;
        const count = wordsOf(length);
        if (count <= WORD_COPY_MAX) {
          const into = this.scratch.readWords;
          for (let i = 0; i < count; i++) into[i] = words[at + i];
        } else if (length <= INLINE_VALUE_BYTES_MAX) {
          this.region.bytes.copy(this.scratch.readBytes, 0, start, start + length);
        } else {
          this.#packedBytes = copyOut(this.region.bytes, start, length);
        }
        return PACKED;
      }
      case E.TYPE_ASCII:
        return this.region.bytes.latin1Slice(start, start + length);
      case E.TYPE_UTF8:
        return this.region.bytes.utf8Slice(start, start + length);
      case E.TYPE_UTF16:
        return this.region.bytes.ucs2Slice(start, start + length);
      case E.TYPE_UINT8_ARRAY: {
        const copy = copyOut(this.region.bytes, start, length);
        return new Uint8Array(copy.buffer, 0, length);
      }
      case E.TYPE_BUFFER:
        return copyOut(this.region.bytes, start, length);
      case E.TYPE_INT32:
        return words[at];
      case E.TYPE_FLOAT64:
        return floatOf(words[at], words[at + 1]);
      case E.TYPE_NULL:
        return null;
      case E.TYPE_FALSE:
        return false;
      case E.TYPE_TRUE:
        return true;
      default:
        return TORN;
    }
  }

  /**
   * One step of a walk over the table: the entries of one segment, as they are at one moment.
   * @param prefix where the walk is: 0 at first, then what was returned
   * @returns the next prefix, or 2^32 at the end
   */
  walk(prefix: number, into: ShardEntry[]): number {
    const control = this.#control;
    const units: number[] = [];
    for (let attempt = 0; ; attempt++) {
      const underLock = attempt >= OPTIMISTIC_ATTEMPTS;
      if (underLock) acquireRead(control, this.lockWord, this.#slot);
      try {
        const version = Atomics.load(control, this.versionWord);
        if ((version & 1) !== 0) {
          this.#awaitEven();
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
        if (underLock) releaseRead(control, this.lockWord, this.#slot);
      }
    }
  }

  #walkEntry(entry: number, version: number, into: ShardEntry[]): boolean {
    const words = this.region.words;
    if (entry <= 0 || entry + E.ENTRY_HEADER_WORDS > words.length) return false;
    const meta = words[entry];
    const keyStart = (entry + E.ENTRY_HEADER_WORDS) * 4;
    const keyEnd = keyStart + (meta & 0xffff);
    if (keyEnd > this.region.bytes.length) return false;
    let value = this.#capture(entry, version);
    const lsn = lsnFrom(this.lsnLow, this.lsnHigh);
    if (value === PACKED) {
      // The version is checked before decoding: torn bytes must not reach msgpackr.
      fence(this.#control);
      if (Atomics.load(this.#control, this.versionWord) !== version) return false;
      value = this.#decode();
    }
    if (value === TORN) return false;
    into.push({ key: decodeKey(this.region.bytes, keyStart, keyEnd, (meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK), value, lsn });
    return true;
  }

  // Writing -----------------------------------------------------------------------------------

  /**
   * Keeps the version odd from here to `closeChangeLocked`, over any number of puts and deletes. A batch opens
   * all its shards before it changes the first and closes them after the last, so nobody sees a part of it.
   */
  openChangeLocked(): void {
    this.#beginChange();
    this.#changeOpen = true;
  }

  closeChangeLocked(): void {
    this.#changeOpen = false;
    this.#endChange();
  }

  /**
   * Makes a shard whole whose lock's holder has died, and leaves it open for a change (see `openChangeLocked`). The lock stays
   * the dead thread's until the caller releases it. Cost: some 300 ns an entry.
   * @param held blocks that live threads hold and nothing leads to yet
   */
  repairLocked(held: readonly number[]): void {
    const { region, scratch } = this;
    region.refresh();
    const { words } = region;
    if ((this.#control[this.versionWord] & 1) === 0) this.openChangeLocked();
    else this.#changeOpen = true;
    const blocks: number[] = [];
    const live = new UnitSet(region);
    words.fill(0, REGION_KEY_BYTES, REGION_VALUE_BYTES + 2);
    let entries = 0;
    const hashOf = (unit: number): number => {
      const entry = unit * 2;
      const keyLength = words[entry] & 0xffff;
      const from = (entry + E.ENTRY_HEADER_WORDS) * 4;
      region.bytes.copy(scratch.bytes, OPERATION_HEADER_WORDS * 4, from, from + wordsOf(keyLength) * 4);
      return hashWords(scratch, keyLength);
    };
    this.table.repair(hashOf, blocks, live, (unit) => {
      entries++;
      this.#countBytes(REGION_KEY_BYTES, words[unit * 2] & 0xffff);
      this.#countBytes(REGION_VALUE_BYTES, words[unit * 2 + E.ENTRY_VALUE_LENGTH]);
    });
    for (const unit of held) if (live.add(unit)) blocks.push(unit);
    rebuildAllocator(region, blocks, live);
    Atomics.store(this.#control, this.#entriesWord, entries);
  }

  /** Readers that come from now on wait or retry. */
  #beginChange(): void {
    if (this.#changeOpen) return;
    const control = this.#control;
    storeRelease(control, this.versionWord, (control[this.versionWord] + 1) | 0);
    fence(control);
  }

  #endChange(): void {
    if (this.#changeOpen) return;
    const control = this.#control;
    storeRelease(control, this.versionWord, (control[this.versionWord] + 1) | 0);
  }

  /** Value of an entry that `locate` found. */
  valueLocked(entry: number): unknown {
    const value = this.#capture(entry, Atomics.load(this.#control, this.versionWord));
    return value === PACKED ? this.#decode() : value;
  }

  lsnLocked(entry: number): number {
    return lsnFrom(this.region.words[entry + E.ENTRY_LSN_LOW], this.region.words[entry + E.ENTRY_LSN_HIGH]);
  }

  /** Bytes of the entry that the operation in the scratch makes. */
  entryBytes(): number {
    return E.ENTRY_HEADER_BYTES + wordsOf(this.scratch.keyLength) * 4 + wordsOf(this.scratch.valueLength) * 4;
  }

  /** Whether the value in the scratch can overwrite that of `entry` where it is. */
  fitsLocked(entry: number): boolean {
    const bytes = this.entryBytes();
    if (bytes > E.IN_PLACE_BYTES_MAX) return false;
    const sizeClass = this.region.words[entry] >>> E.ENTRY_CLASS_SHIFT;
    return sizeClass !== CLASS_LARGE && bytes <= blockBytes(this.region, entry >>> 1, sizeClass);
  }

  /** Takes a block for the operation in the scratch. @returns its unit, or 0 when there is no memory */
  takeBlockLocked(): number {
    const bytes = this.entryBytes();
    return allocate(this.region, bytes, classOf(bytes));
  }

  giveBlockLocked(unit: number): void {
    free(this.region, unit, classAt(this.region, unit));
  }

  /**
   * Makes room for one insertion of the key in the scratch. Where there is no memory to split a full
   * segment, its spare slots serve.
   * @returns false when there is no memory and no slot
   */
  makeRoomLocked(): boolean {
    const hash = this.scratch.keyHash;
    if (this.table.hasRoom(hash)) return true;
    this.#beginChange();
    const made = this.table.makeRoom(hash);
    this.#endChange();
    return made || this.table.slotsFree(hash) > 0;
  }

  /** Slots free for the key in the scratch without any growth. */
  slotsFreeLocked(): number {
    return this.table.slotsFree(this.scratch.keyHash);
  }

  /** Makes sure that `count` insertions cannot fail for want of memory for the table. */
  reserveInsertionsLocked(count: number): boolean {
    return reserveTop(this.region, this.table.growthBytes(count));
  }

  /** Fills a block with header, key and value from the scratch. Its LSN follows in `putLocked`. */
  fillBlock(unit: number): void {
    const scratch = this.scratch;
    const entry = unit * 2;
    this.#writeMeta(entry, classAt(this.region, unit));
    this.region.words[entry + E.ENTRY_OLDER] = 0;
    this.#writePayload(entry + E.ENTRY_HEADER_WORDS, OPERATION_HEADER_WORDS, wordsOf(scratch.keyLength), true);
  }

  #writeMeta(entry: number, sizeClass: number): void {
    const scratch = this.scratch;
    const words = this.region.words;
    words[entry] =
      scratch.keyLength |
      (scratch.valueType << VALUE_TYPE_SHIFT) |
      (scratch.keyFlags << ENTRY_FLAGS_SHIFT) |
      (sizeClass << E.ENTRY_CLASS_SHIFT);
    words[entry + E.ENTRY_VALUE_LENGTH] = scratch.valueLength;
  }

  /** Copies the value from the scratch, and the key before it if `withKey`, to word `to`. */
  #writePayload(to: number, from: number, keyWords: number, withKey: boolean): void {
    const scratch = this.scratch;
    const words = this.region.words;
    const external = scratch.valueBytes;
    const valueWords = external === null ? wordsOf(scratch.valueLength) : 0;
    const source = withKey ? from : from + keyWords;
    const target = withKey ? to : to + keyWords;
    const count = (withKey ? keyWords : 0) + valueWords;
    if (count <= WORD_COPY_MAX) {
      const operation = scratch.words;
      for (let i = 0; i < count; i++) words[target + i] = operation[source + i];
    } else {
      scratch.bytes.copy(this.region.bytes, target * 4, source * 4, (source + count) * 4);
    }
    if (external !== null) {
      const start = (to + keyWords) * 4;
      this.region.bytes.set(external, start);
      const end = start + external.length;
      // Offsets in a region can pass 2^31: no bit operation on them.
      const padding = -external.length & 3;
      if (padding !== 0) this.region.bytes.fill(0, end, end + padding);
    }
  }

  /**
   * Applies the put in the scratch.
   * @param entry what `locate` found just now
   * @param block a filled block, or 0 to overwrite in place
   */
  putLocked(entry: number, block: number, lsnLow: number, lsnHigh: number): void {
    const region = this.region;
    const words = region.words;
    const scratch = this.scratch;
    if (block === 0) {
      this.#countBytes(REGION_VALUE_BYTES, scratch.valueLength - words[entry + E.ENTRY_VALUE_LENGTH]);
      this.#beginChange();
      this.#writeMeta(entry, words[entry] >>> E.ENTRY_CLASS_SHIFT);
      words[entry + E.ENTRY_LSN_LOW] = lsnLow;
      words[entry + E.ENTRY_LSN_HIGH] = lsnHigh;
      this.#writePayload(entry + E.ENTRY_HEADER_WORDS, OPERATION_HEADER_WORDS, wordsOf(scratch.keyLength), false);
      this.#endChange();
      return;
    }
    words[block * 2 + E.ENTRY_LSN_LOW] = lsnLow;
    words[block * 2 + E.ENTRY_LSN_HIGH] = lsnHigh;
    if (entry === ABSENT) {
      this.#countBytes(REGION_KEY_BYTES, scratch.keyLength);
      this.#countBytes(REGION_VALUE_BYTES, scratch.valueLength);
      this.#beginChange();
      this.table.insert(scratch.keyHash, block);
      this.#endChange();
      this.#control[this.#entriesWord]++;
      return;
    }
    const sizeClass = words[entry] >>> E.ENTRY_CLASS_SHIFT;
    this.#countBytes(REGION_VALUE_BYTES, scratch.valueLength - words[entry + E.ENTRY_VALUE_LENGTH]);
    this.#beginChange();
    this.table.replaceLocated(block);
    this.#endChange();
    free(region, entry >>> 1, sizeClass);
  }

  /** Removes the entry that `locate` found just now. */
  deleteLocked(entry: number): void {
    const words = this.region.words;
    const sizeClass = words[entry] >>> E.ENTRY_CLASS_SHIFT;
    this.#countBytes(REGION_KEY_BYTES, -(words[entry] & 0xffff));
    this.#countBytes(REGION_VALUE_BYTES, -words[entry + E.ENTRY_VALUE_LENGTH]);
    this.#beginChange();
    this.table.removeLocated();
    this.#endChange();
    this.#control[this.#entriesWord]--;
    free(this.region, entry >>> 1, sizeClass);
  }

  /** Adds to a 64-bit count in the region's header: low word, then high word. */
  #countBytes(at: number, delta: number): void {
    const words = this.region.words;
    const low = (words[at] >>> 0) + delta;
    words[at] = low | 0;
    if (low > 0xffff_ffff) words[at + 1]++;
    else if (low < 0) words[at + 1]--;
  }
}

function copyOut(bytes: Buffer, start: number, length: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(length);
  bytes.copy(copy, 0, start, start + length);
  return copy;
}

const floatWords = new Int32Array(2);
const floatValue = new Float64Array(floatWords.buffer);

function floatOf(low: number, high: number): number {
  floatWords[0] = low;
  floatWords[1] = high;
  return floatValue[0];
}
