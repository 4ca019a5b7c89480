/**
 * New keys that wait to be put into the ordered index.
 *
 * A key put into the index by itself finds the index's nodes pushed out of the processor's first caches by everything else that a put touches; a few dozen
 * one after the other find them there, and take the index's lock once. So a put of a new key only notes the entry here, in a queue of its shard, and the
 * keys are *settled*, in the order of their puts, by the indexer (engine/indexer.ts), a few at a time by the writer that has made the queue crowded, all of them by
 * the writer that finds it full and by whoever changes anything else of that shard in the index, and, all shards', by whoever is about to read the index. So nobody
 * ever sees an index without a key that was put before.
 *
 * Crowded is half full. Whose put has made, or found, a queue so settles a few keys if the index's lock is free at that moment, with no other lock held, and leaves it where it is not:
 * whoever has it may have lost the processor, and a put need not wait for that while the other half of the queue has room.
 *
 * Adding happens under the shard's lock, settling under the index's; a reader holds none while it looks whether there is anything to settle. Between them:
 *
 * 1. The entry is complete and in the table before it is noted, and the count ADDED is stored behind the note. So who sees the count sees note and key.
 * 2. Everything that removes a key from the index, or leads it to another block, first settles its shard. So the block of a pending entry is there, and is
 *    the key's, until the key has been settled; and a key is in the queue once at most.
 * 3. SETTLED moves on when all keys before it are in the index. Who dies in between leaves keys that are settled again: the index finds them
 *    there, leading to the same block.
 * 4. Where a thread dies with a shard's lock the queue of that shard is dropped: the repair compares the index with the whole table.
 * 5. With a memory cap no key waits: at the cap it must be possible to remove a key, and what has to be settled before might need memory. Without one only the
 *    system can refuse memory; then whoever settles says so, and the keys go on waiting.
 *
 * Keys that a thread puts in rising order do not wait either: each belongs behind the last of the tree, which is quick, and fills its leaves; from sixteen queues
 * they would come out of order.
 */

import { KEY_LENGTH_MASK, OPERATION_HEADER_WORDS } from '../base/record.js';
import type { Bell } from '../memory/bell.js';
import { loadAcquire, storeRelease } from '../memory/fence.js';
import * as L from '../memory/layout.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import { KeyProbe, compareKeys } from './key-probe.js';
import { memoryFull } from './memory-full.js';
import type { OrderedIndex } from './ordered-index.js';
import type { Scratch } from './scratch.js';

const SLOT_MASK = L.PENDING_SLOTS - 1;
/** The indexer is looked after once for so many keys of a shard; a power of two, less one. */
const RING_MASK = 31;
/** So many of the new keys of a thread that are looked at, each above the one before, are taken for keys in order: some hundred keys. */
const RISING_LEAST = 24;
/** The next key that is looked at is one of so many behind the last; a power of two. */
const RISING_APART = 8;
/** A queue with so many keys is crowded. */
const CROWDED = L.PENDING_SLOTS >>> 1;
/** So many keys are settled at once by the indexer and by a writer that has made a queue crowded: a put with that on top takes some 20 µs, in a store of ten million keys 100. */
export const SLICE = 64;
/** No queue that this thread has added to is crowded. */
export const NO_SHARD = -1;

export class PendingKeys {
  readonly #control: Int32Array;
  readonly #index: OrderedIndex;
  readonly #bell: Bell | undefined;
  readonly #area: number;
  readonly #shards: number;
  readonly #probe = KeyProbe.own();
  /** The new key of this thread that was looked at last, how many before it were each above the one before, and new keys until the next. */
  readonly #last = KeyProbe.own();
  #rising = 0;
  #untilLook = 0;
  /** Keys that this thread has settled a slice and more at a time; read and reset by the writer. */
  settled = 0;
  /** The shard whose queue was crowded when this thread added to it last, or NO_SHARD; read and reset by the writer. */
  crowded = NO_SHARD;
  /** Keeps the loads that fetch keys from being optimized away. */
  fetched = 0;

  constructor(control: Int32Array, index: OrderedIndex, bell: Bell | undefined) {
    this.#control = control;
    this.#index = index;
    this.#bell = bell;
    this.#shards = index.regions.length;
    this.#area = L.controlShape(this.#shards).pendingAreaWord;
  }

  /** Whether the key in the scratch, which is new in its shard, may wait. Under the shard's lock. */
  mayWait(shard: number, scratch: Scratch): boolean {
    const control = this.#control;
    if (control[L.CONTROL_MEMORY_UNITS_MAX] !== L.MEMORY_UNITS_UNLIMITED) return false;
    return !this.#isRising(scratch) && this.waiting(shard) < L.PENDING_SLOTS;
  }

