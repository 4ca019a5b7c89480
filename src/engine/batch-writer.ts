/**
 * Writing a batch: several operations as one record of the log, of which a reader sees all or nothing.
 *
 * All shards of the batch are locked in ascending order, all memory is taken, then the batch is logged and applied under odd versions of
 * all its shards. See writer.ts for what its functions return.
 */

import { assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import { releaseWrite, tryAcquireWrite } from '../memory/lock.js';
import { EPOCH_MASK, NO_ROOM, RING_HEADROOM_BYTES } from '../memory/ring.js';
import { STAGED_RECORD_WORD } from '../memory/staging.js';
import { ENTRY_HEADER_BYTES, IN_PLACE_BYTES_MAX } from '../table/entry.js';
import { ABSENT } from '../table/hash-table.js';
import { memoryFull } from '../table/memory-full.js';
import type { OrderedIndex } from '../table/ordered-index.js';
import type { Shard } from '../table/shard.js';
import type { EncodedBatch } from './batch.js';
import type { Core } from './core.js';
import type { StagedRecords } from './staged-records.js';
import { CONFLICT, DEFER, DEFER_LOCK } from './write-result.js';

/** What must hold, once all locks are taken, for a batch to be written. */
export interface Guard {
  /** Key hashes whose shards are locked beside those of the batch. */
  readonly hashes: readonly number[];
  readonly needsAllShards: boolean;
  holdsLocked(): boolean;
}

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

  constructor(core: Core, staged: StagedRecords) {
    this.#core = core;
    this.#staged = staged;
    this.#words = core.words;
    this.#self = core.slot + 1;
    this.#wanted = new Uint8Array(core.shards.length);
    this.#insertions = new Int32Array(core.shards.length);
    this.#leastSlots = new Int32Array(core.shards.length);
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
    const locked = this.#lockShards(batch, guard, patienceMs);
    try {
      if (locked === undefined) return DEFER_LOCK;
      lsn = guard !== undefined && !guard.holdsLocked() ? CONFLICT : this.#commitBatchLocked(batch, locked, staged, bytes, durability);
      for (const shard of locked) if (shard.hasVersions()) shard.reclaimLocked(RECLAIM_MAX);
    } finally {
      if (locked !== undefined) for (const shard of locked) releaseWrite(this.#words, shard.lockWord);
      if (isStaged && lsn <= 0) core.staging.abandon(staged);
    }
    if (lsn > 0) core.ring.wakeLog(durability);
    return lsn;
  }

  /** Logs and applies a batch, all of whose shards are locked. @param staged unit of the staged record, or 0 */
  #commitBatchLocked(batch: EncodedBatch, locked: readonly Shard[], staged: number, bytes: number, durability: number): number {
    const core = this.#core;
    const { ring, index } = core;
    const epoch = this.#words[L.CONTROL_SNAPSHOT_EPOCH] & EPOCH_MASK;
    const blocks: number[] = [];
    const notes: number[] = [];
    let at = NO_ROOM;
    try {
      this.#takeBlocks(batch, blocks, notes);
      index?.lock();
      try {
        if (index !== undefined) {
          for (const shard of locked) index.pending.settleLocked(shard.index);
          if (!this.#reserveIndexLocked(batch, index)) throw memoryFull();
        }
        at = ring.reserve(staged !== 0 ? R.recordBytes(R.STAGED_BODY_WORDS) : bytes, RING_HEADROOM_BYTES, epoch);
        if (at < 0) return at === NO_ROOM ? DEFER : DEFER_LOCK;
        const low = ring.words[at + R.RECORD_LSN_LOW];
        const high = ring.words[at + R.RECORD_LSN_HIGH];
        if (staged !== 0) {
          this.#staged.publish(at, staged, bytes, durability);
        } else {
          copyBody(batch, ring.bytes, ring.words, ring.bodyAt(at));
          ring.publish(at, R.KIND_WRITE, durability);
        }
        this.#applyBatch(batch, locked, blocks, notes, low, high);
        ring.applied();
        return lsnFrom(low, high);
      } finally {
        index?.unlock();
      }
    } finally {
      if (at < 0) this.#giveBlocks(batch, blocks, notes);
    }
  }

  #reserveIndexLocked(batch: EncodedBatch, index: OrderedIndex): boolean {
    let puts = 0;
    for (let i = 0; i < batch.count; i++) if (batch.typeOf(i) === R.OPERATION_PUT) puts++;
    if (index.reserveLocked(puts, batch.keyBytesMax)) return true;
    // Not for every put, then: for those of new keys, and as many as the batch deletes and may put again.
    const { scratch, shards, shardMask } = this.#core;
    let insertions = 0;
    for (let i = 0; i < batch.count; i++) {
      batch.loadKey(i, scratch);
      const isThere = shards[scratch.keyHash & shardMask].table.locate(scratch) !== ABSENT;
      if (isThere !== (batch.typeOf(i) === R.OPERATION_PUT)) insertions++;
    }
    return index.reserveLocked(Math.min(insertions, puts), batch.keyBytesMax);
  }

  /** Locks the shards of a batch in ascending order. @returns them, or `undefined` when one is busy */
  #lockShards(batch: EncodedBatch, guard: Guard | undefined, patienceMs: number): Shard[] | undefined {
    const { shards, shardMask } = this.#core;
    const wanted = this.#wanted;
    wanted.fill(guard?.needsAllShards === true ? 1 : 0);
    for (const hash of batch.hashes) wanted[hash & shardMask] = 1;
    if (guard !== undefined) for (const hash of guard.hashes) wanted[hash & shardMask] = 1;
    const locked: Shard[] = [];
    for (let index = 0; index <= shardMask; index++) {
      if (wanted[index] === 0) continue;
      const shard = shards[index];
      if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) {
        for (const held of locked) releaseWrite(this.#words, held.lockWord);
        return undefined;
      }
      shard.region.sync();
      locked.push(shard);
    }
    return locked;
  }

  /**
   * Takes blocks for the puts, fills them, and sees to it that the tables can grow. A put that can overwrite in place needs none where
   * the batch only puts, and nothing long: an earlier put of the key then leaves an entry with room for as much or more. After deletes it may find no entry, and
   * after a long value one that is never overwritten; so with one of those among them every put gets a block. While a snapshot is open every
   * operation gets a note for the version that it may supersede, and every delete a tombstone.
   */
  #takeBlocks(batch: EncodedBatch, blocks: number[], notes: number[]): void {
    const { scratch, shards, shardMask } = this.#core;
    const withVersions = this.#words[L.CONTROL_SNAPSHOT_COUNT] !== 0;
    const insertions = this.#insertions.fill(0);
    const leastSlots = this.#leastSlots;
    const maySpare = !withVersions && isOnlyShortPuts(batch);
    for (let i = 0; i < batch.count; i++) {
      blocks.push(0);
      notes.push(0);
      const isPut = batch.typeOf(i) === R.OPERATION_PUT;
      if (!isPut && !withVersions) continue;
      batch.loadKey(i, scratch);
      const shard = shards[scratch.keyHash & shardMask];
      if (maySpare) {
        const entry = shard.table.locate(scratch);
        if (entry !== ABSENT && shard.overwritesLocked(entry)) continue;
      }
      if (isPut) {
        // A key that is there now may be deleted by the batch before it is put again: count every put.
        const slots = shard.slotsFreeLocked();
        if (insertions[shard.index]++ === 0 || slots < leastSlots[shard.index]) leastSlots[shard.index] = slots;
        blocks[i] = shard.takeBlockLocked();
        if (blocks[i] !== 0) {
          batch.loadValue(i, scratch);
          shard.fillBlock(blocks[i]);
        }
      } else {
        blocks[i] = shard.takeTombstoneLocked();
      }
      if (blocks[i] === 0) throw memoryFull();
      if (!withVersions) continue;
      notes[i] = shard.takeNoteLocked();
      if (notes[i] === 0) throw memoryFull();
    }
    // Where every segment has slots for the whole batch nothing needs to grow.
    for (let index = 0; index <= shardMask; index++) {
      const count = insertions[index];
      if (count > 0 && leastSlots[index] < count && !shards[index].reserveInsertionsLocked(count)) throw memoryFull();
    }
  }

  #giveBlocks(batch: EncodedBatch, blocks: readonly number[], notes: readonly number[]): void {
    const { scratch, shards, shardMask } = this.#core;
    for (let i = 0; i < blocks.length; i++) {
      if (blocks[i] === 0 && notes[i] === 0) continue;
      batch.loadKey(i, scratch);
      const shard = shards[scratch.keyHash & shardMask];
      shard.block = blocks[i];
      shard.note = notes[i];
      shard.giveBackLocked();
    }
  }

  #applyBatch(batch: EncodedBatch, locked: readonly Shard[], blocks: number[], notes: number[], low: number, high: number): void {
    const { scratch, shards, shardMask } = this.#core;
    for (const shard of locked) shard.openChangeLocked();
    for (let i = 0; i < batch.count; i++) {
      batch.loadKey(i, scratch);
      const shard = shards[scratch.keyHash & shardMask];
      const entry = shard.table.locate(scratch);
      const type = batch.typeOf(i);
      shard.block = blocks[i];
      shard.note = notes[i];
      if (type !== R.OPERATION_PUT) {
        if (entry === ABSENT) shard.giveBackLocked();
      } else if (blocks[i] === 0) {
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
    for (const shard of locked) shard.closeChangeLocked();
  }
}

function isOnlyShortPuts(batch: EncodedBatch): boolean {
  for (let i = 0; i < batch.count; i++) {
    if (batch.typeOf(i) !== R.OPERATION_PUT || batch.bytesOf(i) + ENTRY_HEADER_BYTES > IN_PLACE_BYTES_MAX) return false;
  }
  return true;
}

function copyBody(batch: EncodedBatch, bytes: Buffer, words: Int32Array, to: number): void {
  batch.bytes.copy(bytes, to * 4, 0, batch.length * 4);
  if ((batch.length & 1) !== 0) words[to + batch.length] = 0;
}
