/**
 * Puts of long values, and deletes of long keys: records too long for the ring. See writer.ts for the path of all others.
 *
 * The entry's block and the staged record are filled while no lock is held, so that nobody waits for the copies.
 */

import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import { releaseWrite, tryAcquireWrite } from '../memory/lock.js';
import { noteBlock } from '../memory/registry.js';
import { EPOCH_MASK, NO_ROOM, RING_HEADROOM_BYTES } from '../memory/ring.js';
import { STAGED_RECORD_WORD } from '../memory/staging.js';
import { ABSENT } from '../table/hash-table.js';
import { memoryFull } from '../table/memory-full.js';
import { copyOperation } from '../table/operation-copy.js';
import type { Shard } from '../table/shard.js';
import type { Core } from './core.js';
import type { StagedRecords } from './staged-records.js';
import { CONFLICT, DEFER, DEFER_LOCK, holds, type Condition } from './write-result.js';

/** Longest wait for a lock to give a block back under it. */
const GIVE_BACK_MS = 100;

export class StagedWrites {
  readonly #core: Core;
  readonly #words: Int32Array;
  readonly #self: number;
  readonly #records: StagedRecords;

  constructor(core: Core, records: StagedRecords) {
    this.#core = core;
    this.#words = core.words;
    this.#self = core.slot + 1;
    this.#records = records;
  }

  /** Writes the put or delete in the scratch. @param bytes of its record @returns an LSN, DEFER, DEFER_LOCK or CONFLICT @throws FlashVectorError FV_MEMORY_FULL */
  tryWrite(shard: Shard, type: number, bytes: number, condition: Condition, durability: number, patienceMs: number): number {
    const core = this.#core;
    const scratch = core.scratch;
    const staged = this.#records.take(bytes);
    if (staged === 0) return DEFER;
    let block = 0;
    let sizeClass = 0;
    let lsn = DEFER;
    try {
      if (type === R.OPERATION_PUT) {
        if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) return DEFER_LOCK;
        try {
          shard.region.sync();
          block = shard.takeBlockLocked();
          sizeClass = shard.region.takenClass;
          // Nothing leads to it while it is filled, and no lock is held: a repair must know of it.
          if (block !== 0) noteBlock(core.control, core.slot, shard.index, block);
        } finally {
          releaseWrite(this.#words, shard.lockWord);
        }
        if (block === 0) throw memoryFull();
        shard.fillBlock(block, sizeClass);
      }
      const region = core.staging.region;
      copyOperation(scratch, type, region.words, region.bytes, staged * 2 + STAGED_RECORD_WORD + R.RECORD_HEADER_WORDS);
      if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) return DEFER_LOCK;
      try {
        shard.region.sync();
        const entry = shard.table.locate(scratch);
        lsn =
          condition === 'none' || holds(shard, entry, condition)
            ? this.#commitLocked(shard, entry, type, block, staged, bytes, durability)
            : CONFLICT;
        if (lsn > 0) {
          noteBlock(core.control, core.slot, shard.index, 0);
          block = 0;
          core.ring.applied();
        }
      } finally {
        if (block !== 0) {
          shard.giveBlockLocked(block);
          noteBlock(core.control, core.slot, shard.index, 0);
          block = 0;
        }
        releaseWrite(this.#words, shard.lockWord);
      }
    } finally {
      if (block !== 0) this.#giveBlock(shard, block);
      if (lsn <= 0) core.staging.abandon(staged);
    }
    if (lsn > 0) core.ring.wakeLog(durability);
    return lsn;
  }

  /** Logs and applies what is staged. `block` is the filled block of a put, 0 for a delete. */
  #commitLocked(shard: Shard, entry: number, type: number, block: number, staged: number, bytes: number, durability: number): number {
    const core = this.#core;
    const epoch = this.#words[L.CONTROL_SNAPSHOT_EPOCH] & EPOCH_MASK;
    const isPut = type === R.OPERATION_PUT;
    if (isPut && entry === ABSENT && !shard.makeRoomLocked()) throw memoryFull();
    if (!(isPut ? shard.prepareNoteLocked(entry) : shard.prepareLocked(type, entry))) throw memoryFull();
    const ordered = shard.touchesIndex ? shard.ordered : undefined;
    let at = NO_ROOM;
    try {
      ordered?.lockFor(shard.index);
      try {
        if (ordered !== undefined && !shard.reserveIndexLocked(entry)) throw memoryFull();
        at = core.ring.reserve(R.recordBytes(R.STAGED_BODY_WORDS), RING_HEADROOM_BYTES, epoch);
        if (at < 0) return at === NO_ROOM ? DEFER : DEFER_LOCK;
        const lsn = this.#records.publish(at, staged, bytes, durability);
        if (isPut) shard.block = block;
        shard.applyLocked(type, entry, core.ring.words[at + R.RECORD_LSN_LOW], core.ring.words[at + R.RECORD_LSN_HIGH]);
        return lsn;
      } finally {
        ordered?.unlock();
      }
    } finally {
      if (at < 0) shard.giveBackLocked();
    }
  }

  #giveBlock(shard: Shard, block: number): void {
    // The lock was busy a moment ago, and the block would be lost for good, so this one waits. It may wait
    // until the shard has been repaired: the block is noted, so it is still this thread's.
    const { control, slot } = this.#core;
    if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, GIVE_BACK_MS)) return;
    try {
      shard.region.sync();
      shard.giveBlockLocked(block);
      noteBlock(control, slot, shard.index, 0);
    } finally {
      releaseWrite(this.#words, shard.lockWord);
    }
  }
}
