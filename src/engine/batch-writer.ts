/**
 * Writing a batch: several operations as one record of the log, of which a reader sees all or nothing.
 *
 * All shards of the batch are locked in ascending order, all memory is taken, then the batch is logged and applied under odd versions of
 * all its shards. See writer.ts for what its functions return.
 */

import { assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import * as R from '../base/record.js';
import { copyIn } from '../memory/copy.js';
import * as L from '../memory/layout.js';
import { releaseWrite, tryAcquireWrite } from '../memory/lock.js';
import { EPOCH_MASK, NO_ROOM, RING_HEADROOM_BYTES } from '../memory/ring.js';
import { STAGED_RECORD_WORD } from '../memory/staging.js';
import { WORD_COPY_MAX } from '../table/entry-reader.js';
import { ABSENT } from '../table/hash-table.js';
import { KeyProbe } from '../table/key-probe.js';
import { memoryFull } from '../table/memory-full.js';
import type { OrderedIndex } from '../table/ordered-index.js';
import { reclaimLocked } from '../table/reclaim.js';
import type { Shard } from '../table/shard.js';
import type { EncodedBatch } from './batch.js';
import type { Core } from './core.js';
import type { StagedRecords } from './staged-records.js';
import { CONFLICT, DEFER, DEFER_LOCK } from './write-result.js';

/** What must hold, once all locks are taken, for a batch to be written. */
export interface Guard {
  /** Operations whose shards are locked beside those of the batch. */
  readonly reads: EncodedBatch | undefined;
  readonly needsAllShards: boolean;
  holdsLocked(): boolean;
}

const START_OPERATIONS = 16;
/** Room for operations that is kept from one batch to the next. */
const KEPT_OPERATIONS = 16_384;

/** Old versions that a write frees on its way, if they are needed no more: more than it can add. */
export const RECLAIM_MAX = 4;

export class BatchWriter {
  readonly #core: Core;
  readonly #staged: StagedRecords;
  readonly #words: Int32Array;
  readonly #self: number;
  /** Of the batch being written, by shard: whether it is locked, keys that it may insert, and the least slots free where it does. */
  readonly #wanted: Uint8Array;
  readonly #insertions: Int32Array;
  readonly #leastSlots: Int32Array;
  /** Of the batch being written: the shards that are locked, in ascending order, and how many. */
  readonly #locked: Shard[];
  #lockedCount = 0;
  /** Of the batch being written, by operation: units of what was taken for it, or 0, and of the entry that it overwrites where it is. */
  #blocks = new Int32Array(START_OPERATIONS);
  #notes = new Int32Array(START_OPERATIONS);
  #entries = new Int32Array(START_OPERATIONS);

  constructor(core: Core, staged: StagedRecords) {
    this.#core = core;
    this.#staged = staged;
    this.#words = core.words;
    this.#self = core.slot + 1;
    this.#wanted = new Uint8Array(core.shards.length);
    this.#insertions = new Int32Array(core.shards.length);
    this.#leastSlots = new Int32Array(core.shards.length);
    this.#locked = [...core.shards];
  }

  /**
   * Writes a batch: one record, all shards locked, all memory taken before it is logged.
   * @param guard CONFLICT when it does not hold
   */
  tryBatch(batch: EncodedBatch, durability: number, patienceMs: number, guard?: Guard): number {
    const core = this.#core;
    const bytes = R.recordBytes(batch.length);
    const isStaged = bytes > core.ring.inlineBytesMax;
    const staged = isStaged ? this.#staged.take(bytes) : 0;
    if (isStaged && staged === 0) return DEFER;
    if (isStaged) {
      // Copied while no lock is held and no place in the ring waits for it.
      const region = core.staging.region;
      copyBody(batch, region.bytes, region.words, staged * 2 + STAGED_RECORD_WORD + R.RECORD_HEADER_WORDS);
    }
    let lsn = DEFER;
    let isLocked = false;
    try {
      isLocked = this.#lockShards(batch, guard, patienceMs);
      if (!isLocked) return DEFER_LOCK;
      lsn = guard !== undefined && !guard.holdsLocked() ? CONFLICT : this.#commitLocked(batch, staged, bytes, durability);
      for (let i = 0; i < this.#lockedCount; i++) if (this.#locked[i].hasVersions()) reclaimLocked(this.#locked[i], RECLAIM_MAX);
    } finally {
      if (isLocked) this.#unlockShards();
      if (isStaged && lsn <= 0) core.staging.abandon(staged);
    }
    if (lsn > 0) core.ring.wakeLog(durability);
    return lsn;
  }

  /** Logs and applies a batch, all of whose shards are locked. @param staged unit of the staged record, or 0 */
  #commitLocked(batch: EncodedBatch, staged: number, bytes: number, durability: number): number {
    const { ring, index } = this.#core;
    const epoch = this.#words[L.CONTROL_SNAPSHOT_EPOCH] & EPOCH_MASK;
    this.#prepareRoom(batch.count);
    let at = NO_ROOM;
    try {
      const overwrites = this.#takeBlocks(batch);
      // Where no key comes or goes, and no entry gets another block, the index stays as it is.
      const changed = overwrites ? undefined : index;
      changed?.lock();
      try {
        if (changed !== undefined) {
          for (let i = 0; i < this.#lockedCount; i++) changed.pending.settleLocked(this.#locked[i].index);
          if (!this.#reserveIndexLocked(batch, changed)) throw memoryFull();
        }
        at = ring.reserve(staged !== 0 ? R.recordBytes(R.STAGED_BODY_WORDS) : bytes, RING_HEADROOM_BYTES, epoch);
        if (at < 0) return at === NO_ROOM ? DEFER : DEFER_LOCK;
        return this.#logAndApplyLocked(batch, overwrites, at, staged, bytes, durability);
      } finally {
        changed?.unlock();
      }
    } finally {
      if (at < 0) this.#giveBlocks(batch);
    }
  }

  #prepareRoom(count: number): void {
    const kept = this.#blocks.length;
    if (count > kept || (kept > KEPT_OPERATIONS && count <= KEPT_OPERATIONS)) {
      let size = START_OPERATIONS;
      while (size < count) size *= 2;
      this.#blocks = new Int32Array(size);
      this.#notes = new Int32Array(size);
      this.#entries = new Int32Array(size);
      return;
    }
    for (let i = 0; i < count; i++) {
      this.#blocks[i] = 0;
      this.#notes[i] = 0;
    }
  }

  /** @param at place in the ring */
  #logAndApplyLocked(batch: EncodedBatch, overwrites: boolean, at: number, staged: number, bytes: number, durability: number): number {
    const { ring } = this.#core;
    const low = ring.words[at + R.RECORD_LSN_LOW];
    const high = ring.words[at + R.RECORD_LSN_HIGH];
    if (staged !== 0) {
      this.#staged.publish(at, staged, bytes, durability);
    } else {
      copyBody(batch, ring.bytes, ring.words, ring.bodyAt(at));
      ring.publish(at, R.KIND_WRITE, durability);
    }
    for (let i = 0; i < this.#lockedCount; i++) this.#locked[i].openChangeLocked();
    if (overwrites) this.#overwriteAll(batch, low, high);
    else this.#applyAll(batch, low, high);
    for (let i = 0; i < this.#lockedCount; i++) this.#locked[i].closeChangeLocked();
    ring.applied();
    return lsnFrom(low, high);
  }

  #reserveIndexLocked(batch: EncodedBatch, index: OrderedIndex): boolean {
    let puts = 0;
    for (let i = 0; i < batch.count; i++) if (batch.typeOf(i) === R.OPERATION_PUT) puts++;
    if (index.reserveLocked(puts, batch.keyBytesMax)) return true;
    // Not for every put, then: for those of new keys, and as many as the batch deletes and may put again.
    const { scratch, shards, shardMask } = this.#core;
    const probe = KeyProbe.ofScratch(scratch);
    return index.reserveEachLocked((visit) => {
      for (let i = 0; i < batch.count; i++) {
        batch.loadKey(i, scratch);
        probe.length = scratch.keyLength;
        const isPut = batch.typeOf(i) === R.OPERATION_PUT;
        const isThere = shards[scratch.keyHash & shardMask].table.locate(scratch) !== ABSENT;
        if (!isPut) visit(probe, false);
        if (puts !== 0 && isThere !== isPut) visit(probe, true);
      }
    });
  }

  /** Locks the shards of a batch in ascending order. @returns false, and none is locked, when one is busy */
  #lockShards(batch: EncodedBatch, guard: Guard | undefined, patienceMs: number): boolean {
    const { shards, shardMask } = this.#core;
    const wanted = this.#wanted;
    wanted.fill(guard?.needsAllShards === true ? 1 : 0);
    for (let i = 0; i < batch.count; i++) wanted[batch.hashes[i] & shardMask] = 1;
    const reads = guard?.reads;
    if (reads !== undefined) for (let i = 0; i < reads.count; i++) wanted[reads.hashes[i] & shardMask] = 1;
    this.#lockedCount = 0;
    try {
      for (let index = 0; index <= shardMask; index++) {
        if (wanted[index] === 0) continue;
        const shard = shards[index];
        if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) {
          this.#unlockShards();
          return false;
        }
        this.#locked[this.#lockedCount++] = shard;
        shard.region.sync();
      }
    } catch (error) {
      this.#unlockShards();
      throw error;
    }
    return true;
  }

  #unlockShards(): void {
    for (let i = 0; i < this.#lockedCount; i++) releaseWrite(this.#words, this.#locked[i].lockWord);
    this.#lockedCount = 0;
  }

  /**
   * Takes blocks for the puts, fills them, and sees to it that the tables can grow. A put that can overwrite in place needs none where
   * the batch only puts, and nothing long: an earlier put of the key then leaves an entry with room for as much or more. After deletes it may find no entry, and
   * after a long value one that is never overwritten; so with one of those among them every put gets a block. While a snapshot is open every
   * operation gets a note for the version that it may supersede, and every delete a tombstone.
   * @returns whether every operation overwrites in place, the entry that `#entries` says
   */
  #takeBlocks(batch: EncodedBatch): boolean {
    const { scratch, shards, shardMask } = this.#core;
    const withVersions = this.#words[L.CONTROL_SNAPSHOT_COUNT] !== 0;
    const maySpare = !withVersions && batch.hasOnlyShortPuts;
    let first = 0;
    if (maySpare) {
      first = this.#findOverwritten(batch);
      if (first === batch.count) return true;
    }
    const insertions = this.#insertions.fill(0);
    const leastSlots = this.#leastSlots;
    const blocks = this.#blocks;
    for (let i = first; i < batch.count; i++) {
      const isPut = batch.typeOf(i) === R.OPERATION_PUT;
      if (!isPut && !withVersions) continue;
      const shard = shards[batch.hashes[i] & shardMask];
      if (maySpare && i > first) {
        const entry = batch.locate(i, shard.table);
        if (entry !== ABSENT && shard.takesInPlaceLocked(entry, batch.entryBytesOf(i))) continue;
      }
      batch.loadKey(i, scratch);
      if (isPut) {
        // A key that is there now may be deleted by the batch before it is put again: count every put.
        const slots = shard.slotsFreeLocked();
        if (insertions[shard.index]++ === 0 || slots < leastSlots[shard.index]) leastSlots[shard.index] = slots;
        blocks[i] = shard.takeBlockLocked();
        if (blocks[i] !== 0) {
          batch.loadValue(i, scratch);
          shard.fillBlock(blocks[i], shard.region.takenClass);
        }
      } else {
        blocks[i] = shard.takeTombstoneLocked();
      }
      if (blocks[i] === 0) throw memoryFull();
      if (!withVersions) continue;
      this.#notes[i] = shard.takeNoteLocked();
      if (this.#notes[i] === 0) throw memoryFull();
    }
    // Where every segment has slots for the whole batch nothing needs to grow.
    for (let index = 0; index <= shardMask; index++) {
      const count = insertions[index];
      if (count > 0 && leastSlots[index] < count && !shards[index].reserveInsertionsLocked(count)) throw memoryFull();
    }
    return false;
  }

  /** Finds the entries that the puts of a batch overwrite in place, up to the first that does not. @returns its index, or their number */
  #findOverwritten(batch: EncodedBatch): number {
    const { shards, shardMask } = this.#core;
    const entries = this.#entries;
    const { count, hashes } = batch;
    for (let i = 0; i < count; i++) {
      const shard = shards[hashes[i] & shardMask];
      const entry = batch.locate(i, shard.table);
      if (entry === ABSENT || !shard.takesInPlaceLocked(entry, batch.entryBytesOf(i))) return i;
      entries[i] = entry >>> 1;
    }
    return count;
  }

  #giveBlocks(batch: EncodedBatch): void {
    const { shards, shardMask } = this.#core;
    for (let i = 0; i < batch.count; i++) {
      if (this.#blocks[i] === 0 && this.#notes[i] === 0) continue;
      const shard = shards[batch.hashes[i] & shardMask];
      shard.block = this.#blocks[i];
      shard.note = this.#notes[i];
      shard.giveBackLocked();
    }
  }

  #overwriteAll(batch: EncodedBatch, low: number, high: number): void {
    const { shards, shardMask } = this.#core;
    const { words, bytes, starts, hashes, count } = batch;
    const entries = this.#entries;
    for (let i = 0; i < count; i++)
      shards[hashes[i] & shardMask].overwriteLocked(entries[i] * 2, hashes[i], words, bytes, starts[i], low, high);
  }

  #applyAll(batch: EncodedBatch, low: number, high: number): void {
    const { scratch, shards, shardMask } = this.#core;
    for (let i = 0; i < batch.count; i++) {
      batch.loadKey(i, scratch);
      const shard = shards[scratch.keyHash & shardMask];
      const entry = shard.table.locate(scratch);
      const type = batch.typeOf(i);
      shard.block = this.#blocks[i];
      shard.note = this.#notes[i];
      if (type !== R.OPERATION_PUT) {
        if (entry === ABSENT) shard.giveBackLocked();
      } else if (shard.block === 0) {
        // Even if a snapshot has been opened since: it is of a later moment than the batch, and sees this put.
        assert(entry !== ABSENT && shard.fitsLocked(entry), 'a put without a block finds room where the key is');
        batch.loadValue(i, scratch);
      } else if (entry === ABSENT) {
        assert(shard.makeRoomLocked(), 'room for a batch was made sure of before it was logged');
      } else if (shard.overwritesLocked(entry)) {
        shard.giveBackLocked();
        batch.loadValue(i, scratch);
      }
      shard.applyLocked(type, entry, low, high);
    }
  }
}

function copyBody(batch: EncodedBatch, bytes: Buffer, words: Int32Array, to: number): void {
  const count = batch.length;
  if (count <= WORD_COPY_MAX) {
    const from = batch.words;
    for (let i = 0; i < count; i++) words[to + i] = from[i];
  } else {
    copyIn(batch.bytes, 0, bytes, to * 4, count * 4);
  }
  if ((count & 1) !== 0) words[to + count] = 0;
}
