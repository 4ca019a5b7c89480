/**
 * Brings the entries of a checkpoint into the tables, before anybody but other loaders uses them.
 *
 * The hash is seeded anew at every open, so a part's entries fall into any shard, and loaders that
 * work in parallel take the shards' locks. A checkpoint may hold a key twice; the younger entry counts.
 */

import {
  ENTRY_FLAGS_MASK,
  ENTRY_FLAGS_SHIFT,
  OPERATION_HEADER_WORDS,
  OPERATION_PUT,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
} from '../base/record.js';
import { lsnFrom } from '../base/lsn.js';
import { FlashVectorError } from '../base/errors.js';
import { SHARD_LOCK } from '../memory/layout.js';
import { releaseWrite, tryAcquireAtOnce, tryAcquireWrite } from '../memory/lock.js';
import { ABSENT } from './hash-table.js';
import { hashWords } from './key-codec.js';
import { memoryFull } from './memory-full.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';
import type { Shard } from './shard.js';
import { WORD_COPY_MAX } from './entry-reader.js';

/** What a part reader says of an entry; offsets are into `payload`, in bytes and multiples of 4. */
export interface LoadedEntry {
  /** The payload as words. */
  words: Int32Array;
  meta: number;
  keyLength: number;
  valueLength: number;
  lsnLow: number;
  lsnHigh: number;
  keyStart: number;
  valueStart: number;
}

/** Another loader holds a lock for microseconds, or, where memory is touched for the first time, for some tens of them. */
const PATIENCE_MS = 10_000;

export class Loader {
  loaded = 0;

  /** @param self nonzero, and another one in each loader */
  constructor(
    readonly shards: readonly Shard[],
    readonly scratch: Scratch,
    readonly self: number,
  ) {}

  /** Loads an entry, and waits for its shard. @throws FlashVectorError FV_TIMEOUT when another loader keeps that for too long; FV_MEMORY_FULL */
  entry(entry: LoadedEntry, payload: Buffer): void {
    const shard = this.#stage(entry, payload);
    if (!tryAcquireWrite(shard.region.control, shard.lockWord, this.self, PATIENCE_MS)) {
      throw new FlashVectorError('FV_TIMEOUT', `shard ${shard.index} stayed locked for ${PATIENCE_MS} ms while the store was loaded`);
    }
    this.#insertAndRelease(shard, entry);
  }

  /** Loads an entry unless another loader has its shard at this moment. @returns whether it did @throws FlashVectorError FV_MEMORY_FULL */
  offer(entry: LoadedEntry, payload: Buffer): boolean {
    const shard = this.#stage(entry, payload);
    if (!tryAcquireAtOnce(shard.region.control, shard.lockWord + SHARD_LOCK, this.self)) return false;
    this.#insertAndRelease(shard, entry);
    return true;
  }

  /** Puts an entry into the scratch. @returns its shard */
  #stage(entry: LoadedEntry, payload: Buffer): Shard {
    const scratch = this.scratch;
    const keyStart = OPERATION_HEADER_WORDS * 4;
    const valueEnd = entry.valueStart + ((entry.valueLength + 3) & ~3);
    scratch.keyLength = entry.keyLength;
    scratch.keyFlags = (entry.meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    scratch.valueType = (entry.meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK;
    scratch.valueLength = entry.valueLength;
    if (entry.valueLength > INLINE_VALUE_BYTES_MAX) {
      payload.copy(scratch.bytes, keyStart, entry.keyStart, entry.valueStart);
      scratch.valueBytes = payload.subarray(entry.valueStart, entry.valueStart + entry.valueLength);
    } else {
      // Key and value lie behind each other here as there, padding included.
      const { words } = entry;
      const from = entry.keyStart >>> 2;
      const count = (valueEnd - entry.keyStart) >>> 2;
      if (count > WORD_COPY_MAX) payload.copy(scratch.bytes, keyStart, entry.keyStart, valueEnd);
      else for (let i = 0; i < count; i++) scratch.words[OPERATION_HEADER_WORDS + i] = words[from + i];
      scratch.valueBytes = null;
    }
    scratch.keyHash = hashWords(scratch, entry.keyLength);
    return this.shards[scratch.keyHash & (this.shards.length - 1)];
  }

  #insertAndRelease(shard: Shard, entry: LoadedEntry): void {
    try {
      this.#insert(shard, entry);
    } finally {
      releaseWrite(shard.region.control, shard.lockWord);
    }
    this.loaded++;
  }

  #insert(shard: Shard, entry: LoadedEntry): void {
    shard.region.sync();
    const there = shard.table.locate(this.scratch);
    if (there !== ABSENT && shard.lsnLocked(there) >= lsnFrom(entry.lsnLow, entry.lsnHigh)) return;
    if (!shard.prepareLocked(OPERATION_PUT, there)) throw memoryFull();
    shard.applyLocked(OPERATION_PUT, there, entry.lsnLow, entry.lsnHigh);
  }
}