  /**
   * Whether this thread puts new keys in order. Comparing each key with the one before was 38 ns of a put of 1,495, so one in four or five is compared with the
   * one looked at before. Their hashes say which, so that two orders that take turns are not taken for one. A key out of order now and then may pass: then
   * the others go straight into the index, as they would without it.
   */
  #isRising(scratch: Scratch): boolean {
    if (this.#untilLook === 0) this.#look(scratch);
    else this.#untilLook--;
    return this.#rising >= RISING_LEAST;
  }

  #look({ words, keyLength, keyHash }: Scratch): void {
    this.#untilLook = keyHash & (RISING_APART - 1);
    const last = this.#last;
    if (compareKeys(words, OPERATION_HEADER_WORDS, keyLength, last.words, last.at, last.length) > 0) this.#rising++;
    else this.#rising = 0;
    last.setWords(words, OPERATION_HEADER_WORDS, keyLength);
  }

  /** Notes the entry of a new key, which is in the table. Under the shard's lock; there is room. */
  add(shard: number, unit: number): void {
    const control = this.#control;
    const at = L.shardWord(shard) + L.SHARD_PENDING_ADDED;
    const added = control[at];
    control[this.#area + shard * L.PENDING_SLOTS + (added & SLOT_MASK)] = unit;
    storeRelease(control, at, (added + 1) | 0);
    if (((added - control[L.shardWord(shard) + L.SHARD_PENDING_SETTLED]) | 0) >= CROWDED - 1) this.crowded = shard;
    if ((added & RING_MASK) === RING_MASK && control[L.CONTROL_INDEXER] === L.INDEXER_ASSIGNED) this.#bell?.ring();
  }

  /** Keys of a shard that wait. Without a lock: a moment old. */
  waiting(shard: number): number {
    const line = L.shardWord(shard);
    const added = loadAcquire(this.#control, line + L.SHARD_PENDING_ADDED);
    return (added - loadAcquire(this.#control, line + L.SHARD_PENDING_SETTLED)) | 0;
  }

  /** Whether a key is waiting. Without a lock: keys whose puts have returned, to whomever, are seen. */
  get isEmpty(): boolean {
    for (let shard = 0; shard < this.#shards; shard++) {
      if (this.waiting(shard) !== 0) return false;
    }
    return true;
  }

  /** Puts the waiting keys of all shards into the index. Under the index's lock. @throws FlashVectorError FV_MEMORY_FULL; the others go on waiting */
  settleAllLocked(): void {
    for (let shard = 0; shard < this.#shards; shard++) this.settleLocked(shard);
  }

  /**
   * Puts waiting keys of a shard into the index, oldest first. Under the index's lock. Cost: some 0.3 µs a key, in a store of ten million keys 1.5.
   * @param most so many at most
   * @throws FlashVectorError FV_MEMORY_FULL; the others go on waiting
   */
  settleLocked(shard: number, most: number = L.PENDING_SLOTS): void {
    const waiting = this.waiting(shard);
    const count = waiting < most ? waiting : most;
    if (count === 0) return;
    const control = this.#control;
    const word = L.shardWord(shard) + L.SHARD_PENDING_SETTLED;
    const settled = control[word];
    this.#fetch(shard, settled, count);
    for (let i = 0; i < count; i++) {
      if (this.#settle(shard, this.#unitAt(shard, settled + i))) continue;
      storeRelease(control, word, (settled + i) | 0);
      throw memoryFull();
    }
    storeRelease(control, word, (settled + count) | 0);
    if (count >= SLICE) this.settled += count;
  }

  #unitAt(shard: number, position: number): number {
    return this.#control[this.#area + shard * L.PENDING_SLOTS + (position & SLOT_MASK)];
  }

  /** Fetches the keys into the cache, all at once. */
  #fetch(shard: number, from: number, count: number): void {
    const region = this.#index.regions[shard];
    region.sync();
    const { words } = region;
    let sum = 0;
    for (let i = 0; i < count; i++) sum ^= words[this.#unitAt(shard, from + i) * 2 + ENTRY_HEADER_WORDS];
    this.fetched = sum;
  }

  #settle(shard: number, unit: number): boolean {
    const probe = this.#probe;
    const { words } = this.#index.regions[shard];
    const entry = unit * 2;
    probe.setWords(words, entry + ENTRY_HEADER_WORDS, words[entry] & KEY_LENGTH_MASK);
    return this.#index.trySetLocked(probe, shard, unit);
  }

  /** Forgets the waiting keys of a shard whose lock a dead thread holds, before the index is compared with its table. Under the index's lock. */
  dropLocked(shard: number): void {
    const control = this.#control;
    const line = L.shardWord(shard);
    storeRelease(control, line + L.SHARD_PENDING_SETTLED, control[line + L.SHARD_PENDING_ADDED]);
  }
}
