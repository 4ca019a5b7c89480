/**
 * The ordered index: a B+tree over all keys of the store (index-tree.ts), in a region of its own, with the lock and the memory that its writers
 * need. index-cursor.ts reads.
 *
 * Called by writers that hold the shard lock of the key, and by repairs. It has one lock (CONTROL_INDEX_LOCK), taken after shard locks and
 * before the log lock, held for one change of one key, or for new keys of a shard that have waited (pending-keys.ts), by the indexer for up to 64. Only keys that are new, go, or whose entry moves touch it.
 */

import { FlashVectorError } from '../base/errors.js';
import { reserveTop } from '../memory/chunks.js';
import type { Bell } from '../memory/bell.js';
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
import { chunksFor, hasBlocks } from '../memory/slabs.js';
import { INNER_SLOTS, LEAF_SLOTS, NODE_BYTES, countOf, levelOf, rootOf } from './index-node.js';
import { IndexTree } from './index-tree.js';
import type { KeyProbe } from './key-probe.js';
import { PendingKeys, SLICE } from './pending-keys.js';
import { separatorBytes } from './separator.js';

/** Nodes that a split takes at once; a change may split one node of every level, and the root once more. */
const NODES_PER_LEVEL = 3;
/** Free nodes that a removal may need at once; it gives back as many. */
const NODES_REMOVING = 6;
/** The same for a merge. */
const NODES_MERGING = 2;
const NODES_PER_CHUNK = Math.floor(CHUNK_BYTES / NODE_BYTES);
/** Chunks free at the top with which one key can always be added where none is longer than this. */
const ROOM_CHUNKS = 10;
const ROOM_KEY_BYTES = 500;
const HALF_LEAF = LEAF_SLOTS >>> 1;

/** Splits of the halves of leaves, once these have been split: each half takes half a leaf of keys before it is full. */
function furtherSplits(insertions: number): number {
  return Math.ceil(insertions / HALF_LEAF);
}

/** Splits behind the last key of the tree, where all but one key stay together, in a leaf that is as good as full. */
function appendedSplits(insertions: number): number {
  return 1 + Math.floor(insertions / (LEAF_SLOTS - 1));
}

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

  /**
   * Makes sure that `insertions` keys can be added, and any number removed or led elsewhere, without fail, until the lock is released.
   * What is made sure of stays with the index, so at the store's memory cap, where keys can no longer be added, they can still be removed.
   * @param keyBytes length of the longest key
   * @returns false when there is no memory
   */
  reserveLocked(insertions: number, keyBytes: number): boolean {
    const { region } = this;
    const words = region.words;
    // A separator is as long as the keys that it lies between, whatever the length of the one that comes.
    const longest = keyBytes > words[REGION_INDEX_KEY_BYTES] ? keyBytes : words[REGION_INDEX_KEY_BYTES];
    // The usual case, with some memory to spare: nothing to reckon.
    const hasRoom = (words[REGION_TOP] + ROOM_CHUNKS) * CHUNK_BYTES <= region.bytes.length;
    if (hasRoom && (insertions === 0 || (insertions === 1 && longest <= ROOM_KEY_BYTES))) return true;
    if (insertions === 0) return this.#freeNodes() >= NODES_REMOVING || reserveTop(region, CHUNK_BYTES);
    return this.#reserveSplits(this.#splitsAtMost(insertions), longest, false);
  }

  /** The same for one key, where there is memory for just the separator that it takes. */
  reserveOneLocked(probe: KeyProbe): boolean {
    if (this.reserveLocked(1, probe.length)) return true;
    const nodes = this.#nodesFor(1);
    this.makeNodesLocked(nodes);
    return this.#freeNodes() >= nodes && this.hasSeparatorLocked(probe);
  }

  /**
   * The same for some keys, each of which is looked for: most often few leaves are split.
   * @param removals how many keys go meanwhile, at most
   * @param keyBytes length of the longest key
   */
  reserveEachLocked(keys: Iterable<KeyProbe>, removals: number, keyBytes: number): boolean {
    const leaves = new Map<number, number>();
    let insertions = 0;
    for (const probe of keys) {
      const leaf = this.leafLocked(probe);
      leaves.set(leaf, (leaves.get(leaf) ?? 0) + 1);
      insertions++;
    }
    const { words } = this.region;
    // Of two leaves that become one, that may be split.
    let splits = removals + appendedSplits(insertions);
    for (const [leaf, added] of leaves) if (countOf(words, leaf) + added > LEAF_SLOTS) splits += 1 + furtherSplits(added);
    return this.#reserveSplits(Math.min(splits, this.#splitsAtMost(insertions)), keyBytes, true);
  }

  /** Every leaf may be full: as many split as there are leaves or keys, and some more. */
  #splitsAtMost(insertions: number): number {
    return Math.min(insertions, this.region.words[REGION_INDEX_NODES] + furtherSplits(insertions) + appendedSplits(insertions));
  }

  /** @param makesNodes whether nodes that are missing take chunks that are free in the middle */
  #reserveSplits(splits: number, keyBytes: number, makesNodes: boolean): boolean {
    const { region } = this;
    const nodes = this.#nodesFor(splits);
    const bytes = separatorBytes(Math.max(keyBytes, region.words[REGION_INDEX_KEY_BYTES]));
    const separators = chunksFor(bytes, splits) * CHUNK_BYTES;
    if (this.#reserveTopFor(nodes, separators)) return true;
    // No memory to grow into: leaves that have lost keys can do with less, and separators may lie anywhere.
    this.#compactFor(nodes);
    if (this.#reserveTopFor(nodes, separators)) return true;
    if (makesNodes) this.makeNodesLocked(nodes);
    return this.#freeNodes() >= nodes && hasBlocks(region, bytes, splits);
  }

  #freeNodes(): number {
    return this.region.words[REGION_INDEX_FREE_COUNT];
  }

  /** Merges thin leaves for nodes that are missing. */
  #compactFor(nodes: number): void {
    const missing = nodes - this.#freeNodes();
    if (missing > 0 && (this.#freeNodes() >= NODES_MERGING || reserveTop(this.region, CHUNK_BYTES))) this.compactLocked(missing);
  }

  /** Nodes that so many splits of leaves take at most, and those of inner nodes that are more than half full: each may be split for one leaf. */
  #nodesFor(splits: number): number {
    const { words } = this.region;
    const levels = levelOf(words, rootOf(this.region) * 2) + 2;
    const crowded = splits <= 1 ? 0 : Math.min(splits * levels, Math.ceil((2 * words[REGION_INDEX_NODES]) / INNER_SLOTS));
    return splits + crowded + Math.ceil((2 * splits) / INNER_SLOTS) + levels * NODES_PER_LEVEL;
  }

  /** @param separators bytes for these */
  #reserveTopFor(nodes: number, separators: number): boolean {
    return reserveTop(this.region, Math.ceil(Math.max(0, nodes - this.#freeNodes()) / NODES_PER_CHUNK) * CHUNK_BYTES + separators);
  }

  /** Puts a key that has waited into the index. @returns false when a node has to be split and there is no memory; nothing has changed then */
  trySetLocked(probe: KeyProbe, shard: number, unit: number): boolean {
    if (this.setWithoutSplitLocked(probe, shard, unit)) return true;
    if (!this.reserveOneLocked(probe)) return false;
    this.setLocked(probe, shard, unit);
    return true;
  }
}
