/**
 * The ordered index: a B+tree over all keys of the store (index-tree.ts), in a region of its own, with the lock and the memory that its writers
 * need. index-cursor.ts reads.
 *
 * Called by writers that hold the shard lock of the key, and by repairs. It has one lock (CONTROL_INDEX_LOCK), taken after shard locks and
 * before the log lock, held for one change of one key, or for new keys of a shard that have waited (pending-keys.ts), by the indexer for up to 64. Only keys that are new, go, or whose entry moves touch it.
 */

import { FlashVectorError } from '../base/errors.js';
import { KEY_BYTES_MAX } from '../base/record.js';
import type { Bell } from '../memory/bell.js';
import { reserveTop } from '../memory/chunks.js';
import * as L from '../memory/layout.js';
import { acquire, release, tryAcquireAtOnce } from '../memory/lock.js';
import {
  CHUNK_BYTES,
  REGION_INDEX_FREE_COUNT,
  REGION_INDEX_KEY_BYTES,
  REGION_INDEX_NODES,
  REGION_TOP,
  type Region,
} from '../memory/region.js';
import { chunksFor, hasBlock } from '../memory/slabs.js';
import { SHORT_KEY_BYTES, BatchRoom, furtherSplits } from './batch-room.js';
import { INNER_SLOTS, NODES_PER_CHUNK, levelOf, rootOf } from './index-node.js';
import { IndexTree } from './index-tree.js';
import type { KeyProbe } from './key-probe.js';
import { PendingKeys, SLICE } from './pending-keys.js';
import { separatorBytes } from './separator.js';

/** Nodes that a split takes at once; a change may split one node of every level, and the root once more. What is left of them when no split is under way is enough for a removal. */
const NODES_PER_LEVEL = 3;
/** Free nodes that a removal may need at once; it gives back as many. */
const NODES_REMOVING = 6;
/** The same for a merge. */
const NODES_MERGING = 2;
/** Chunks free at the top with which one key can always be added where none is longer than SHORT_KEY_BYTES. */
const ROOM_CHUNKS = 10;

export class OrderedIndex extends IndexTree {
  /** New keys that wait to be put into the index. */
  readonly pending: PendingKeys;
  readonly #control: Int32Array;
  readonly #self: number;
  #heldOn = 0;
  /** Times that the lock was not free at once; read and reset by the metrics. */
  lockWaits = 0;

  /**
   * @param region the index's own
   * @param regions of the shards, in order: their keys are compared with
   * @param self slot + 1 of the calling thread
   * @param bell of the indexer, for who adds keys
   */
  constructor(region: Region, regions: readonly Region[], self: number, bell?: Bell) {
    super(region, regions);
    this.#control = region.control;
    this.#self = self;
    this.pending = new PendingKeys(region.control, this, bell);
  }

  // The lock ----------------------------------------------------------------------------------

