/**
 * Reading a whole shard while others write to it: for checkpoints and backups.
 *
 * The references of one segment of the hash table are collected under one version: that is short. Then each
 * entry is copied by itself. An entry that changed or went meanwhile has an LSN past the start of the capture, so the log
 * has it, and whichever state is copied, or none, is right. What must not happen, and does not:
 *
 * - That an entry nobody touches is left out because others moved: references are collected at once.
 * - That a block is copied that holds no entry any more: after the copy the table must still
 *   refer to the block by the same hash, under an unchanged version.
 *
 * A long value is copied in pieces; after each piece the table must still refer to the entry and its LSN be the same.
 */

import { assert } from '../base/errors.js';
import { wordsOf } from '../base/record.js';
import { copyOut } from '../memory/copy.js';
import { fence } from '../memory/fence.js';
import { acquireRead, releaseRead } from '../memory/lock.js';
import * as E from './entry.js';
import { RETRY } from './hash-table.js';
import type { Shard } from './shard.js';

/** A cache line. */
const LINE_WORDS = 16;
/** Entries that are fetched at once. */
const AHEAD = 16;
/** Tries before the shard's lock is taken for reading. */
const ATTEMPTS = 64;
const META_BITS = 0x00ff_ffff;
/** Header of a captured entry, in words: word 0, value length, LSN low, LSN high. */
const HEAD_WORDS = 4;

const GONE = 0;
const AGAIN = -1;

export class Capture {
  readonly #hashes: number[] = [];
  readonly #units: number[] = [];
  #next = 0;
  /** Index of the first entry that has not been fetched ahead. */
  #fetchedTo = 0;
  /** Keeps the loads of `#fetchAhead` from being optimized away. */
  fetched = 0;
  #prefix = 0;
  /** LSN words, key length and first value word of the long entry under way. */
  #longLow = 0;
  #longHigh = 0;

  /** @param slot of the calling thread in the registry */
  constructor(
    readonly shard: Shard,
    readonly slot: number,
  ) {}

  /** Share of the shard that has been captured, 0 to 1. */
  get done(): number {
    return Math.min(1, this.#prefix / 0x1_0000_0000);
  }

  /** See EntrySource in checkpoint/part-writer.ts. */
  next(into: Int32Array, at: number, limit: number): number {
    for (;;) {
      if (this.#next === this.#units.length && !this.#collect()) return 0;
      if (this.#next >= this.#fetchedTo) this.#fetchAhead();
      const words = this.#read((attempt) => this.#copy(into, at, limit, attempt));
      // Words needed, as a negative number: the entry stays the next one.
      if (words < AGAIN) return words + 1;
      this.#next++;
      if (words !== GONE) return words;
    }
  }

  openLong(into: Int32Array, at: number): number {
    return this.#read(() => {
      const { words } = this.shard.region;
      const entry = this.#current();
      if (entry === GONE) return GONE;
      const meta = words[entry];
      const count = HEAD_WORDS + wordsOf(meta & 0xffff);
      if (entry + 1 + count > words.length || at + count > into.length) return AGAIN;
      this.#longLow = words[entry + E.ENTRY_LSN_LOW];
      this.#longHigh = words[entry + E.ENTRY_LSN_HIGH];
      this.#copyHead(into, at, entry, count);
      return count;
    });
  }

  readLong(offset: number, into: Buffer, at: number, length: number): boolean {
    const copied = this.#read(() => {
      const { words, bytes } = this.shard.region;
      const entry = this.#current();
      if (entry === GONE) return GONE;
      if (words[entry + E.ENTRY_LSN_LOW] !== this.#longLow || words[entry + E.ENTRY_LSN_HIGH] !== this.#longHigh) return GONE;
      const start = (entry + E.ENTRY_HEADER_WORDS + wordsOf(words[entry] & 0xffff)) * 4 + offset;
      if (start + length > bytes.length) return AGAIN;
      copyOut(bytes, start, into, at, length);
      return length;
    });
    return copied === length;
  }

