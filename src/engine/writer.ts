/**
 * The write path of one thread: log, then apply.
 *
 * A write takes its shards' locks in ascending order, makes sure that memory for it is there, takes
 * its place in the ring, copies itself there, publishes, and applies itself to the tables. What can
 * fail comes before the place in the ring; what comes after cannot fail.
 *
 * A write that finds no room in the ring, or a lock that is not free within a few microseconds, lets
 * go of everything and is deferred: it waits in a queue, in order, and is tried again from the
 * event loop, and by some of the writes behind it. While the queue is not empty every new write of this thread joins it, so writes stay in
 * the order of their calls.
 *
 * `try…` functions return an LSN, DEFER or CONFLICT, and throw what the caller is to be rejected with.
 */

import { FlashVectorError } from '../base/errors.js';
import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import { releaseWrite, tryAcquireWrite } from '../memory/lock.js';
import { GROWTH_BYTES } from '../memory/region.js';
import { EPOCH_MASK, NO_ROOM, RING_HEADROOM_BYTES } from '../memory/ring.js';
import { addExpiry } from '../table/expiry.js';
import { isMemoryFull, memoryFull } from '../table/memory-full.js';
import { copyOperation } from '../table/operation-copy.js';
import type { OrderedIndex } from '../table/ordered-index.js';
import { NO_SHARD } from '../table/pending-keys.js';
import { reclaimLocked } from '../table/reclaim.js';
import type { Shard } from '../table/shard.js';
import { Acks } from './acks.js';
import type { EncodedBatch } from './batch.js';
import { BatchWriter, RECLAIM_MAX, type Guard } from './batch-writer.js';
import type { Core } from './core.js';
import { DeferredWrites } from './deferred-writes.js';
import { Evictor } from './evictor.js';
import { StagedRecords } from './staged-records.js';
import { StagedWrites } from './staged-writes.js';
import { CONFLICT, DEFER, DEFER_LOCK, holds, type Condition } from './write-result.js';

/** The same where there is no memory left. */
const RECLAIM_FULL_MAX = 256;
/** So many new keys settled by one thread within SETTLED_WITHIN_MS, some 40,000 a second, are work for the indexer. */
const SETTLED_MANY = 4096;
const SETTLED_WITHIN_MS = 100;

export class Writer {
  readonly acks: Acks;
  readonly #core: Core;
  readonly #words: Int32Array;
  readonly #self: number;
  readonly #deferred: DeferredWrites;
  readonly #evictor: Evictor | undefined;
  readonly #staged: StagedWrites;
  readonly #batches: BatchWriter;
  /** When this thread last had settled SETTLED_MANY. */
  #settledSinceMs = -Infinity;

  constructor(core: Core) {
    this.#core = core;
    this.#words = core.words;
    this.#self = core.slot + 1;
    const records = new StagedRecords(core);
    this.#staged = new StagedWrites(core, records);
    this.#batches = new BatchWriter(core, records);
    this.acks = new Acks(core.control, core.ring, core.metrics, core.slot);
    this.#deferred = new DeferredWrites(core, this.acks, () => this.relieve());
    if (core.words[L.CONTROL_EVICTION] !== L.EVICTION_NONE)
      this.#evictor = new Evictor(core, (condition) => this.#tryWrite(R.OPERATION_DELETE, condition, R.DURABILITY_MEMORY, 0));
  }

  /** Whether new writes have to queue behind deferred ones. */
  get deferring(): boolean {
    return !this.#deferred.isEmpty;
  }