  /**
   * Takes the lock. A burial may begin while this thread waits for another lock and holds this one: then it is held on.
   * @throws FlashVectorError FV_TIMEOUT
   */
  lock(): void {
    const control = this.#control;
    if (control[L.CONTROL_INDEX_LOCK] === this.#self) this.#heldOn++;
    else if (acquire(control, L.CONTROL_INDEX_LOCK, L.CONTROL_INDEX_WAITERS, this.#self, 'index')) this.lockWaits++;
    this.region.sync();
  }

  /**
   * Takes the lock for a change of a shard's keys, and settles those of its keys that wait. Under the shard's lock.
   * @throws FlashVectorError FV_TIMEOUT; FV_MEMORY_FULL, and the lock is not held
   */
  lockFor(shard: number): void {
    this.lock();
    try {
      this.pending.settleLocked(shard);
    } catch (error) {
      this.unlock();
      throw error;
    }
  }

  /** Puts all keys that wait into the index, for who is about to read it. @throws FlashVectorError FV_TIMEOUT, FV_MEMORY_FULL */
  settle(): void {
    if (this.pending.isEmpty) return;
    this.lock();
    try {
      this.pending.settleAllLocked();
    } finally {
      this.unlock();
    }
  }

  /**
   * Goes over the shards once and puts waiting keys into the index, a slice at a time, so that nobody waits for the lock for longer. Fewer keys of a shard than a
   * slice are left to gather. @returns whether there was something to do @throws FlashVectorError FV_TIMEOUT, FV_MEMORY_FULL
   */
  settleInSlices(): boolean {
    const { pending } = this;
    let found = false;
    for (let shard = 0; shard < this.regions.length; shard++) {
      // No more than a queue holds: the others are not to wait for a shard that is filled as fast as it is settled.
      for (let slices = L.PENDING_SLOTS / SLICE; slices > 0 && pending.waiting(shard) >= SLICE; slices--) {
        found = true;
        this.lock();
        try {
          pending.settleLocked(shard, SLICE);
        } finally {
          this.unlock();
        }
      }
    }
    return found;
  }

  /** Puts some keys of a crowded queue into the index, if the lock is free at this moment. With no lock held. Cannot fail: what cannot be settled waits. */
  relieve(shard: number): void {
    const control = this.#control;
    if (!tryAcquireAtOnce(control, L.CONTROL_INDEX_LOCK, this.#self)) return;
    try {
      this.region.sync();
      this.pending.settleLocked(shard, SLICE);
    } catch (error) {
      // The put that has led here has taken effect, so it must not fail. Who finds the queue full, or reads, meets the same and can say so.
      if (!(error instanceof FlashVectorError)) throw error;
    } finally {
      this.unlock();
    }
  }

  unlock(): void {
    if (this.#heldOn > 0) this.#heldOn--;
    else release(this.#control, L.CONTROL_INDEX_LOCK, L.CONTROL_INDEX_WAITERS);
  }

  // Room --------------------------------------------------------------------------------------

  /**
   * Makes sure that `insertions` keys can be added, and any number removed or led elsewhere, without fail, until the lock is released: by memory at the end of the region.
   * What is made sure of stays with the index, so at the store's memory cap, where keys can no longer be added, they can still be removed.
   * @param keyBytes length of the longest key
   * @returns false when there is no memory, or where keys are so long that each has to be looked for: then `reserveOneLocked` and `reserveEachLocked` may say yes
   */
  reserveLocked(insertions: number, keyBytes: number): boolean {
    const { region } = this;
    const words = region.words;
    const hasRoom = (words[REGION_TOP] + ROOM_CHUNKS) * CHUNK_BYTES <= region.bytes.length;
    if (insertions === 0) return hasRoom || this.#reserveRemovals();
    // A separator is as long as the keys that it lies between, whatever the length of the one that comes.
    if (keyBytes > SHORT_KEY_BYTES || words[REGION_INDEX_KEY_BYTES] > SHORT_KEY_BYTES) return false;
    if (insertions === 1) return hasRoom || this.#reserveTopFor(this.#nodesFor(1), 1);
    const splits = this.#splitsAtMost(insertions);
    const longest = Math.max(keyBytes, words[REGION_INDEX_KEY_BYTES]);
    return this.#reserveTopFor(this.#nodesFor(splits), chunksFor(separatorBytes(longest), splits));
  }

  #reserveRemovals(): boolean {
    if (this.#freeNodes() >= NODES_REMOVING || reserveTop(this.region, CHUNK_BYTES)) return true;
    this.makeNodesLocked(NODES_REMOVING);
    return this.#freeNodes() >= NODES_REMOVING;
  }

  /** Makes sure of what a repair may have used up though another thread counts on it: room for any key. */
  replenishLocked(): void {
    this.#reserveTopFor(this.#nodesFor(1), chunksFor(separatorBytes(KEY_BYTES_MAX), 1));
  }

  /** The same as `reserveLocked` for one key, wherever there is memory for the separator that it takes. */
  reserveOneLocked(probe: KeyProbe): boolean {
    if (this.reserveLocked(1, probe.length)) return true;
    let bytes = this.separatorBytesLocked(probe);
    let nodes = this.#nodesFor(bytes === 0 ? 0 : 1);
    if (this.#reserveTopFor(nodes, bytes === 0 ? 0 : chunksFor(bytes, 1))) return true;
    // No memory to grow into: leaves that have lost keys can do with less. The key's own may be fuller then.
    if (this.#compactFor(nodes) > 0) {
      bytes = this.separatorBytesLocked(probe);
      nodes = this.#nodesFor(bytes === 0 ? 0 : 1);
    }
    this.makeNodesLocked(nodes);
    return this.#freeNodes() >= nodes && (bytes === 0 || hasBlock(this.region, bytes));
  }

  /**
   * The same for the keys of a batch, each of which is looked for: most often few leaves are split.
   * @param changes calls back with each key that is added, and each that is removed; is called twice
   */
  reserveEachLocked(changes: (visit: (probe: KeyProbe, isAdded: boolean) => void) => void): boolean {
    const room = new BatchRoom(this, (leaf) => this.longestKeyLocked(leaf));
    const look = (): void => changes((probe, isAdded) => room.note(this.leafLocked(probe), probe.length, isAdded));
    look();
    room.reckon();
    if (this.#reserveRoom(room)) return true;
    if (this.#compactFor(this.#nodesOf(room)) > 0) {
      // Other leaves than those that were counted.
      room.clear();
      look();
      room.reckon();
      if (this.#reserveRoom(room)) return true;
    }
    const nodes = this.#nodesOf(room);
    if (!room.hasSeparators(nodes - this.#freeNodes())) return false;
    this.makeNodesLocked(nodes);
    return this.#freeNodes() >= nodes;
  }

  #reserveRoom(room: BatchRoom): boolean {
    return this.#reserveTopFor(this.#nodesOf(room), room.separatorChunks());
  }

  #nodesOf({ splits, insertions }: BatchRoom): number {
    return this.#nodesFor(Math.min(splits, this.#splitsAtMost(insertions)));
  }

  #freeNodes(): number {
    return this.region.words[REGION_INDEX_FREE_COUNT];
  }

  /** Every leaf may be full: as many split as there are leaves or keys, and some more (batch-room.ts). */
  #splitsAtMost(insertions: number): number {
    return Math.min(insertions, this.region.words[REGION_INDEX_NODES] + furtherSplits(insertions));
  }

  /** Merges thin leaves for nodes that are missing. @returns how many went */
  #compactFor(nodes: number): number {
    const missing = nodes - this.#freeNodes();
    if (missing <= 0 || (this.#freeNodes() < NODES_MERGING && !reserveTop(this.region, CHUNK_BYTES))) return 0;
    return this.compactLocked(missing);
  }

  /** Nodes that so many splits of leaves take at most, and those of inner nodes that are more than half full: each may be split for one leaf. */
  #nodesFor(splits: number): number {
    const { words } = this.region;
    const levels = levelOf(words, rootOf(this.region) * 2) + 2;
    if (splits <= 1) return splits + levels * NODES_PER_LEVEL;
    const crowded = Math.min(splits * levels, Math.ceil((2 * words[REGION_INDEX_NODES]) / INNER_SLOTS));
    return splits + crowded + Math.ceil((2 * splits) / INNER_SLOTS) + levels * NODES_PER_LEVEL;
  }

  #reserveTopFor(nodes: number, separatorChunks: number): boolean {
    const missing = nodes - this.#freeNodes();
    return reserveTop(this.region, ((missing > 0 ? Math.ceil(missing / NODES_PER_CHUNK) : 0) + separatorChunks) * CHUNK_BYTES);
  }

  /** Puts a key that has waited into the index. @returns false when a node has to be split and there is no memory; nothing has changed then */
  trySetLocked(probe: KeyProbe, shard: number, unit: number): boolean {
    if (this.setWithoutSplitLocked(probe, shard, unit)) return true;
    if (!this.reserveOneLocked(probe)) return false;
    this.setLocked(probe, shard, unit);
    return true;
  }
}