  /** Ends the long entry: copied or given up, it is not the next one any more. */
  closeLong(): void {
    this.#next++;
  }

  /**
   * Fetches the next entries into the cache, all at once: their memory lies anywhere, and one after the other would be waited for. What is loaded is not
   * looked at; it may be anything.
   */
  #fetchAhead(): void {
    const { words } = this.shard.region;
    const to = Math.min(this.#units.length, this.#next + AHEAD);
    let sum = 0;
    for (let i = this.#next; i < to; i++) {
      const entry = this.#units[i] * 2;
      if (entry + 2 * LINE_WORDS < words.length) sum ^= words[entry] ^ words[entry + LINE_WORDS] ^ words[entry + 2 * LINE_WORDS];
    }
    this.fetched = sum;
    this.#fetchedTo = to;
  }

  /** Collects the references of the next segment that has any. @returns false at the end */
  #collect(): boolean {
    while (this.#prefix < 0x1_0000_0000) {
      const span = this.#read(() => {
        const exponent = this.shard.table.collect(this.#prefix | 0, this.#units, this.#hashes);
        return exponent === RETRY ? AGAIN : exponent + 1;
      });
      this.#next = 0;
      this.#fetchedTo = 0;
      this.#prefix += 2 ** (span - 1);
      if (this.#units.length !== 0) return true;
    }
    this.#units.length = 0;
    return false;
  }

  /**
   * Runs `attempt` until the version was even and the same before and after it; under the shard's lock
   * when that does not happen. @param attempt AGAIN when what it read cannot be right
   */
  #read(attempt: (underLock: boolean) => number): number {
    const { shard } = this;
    const { region } = shard;
    for (let i = 0; i < ATTEMPTS; i++) {
      const version = Atomics.load(region.control, shard.versionWord);
      if ((version & 1) === 0) {
        const result = attempt(false);
        fence(region.control);
        if (result !== AGAIN && Atomics.load(region.control, shard.versionWord) === version) return result;
        region.refresh();
      }
    }
    acquireRead(region.control, shard.lockWord, this.slot);
    try {
      region.refresh();
      const result = attempt(true);
      assert(result !== AGAIN, 'a shard is whole while its lock is held');
      return result;
    } finally {
      releaseRead(region.control, shard.lockWord, this.slot);
    }
  }

  /** Word index of the entry that is next, or GONE when the table does not refer to it any more. */
  #current(): number {
    const unit = this.#units[this.#next];
    if (!this.shard.table.refersTo(this.#hashes[this.#next], unit)) return GONE;
    // Deleted: what it was before is nothing that a checkpoint needs.
    return E.isTombstone(this.shard.region.words, unit * 2) ? GONE : unit * 2;
  }

  #copy(into: Int32Array, at: number, limit: number, underLock: boolean): number {
    const { words } = this.shard.region;
    const entry = this.#current();
    if (entry === GONE) return GONE;
    const keyWords = wordsOf(words[entry] & 0xffff);
    const valueLength = words[entry + E.ENTRY_VALUE_LENGTH];
    if (valueLength < 0) return AGAIN;
    const payload = keyWords + wordsOf(valueLength);
    if (entry + E.ENTRY_HEADER_WORDS + payload > words.length) return AGAIN;
    const count = HEAD_WORDS + payload;
    if (at + count > limit) return -count - 1;
    this.#copyHead(into, at, entry, count);
    assert(!underLock || into[at] !== 0, 'an entry has a key');
    return count;
  }

  #copyHead(into: Int32Array, at: number, entry: number, count: number): void {
    const { words } = this.shard.region;
    into[at] = words[entry] & META_BITS;
    into[at + 1] = words[entry + E.ENTRY_VALUE_LENGTH];
    into[at + 2] = words[entry + E.ENTRY_LSN_LOW];
    into[at + 3] = words[entry + E.ENTRY_LSN_HIGH];
    const from = entry + E.ENTRY_HEADER_WORDS - HEAD_WORDS;
    for (let i = HEAD_WORDS; i < count; i++) into[at + i] = words[from + i];
  }
}