  /** Tries deferred writes again, before a new one. Where there is eviction they are left to the event loop, which evicts before each try. */
  retryDeferred(): void {
    if (this.#evictor === undefined) this.#deferred.retry();
  }

  /** Resolves when every record up to `lsn`, which is reserved, is on disk. Rejects with FV_IO, FV_CLOSED. */
  async makeDurable(lsn: number): Promise<void> {
    if (lsn === 0) return;
    // Written first: a request that came before the write would not cover it.
    await this.acks.join(lsn, R.DURABILITY_INTERVAL);
    const durable = this.acks.join(lsn, R.DURABILITY_SYNC);
    Atomics.store(this.#words, L.CONTROL_SYNC_REQUESTED, 1);
    this.#core.ring.callLog();
    await durable;
  }

  // One key -----------------------------------------------------------------------------------

  /** Writes the put or delete in the scratch. */
  tryWrite(type: number, condition: Condition, durability: number, patienceMs: number): number {
    if (this.#evictor === undefined) return this.#tryWrite(type, condition, durability, patienceMs);
    const shard = this.#core.shards[this.#core.scratch.keyHash & this.#core.shardMask];
    try {
      return this.#noteOutcome(this.#tryWrite(type, condition, durability, patienceMs));
    } catch (error) {
      return this.#makeRoom(error, shard);
    }
  }

  #noteOutcome(lsn: number): number {
    if (lsn >= 0) this.#evictor?.ended();
    return lsn;
  }

  /** The same as `#evictorFor` for the operation in the scratch. @returns DEFER_LOCK */
  #makeRoom(error: unknown, shard: Shard): number {
    const bytes = shard.entryBytes();
    this.#evictorFor(error, bytes).note(shard, bytes);
    return DEFER_LOCK;
  }

  /**
   * A write failed: where it was for want of memory, and something may be evicted, it is to be tried again later, with more room.
   * @param bytes of its entries
   * @throws the error otherwise, when the last eviction found nothing, and when no eviction would make so much room
   */
  #evictorFor(error: unknown, bytes: number): Evictor {
    const evictor = this.#evictor;
    if (!isMemoryFull(error) || evictor === undefined || evictor.isExhausted) throw error;
    if (bytes > this.#words[L.CONTROL_MEMORY_UNITS_MAX] * GROWTH_BYTES) throw error;
    return evictor;
  }

  /** Evicts what the last tries had no room for, before a deferred write is tried again. */
  relieve(): void {
    if (this.#evictor?.isNeeded === true) this.#evictor.relieve();
  }

  #tryWrite(type: number, condition: Condition, durability: number, patienceMs: number): number {
    const core = this.#core;
    const scratch = core.scratch;
    const shard = core.shards[scratch.keyHash & core.shardMask];
    const bytes = R.recordBytes(R.operationWords(scratch.keyLength, scratch.valueLength));
    if (bytes > core.ring.inlineBytesMax) return this.#staged.tryWrite(shard, type, bytes, condition, durability, patienceMs);
    if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) return DEFER_LOCK;
    let lsn: number;
    try {
      shard.region.sync();
      const entry = shard.table.locate(scratch);
      lsn = condition === 'none' || holds(shard, entry, condition) ? this.#commitLocked(shard, entry, type, bytes, durability) : CONFLICT;
      if (shard.hasVersions()) reclaimLocked(shard, RECLAIM_MAX);
    } finally {
      releaseWrite(this.#words, shard.lockWord);
    }
    if (lsn > 0) core.ring.wakeLog(durability);
    if (core.index !== undefined) this.#lookAtIndex(core.index);
    return lsn;
  }

  /** With no lock held: settles some of the keys whose queue the last write has found crowded, and asks for the indexer where this thread settles many. */
  #lookAtIndex(index: OrderedIndex): void {
    const { pending } = index;
    if (pending.crowded !== NO_SHARD) {
      const shard = pending.crowded;
      pending.crowded = NO_SHARD;
      index.relieve(shard);
    }
    if (pending.settled < SETTLED_MANY) return;
    pending.settled = 0;
    const since = this.#settledSinceMs;
    this.#settledSinceMs = performance.now();
    if (this.#settledSinceMs - since > SETTLED_WITHIN_MS) return;
    const was = Atomics.compareExchange(this.#words, L.CONTROL_INDEXER, L.INDEXER_NONE, L.INDEXER_WANTED);
    if (was === L.INDEXER_NONE) this.#core.onIndexerWanted?.();
  }

  /** Adds `by` to the number under the key in the scratch; an absent key counts as 0. */
  tryIncrement(by: number, durability: number, patienceMs: number, result: { value: number }): number {
    const shard = this.#core.shards[this.#core.scratch.keyHash & this.#core.shardMask];
    try {
      return this.#noteOutcome(this.#tryIncrement(by, durability, patienceMs, result));
    } catch (error) {
      return this.#makeRoom(error, shard);
    }
  }

  #tryIncrement(by: number, durability: number, patienceMs: number, result: { value: number }): number {
    const core = this.#core;
    const scratch = core.scratch;
    const shard = core.shards[scratch.keyHash & core.shardMask];
    if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) return DEFER_LOCK;
    let lsn: number;
    let condition: Condition = 'none';
    try {
      shard.region.sync();
      const entry = shard.table.locate(scratch);
      const before = shard.isLiveLocked(entry) ? shard.valueLocked(entry) : 0;
      if (typeof before !== 'number')
        throw new FlashVectorError('FV_VALUE', 'increment needs a number under its key, and there is something else');
      result.value = before + by;
      if (!Number.isFinite(result.value))
        throw new FlashVectorError('FV_VALUE', `increment would take ${before} past what a number can hold`);
      core.codec.place(result.value);
      if (shard.isLiveLocked(entry)) addExpiry(scratch, shard.expiryLocked(entry));
      const bytes = R.recordBytes(R.operationWords(scratch.keyLength, scratch.valueLength));
      if (bytes > core.ring.inlineBytesMax) condition = shard.isLiveLocked(entry) ? shard.lsnLocked(entry) : 'absent';
      lsn = condition === 'none' ? this.#commitLocked(shard, entry, R.OPERATION_PUT, bytes, durability) : DEFER;
    } finally {
      releaseWrite(this.#words, shard.lockWord);
    }
    if (condition !== 'none') {
      // A key too long for the ring: staged, on condition that nobody was faster.
      const staged = this.#tryWrite(R.OPERATION_PUT, condition, durability, patienceMs);
      return staged === CONFLICT ? DEFER : staged;
    }
    if (lsn > 0) core.ring.wakeLog(durability);
    if (core.index !== undefined) this.#lookAtIndex(core.index);
    return lsn;
  }

  /**
   * Gives the value of the key in the scratch another moment of expiry, 0 for none.
   * @param result receives whether the key has a value; where it has none nothing is written and the LSN is 0
   */
  tryExpire(expiresMs: number, durability: number, patienceMs: number, result: { found: boolean }): number {
    const shard = this.#core.shards[this.#core.scratch.keyHash & this.#core.shardMask];
    try {
      return this.#noteOutcome(this.#tryExpire(expiresMs, durability, patienceMs, result));
    } catch (error) {
      return this.#makeRoom(error, shard);
    }
  }

  #tryExpire(expiresMs: number, durability: number, patienceMs: number, result: { found: boolean }): number {
    const core = this.#core;
    const { scratch } = core;
    const shard = core.shards[scratch.keyHash & core.shardMask];
    if (!tryAcquireWrite(this.#words, shard.lockWord, this.#self, patienceMs)) return DEFER_LOCK;
    let lsn = 0;
    let version = 0;
    try {
      shard.region.sync();
      const entry = shard.table.locate(scratch);
      result.found = shard.isLiveLocked(entry);
      if (!result.found) return 0;
      shard.loadValueLocked(entry);
      addExpiry(scratch, expiresMs);
      const bytes = R.recordBytes(R.operationWords(scratch.keyLength, scratch.valueLength));
      if (bytes > core.ring.inlineBytesMax) version = shard.lsnLocked(entry);
      else lsn = this.#commitLocked(shard, entry, R.OPERATION_PUT, bytes, durability);
    } finally {
      releaseWrite(this.#words, shard.lockWord);
    }
    if (version !== 0) {
      // Too long for the ring: staged, on condition that nobody was faster.
      const staged = this.#tryWrite(R.OPERATION_PUT, version, durability, patienceMs);
      return staged === CONFLICT ? DEFER : staged;
    }
    if (lsn > 0) core.ring.wakeLog(durability);
    return lsn;
  }

  /** Logs and applies the operation in the scratch; `entry` is where its key is now. */
  #commitLocked(shard: Shard, found: number, type: number, bytes: number, durability: number): number {
    const epoch = this.#words[L.CONTROL_SNAPSHOT_EPOCH] & EPOCH_MASK;
    const entry = shard.prepareLocked(type, found) ? found : this.#prepareAgain(shard, type);
    if (!shard.touchesIndex) return this.#logAndApplyLocked(shard, entry, type, bytes, durability, epoch);
    return this.#commitWithIndex(shard, entry, type, bytes, durability, epoch);
  }

  /** What no snapshot needs any more may be all that stands in the way. @returns where the key is then @throws FlashVectorError FV_MEMORY_FULL */
  #prepareAgain(shard: Shard, type: number): number {
    if (!shard.hasVersions() || reclaimLocked(shard, RECLAIM_FULL_MAX) === 0) throw memoryFull();
    const entry = shard.table.locate(this.#core.scratch);
    if (!shard.prepareLocked(type, entry)) throw memoryFull();
    return entry;
  }

  #commitWithIndex(shard: Shard, entry: number, type: number, bytes: number, durability: number, epoch: number): number {
    const ordered = shard.ordered as OrderedIndex;
    try {
      ordered.lockFor(shard.index);
    } catch (error) {
      shard.giveBackLocked();
      throw error;
    }
    try {
      if (!shard.reserveIndexLocked(entry)) {
        shard.giveBackLocked();
        throw memoryFull();
      }
      return this.#logAndApplyLocked(shard, entry, type, bytes, durability, epoch);
    } finally {
      ordered.unlock();
    }
  }

  #logAndApplyLocked(shard: Shard, entry: number, type: number, bytes: number, durability: number, epoch: number): number {
    const { ring, scratch } = this.#core;
    let at = NO_ROOM;
    try {
      at = ring.reserve(bytes, RING_HEADROOM_BYTES, epoch);
    } finally {
      if (at < 0) shard.giveBackLocked();
    }
    if (at < 0) return at === NO_ROOM ? DEFER : DEFER_LOCK;
    copyOperation(scratch, type, ring.words, ring.bytes, ring.bodyAt(at));
    const low = ring.words[at + R.RECORD_LSN_LOW];
    const high = ring.words[at + R.RECORD_LSN_HIGH];
    ring.publish(at, R.KIND_WRITE, durability);
    shard.applyLocked(type, entry, low, high);
    ring.applied();
    return high * 0x1_0000_0000 + (low >>> 0);
  }

