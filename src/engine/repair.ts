/**
 * What is done for a thread that has died: everything that it held is made whole and let go, and the write that it
 * was in the middle of is finished or undone. Afterwards the store is as if the thread had gone on or never begun.
 *
 * Order, and why: the log lock first, because a record that was never reserved must not be taken for one that was; then
 * its snapshots; then the shards' tables, the index, which must agree with them, and the allocators, which are rebuilt from what is reachable; then, if its record was published, the
 * record is applied once more to those shards (records hold results: twice is harmless); if it was reserved and not
 * published, it becomes a SKIP record, so that the log goes on behind it. Only then are the shards' locks released.
 *
 * Works with private memory only: it runs inside other operations of this thread, whose scratch must stay.
 */

import { FlashVectorError } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import * as R from '../base/record.js';
import type { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { awaitReaders, release, releaseWrite, tryAcquireWrite } from '../memory/lock.js';
import { Region } from '../memory/region.js';
import { freeSlot, noteBlock, notedBlocks, threadWord } from '../memory/registry.js';
import { NO_ROOM, type Ring } from '../memory/ring.js';
import type { SnapshotTable } from '../memory/snapshots.js';
import { Staging } from '../memory/staging.js';
import { reconcileIndex, repairIndex } from '../table/index-repair.js';
import type { OrderedIndex } from '../table/ordered-index.js';
import { removeBareTombstonesLocked } from '../table/reclaim.js';
import { Replayer } from '../table/replay.js';
import { Scratch } from '../table/scratch.js';
import type { Shard } from '../table/shard.js';
import { repairMemoryLocked, repairTableLocked } from '../table/shard-repair.js';
import { Dictionary } from '../table/structures.js';
import { ValueCodec } from '../table/value-codec.js';
import { visitRecords } from '../wal/records.js';
import { mapShards, type Core } from './core.js';
import type { StoreHandle } from './handle.js';

/** A reader under the lock copies one value. */
const READERS_MS = 2000;

export class Repair {
  readonly #control: Control;
  readonly #words: Int32Array;
  readonly #ring: Ring;
  readonly #handle: StoreHandle;
  readonly #shards: Shard[];
  readonly #scratch: Scratch;
  readonly #dictionary: Dictionary;
  readonly #staging: Staging;
  readonly #self: number;
  readonly #index: OrderedIndex | undefined;
  readonly #snapshots: SnapshotTable;

  constructor(core: Core) {
    this.#control = core.control;
    this.#self = core.slot + 1;
    this.#words = core.words;
    this.#ring = core.ring;
    this.#handle = core.handle;
    this.#scratch = new Scratch(core.words[L.CONTROL_HASH_SEED]);
    this.#dictionary = new Dictionary(core.control, core.slot + 1, undefined);
    this.#staging = new Staging(core.handle.staging, core.control, core.slot);
    const codec = new ValueCodec(this.#scratch, this.#dictionary);
    const { shards, index } = mapShards(core.handle, core.words, core.slot, this.#scratch, codec, core.clock);
    this.#shards = shards;
    this.#index = index;
    this.#snapshots = core.snapshots;
  }

  /**
   * Repairs after the thread in `slot`, which has died and which nobody else buries, and frees the slot.
   * @returns false when a block that it held could not be given back yet, because the shard's lock is taken (perhaps by this very
   *   thread): the slot stays, to be buried again
   * @throws FlashVectorError FV_MEMORY_FULL and others when its write cannot be finished: what it held stays locked
   */
  bury(slot: number): boolean {
    const words = this.#words;
    const self = slot + 1;
    const thread = threadWord(this.#control, slot);
    for (let shard = 0; shard < this.#shards.length; shard++) {
      Atomics.and(words, L.shardWord(shard) + L.SHARD_READERS + (slot >>> 5), ~(1 << (slot & 31)));
    }
    if (Atomics.load(words, L.CONTROL_LOG_LOCK) === self) {
      this.#ring.repairLocked(slot);
      release(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
    }
    const held = this.#shards.filter((shard) => Atomics.load(words, shard.lockWord) === self);
    for (const shard of held) {
      // The dead thread may have been waiting for readers that came before it, and live.
      if (!awaitReaders(words, shard.lockWord, READERS_MS))
        throw new FlashVectorError('FV_TIMEOUT', `shard ${shard.index} is being read for ${READERS_MS} ms`);
    }
    this.#snapshots.closeAllOf(slot);
    this.#repairTables(slot, held);
    this.#finishRecord(slot, held);
    for (const shard of held) {
      shard.closeChangeLocked();
      releaseWrite(words, shard.lockWord);
    }
    if (Atomics.load(words, L.CONTROL_DICTIONARY_LOCK) === self) {
      this.#dictionary.repairLocked();
      release(words, L.CONTROL_DICTIONARY_LOCK, L.CONTROL_DICTIONARY_WAITERS);
    }
    if (Atomics.load(words, L.CONTROL_STAGING_LOCK) === self) {
      this.#staging.repairLocked();
      release(words, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS);
    }
    this.#staging.abandonAllOf(slot);
    Atomics.store(words, thread + L.THREAD_DEFERRED, 0);
    if (Atomics.exchange(words, thread + L.THREAD_WAITS_FOR_ROOM, 0) !== 0) Atomics.sub(words, L.CONTROL_ROOM_WAITERS, 1);
    if (Atomics.exchange(words, thread + L.THREAD_WAITS_FOR_ACK, 0) !== 0) Atomics.sub(words, L.CONTROL_ACK_WAITERS, 1);
    // A record that was published may have been the one to wake the log for.
    this.#control.bump(L.CONTROL_LOG_WAKE);
    if (!this.#giveBlockBack(slot, held)) return false;
    freeSlot(this.#control, slot);
    return true;
  }

  /**
   * Makes tables, index and allocators of the shards whole that the dead thread held. The index is compared with the tables before any
   * block is given back: what it refers to must be there.
   */
  #repairTables(slot: number, held: readonly Shard[]): void {
    const index = this.#index;
    const words = this.#words;
    const wasHeld = Atomics.load(words, L.CONTROL_INDEX_LOCK) === slot + 1;
    if (held.length === 0 && !wasHeld) return;
    if (index !== undefined && wasHeld) {
      repairIndex(index);
      Atomics.store(words, L.CONTROL_INDEX_LOCK, this.#self);
    } else {
      index?.lock();
    }
    try {
      for (const shard of held) index?.pending.dropLocked(shard.index);
      const found = held.map((shard) => ({ shard, blocks: repairTableLocked(shard) }));
      if (index !== undefined) {
        const contents = found.map(({ shard, blocks }) => ({ shard: shard.index, entries: blocks.entries }));
        reconcileIndex(index, contents);
        // What was used up may have been made sure of by who is waiting for this burial.
        index.replenishLocked();
      }
      for (const { shard, blocks } of found) {
        repairMemoryLocked(shard.region, blocks, notedBlocks(this.#control, shard.index, slot));
        removeBareTombstonesLocked(shard, blocks.entries);
      }
    } finally {
      index?.unlock();
    }
  }

  /** Gives back the block that the dead thread was filling, unless its shard has been rebuilt without it. */
  #giveBlockBack(slot: number, rebuilt: readonly Shard[]): boolean {
    const thread = threadWord(this.#control, slot);
    const index = Atomics.load(this.#words, thread + L.THREAD_BLOCK_SHARD) - 1;
    if (index < 0 || rebuilt.some((shard) => shard.index === index)) return true;
    const shard = this.#shards[index];
    if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, 0)) return false;
    try {
      shard.region.refresh();
      shard.giveBlockLocked(Atomics.load(this.#words, thread + L.THREAD_BLOCK_UNIT));
      noteBlock(this.#control, slot, index, 0);
    } finally {
      releaseWrite(this.#words, shard.lockWord);
    }
    return true;
  }

  #finishRecord(slot: number, held: readonly Shard[]): void {
    const ring = this.#ring;
    const at = ring.applyingOf(slot);
    if (at === NO_ROOM) return;
    if ((Atomics.load(ring.words, at + R.RECORD_STATE) & R.STATE_MASK) === R.STATE_RESERVED) {
      ring.publish(at, R.KIND_SKIP, 0);
    } else {
      this.#applyAgain(at, held);
    }
    Atomics.store(this.#words, threadWord(this.#control, slot) + L.THREAD_BUSY, 0);
  }

  #applyAgain(at: number, held: readonly Shard[]): void {
    const { words } = this.#ring;
    const lsn = lsnFrom(words[at + R.RECORD_LSN_LOW], words[at + R.RECORD_LSN_HIGH]);
    const replayer = new Replayer(this.#shards, this.#scratch, this.#dictionary, { index: 0, count: 1 });
    visitRecords(this.#recordBytes(at), 1, lsn, 'the ring', 0, {
      operation: (operation, payload, operationLsn) => replayer.operation(operation, payload, operationLsn, held),
      structure: (number, names) => {
        // Under the dictionary's lock, which is the dead thread's.
        this.#dictionary.repairLocked();
        this.#dictionary.append(number, names);
      },
    });
  }

  /** A private copy of a record, from the ring or from where it is staged. */
  #recordBytes(at: number): Buffer {
    const { words, bytes } = this.#ring;
    const kind = (words[at + R.RECORD_STATE] >>> R.KIND_SHIFT) & R.KIND_MASK;
    if (kind !== R.KIND_STAGED) return Buffer.from(bytes.subarray(at * 4, at * 4 + words[at + R.RECORD_LENGTH]));
    const offset = (words[at + R.STAGED_UNIT] >>> 0) * 8;
    const length = (words[at + R.STAGED_UNITS] >>> 0) * 8;
    const staged = new Region(this.#handle.staging, this.#words, false);
    if (offset + length > staged.bytes.length) throw new FlashVectorError('FV_IO', 'a staged record lies outside of its region');
    return Buffer.from(staged.bytes.subarray(offset, offset + length));
  }
}