  // Batches -----------------------------------------------------------------------------------

  /**
   * Writes a batch: one record, all shards locked, all memory taken before it is logged.
   * @param guard CONFLICT when it does not hold
   */
  tryBatch(batch: EncodedBatch, durability: number, patienceMs: number, guard?: Guard): number {
    if (this.#evictor === undefined) return this.#batches.tryBatch(batch, durability, patienceMs, guard);
    try {
      return this.#noteOutcome(this.#batches.tryBatch(batch, durability, patienceMs, guard));
    } catch (error) {
      const evictor = this.#evictorFor(error, batch.length * 4);
      const { shards, shardMask } = this.#core;
      for (let i = 0; i < batch.count; i++) evictor.note(shards[batch.hashes[i] & shardMask], batch.entryBytesOf(i));
      return DEFER_LOCK;
    }
  }

  // Deferred writes ---------------------------------------------------------------------------

  /** Queues a write. `run` puts its operation into the scratch and tries it. */
  defer(durability: number, run: (patienceMs: number) => number): Promise<number> {
    return this.#deferred.add(durability, false, run);
  }

  /** Copies the operation in the scratch aside and queues it. */
  deferWrite(type: number, condition: Condition, durability: number): Promise<number> {
    const scratch = this.#core.scratch;
    const { keyLength, keyHash, keyFlags, valueType, valueLength } = scratch;
    const external = scratch.valueBytes === null ? null : Uint8Array.prototype.slice.call(scratch.valueBytes);
    const inlineBytes = (R.operationWords(keyLength, valueLength) - (external === null ? 0 : R.wordsOf(valueLength))) * 4;
    const saved = Buffer.from(scratch.bytes.subarray(0, inlineBytes));
    return this.#deferred.add(durability, external === null, (patienceMs) => {
      saved.copy(scratch.bytes, 0);
      scratch.keyLength = keyLength;
      scratch.keyHash = keyHash;
      scratch.keyFlags = keyFlags;
      scratch.valueType = valueType;
      scratch.valueLength = valueLength;
      scratch.valueBytes = external;
      return this.tryWrite(type, condition, durability, patienceMs);
    });
  }

  /** Resolves when no write is deferred. */
  drained(): Promise<void> {
    return this.#deferred.empty();
  }

  /** Resolves when no write is deferred and none waits for its acknowledgement. */
  async idle(): Promise<void> {
    await this.drained();
    await this.acks.idle();
  }

  dispose(): void {
    this.acks.dispose();
  }
}
