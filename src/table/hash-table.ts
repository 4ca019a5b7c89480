/**
 * The hash table of a shard: extendible hashing by segments.
 *
 * A directory of 2^depth words, indexed by the top bits of the hash, names segments (a word before it
 * repeats the depth, so that it says for itself how long it is); a segment of
 * local depth d serves all hashes that share their top d bits. A segment is 4,088 bytes: two header
 * words and 510 slots of two words, hash and entry, probed linearly from a place that the middle
 * bits choose. A segment that is full past SPLIT_COUNT splits in two: some 10 µs, the longest that
 * growing ever takes, but for doubling the directory, which copies 4 bytes a segment.
 *
 * Removal shifts later slots back, so there are no tombstones and a free slot ends every search.
 * Keys whose hashes agree in the top DEPTH_MAX bits cannot be told apart by splitting; their segment
 * gets an overflow segment. With a hash seeded per open that takes bad luck beyond reason, but it
 * must not be a crash.
 *
 * Writers hold the shard's lock. Readers hold nothing: what they load may be torn, so every index is
 * checked against the view before use, and `find` says RETRY instead of following it.
 *
 * Source: Fagin, Nievergelt, Pippenger, Strong, "Extendible Hashing", ACM TODS 4(3), 1979.
 */

import { assert } from '../base/errors.js';
import { OPERATION_HEADER_WORDS } from '../base/record.js';
import { CHUNK_BYTES, REGION_DEPTH, REGION_DIRECTORY, REGION_SEGMENTS, type Region } from '../memory/region.js';
import { allocate, classAt, classOf, free } from '../memory/slabs.js';
import { ENTRY_HEADER_WORDS, ENTRY_OLDER } from './entry.js';
import type { Scratch } from './scratch.js';

export const SEGMENT_SLOTS = 510;
export const SEGMENT_HEADER_WORDS = 2;
export const SEGMENT_WORDS = SEGMENT_HEADER_WORDS + SEGMENT_SLOTS * 2;
const SEGMENT_BYTES = SEGMENT_WORDS * 4;
const SEGMENT_CLASS = classOf(SEGMENT_BYTES);
/** Header word 0: local depth in bits 0-7, number of entries above. Word 1: unit of the overflow segment. */
export const DEPTH_MASK = 0xff;
export const COUNT_SHIFT = 8;
const COUNT_ONE = 1 << COUNT_SHIFT;
export const SEGMENT_OVERFLOW = 1;
/** Entries at which a segment splits: 82 % full, where a miss still probes fewer than 16 slots on average. */
const SPLIT_COUNT = 418;
/** Deepest directory: 4 Mi words. A full region of the smallest entries needs 19. */
const DEPTH_MAX = 22;
/** Weyl constant (2^32 / golden ratio): spreads a segment's hashes although their top bits agree. */
const SPREAD = 0x9e37_79b1 | 0;

export const ABSENT = 0;
/** What was read cannot be right: read again, with fresh views. */
export const RETRY = -1;

function home(hash: number): number {
  return ((Math.imul(hash, SPREAD) >>> 16) * SEGMENT_SLOTS) >>> 16;
}

function directoryIndex(hash: number, depth: number): number {
  return depth === 0 ? 0 : hash >>> (32 - depth);
}

function newSegment(region: Region, localDepth: number): number {
  const unit = allocate(region, SEGMENT_BYTES, SEGMENT_CLASS);
  if (unit === 0) return 0;
  const words = region.words;
  words.fill(0, unit * 2, unit * 2 + SEGMENT_WORDS);
  words[unit * 2] = localDepth;
  words[REGION_SEGMENTS]++;
  return unit;
}

/** Unit of a directory's first word: the one behind its block's. @returns 0 when there is no memory */
function newDirectory(region: Region, depth: number): number {
  const bytes = 8 + (4 << depth);
  const block = allocate(region, bytes, classOf(bytes));
  if (block === 0) return 0;
  region.words[block * 2] = depth;
  return block + 1;
}

/** Makes an empty table. @returns false when there is no memory */
export function createTable(region: Region): boolean {
  const directory = newDirectory(region, 0);
  const segment = newSegment(region, 0);
  if (directory === 0 || segment === 0) return false;
  region.words[directory * 2] = segment;
  region.words[REGION_DEPTH] = 0;
  region.words[REGION_DIRECTORY] = directory;
  return true;
}

export class HashTable {
  /** Where `locate` ended: word index of the slot, of its segment. */
  slotWord = 0;
  segmentWord = 0;
  newerWord = 0;

  constructor(readonly region: Region) {}

  /**
   * Looks up the key in the scratch without any lock.
   * @returns word index of its entry, ABSENT, or RETRY
   */
  find(scratch: Scratch): number {
    const words = this.region.words;
    const limit = words.length;
    const hash = scratch.keyHash;
    const depth = words[REGION_DEPTH];
    const pointer = words[REGION_DIRECTORY] * 2 + directoryIndex(hash, depth);
    if (pointer >>> 0 >= limit) return RETRY;
    let segment = words[pointer] * 2;
    const keyLength = scratch.keyLength;
    const keyWords = (keyLength + 3) >>> 2;
    const key = scratch.words;
    for (let hops = 0; ; hops++) {
      if (segment <= 0 || segment + SEGMENT_WORDS > limit) return RETRY;
      const slots = segment + SEGMENT_HEADER_WORDS;
      let index = home(hash);
      for (let probes = 0; probes < SEGMENT_SLOTS; probes++) {
        const slot = slots + index * 2;
        const unit = words[slot + 1];
        if (unit === 0) break;
        if (words[slot] === hash) {
          const entry = unit * 2;
          if (entry <= 0 || entry + ENTRY_HEADER_WORDS + keyWords > limit) return RETRY;
          if ((words[entry] & 0xffff) === keyLength) {
            const at = entry + ENTRY_HEADER_WORDS;
            let i = 0;
            while (i < keyWords && words[at + i] === key[OPERATION_HEADER_WORDS + i]) i++;
            if (i === keyWords) return entry;
          }
        }
        index = index + 1 === SEGMENT_SLOTS ? 0 : index + 1;
      }
      const overflow = words[segment + SEGMENT_OVERFLOW];
      if (overflow === 0) return ABSENT;
      // A chain is as long as there are entries of equal hash; one that does not end is torn.
      if (hops > 1_000_000) return RETRY;
      segment = overflow * 2;
    }
  }

  /** Whether a slot holds this hash and this entry: the entry is live then. Without the lock, as good as the version. */
  refersTo(hash: number, unit: number): boolean {
    const words = this.region.words;
    const limit = words.length;
    const pointer = words[REGION_DIRECTORY] * 2 + directoryIndex(hash, words[REGION_DEPTH]);
    if (pointer >>> 0 >= limit) return false;
    let segment = words[pointer] * 2;
    for (let hops = 0; hops < 1_000_000; hops++) {
      if (segment <= 0 || segment + SEGMENT_WORDS > limit) return false;
      let index = home(hash);
      for (let probes = 0; probes < SEGMENT_SLOTS; probes++) {
        const slot = segment + SEGMENT_HEADER_WORDS + index * 2;
        if (words[slot + 1] === 0) break;
        if (words[slot + 1] === unit && words[slot] === hash) return true;
        index = index + 1 === SEGMENT_SLOTS ? 0 : index + 1;
      }
      segment = words[segment + SEGMENT_OVERFLOW] * 2;
      if (segment === 0) return false;
    }
    return false;
  }

  /** As `find`, under the lock, and remembers the slot. @returns word index of the entry, or ABSENT */
  locate(scratch: Scratch): number {
    return this.locateKey(scratch.keyHash, scratch.keyLength, scratch.words, OPERATION_HEADER_WORDS);
  }

  /** As `locate`, for a key that lies elsewhere. @param keyAt the word of `key` at which it begins */
  locateKey(hash: number, keyLength: number, key: Int32Array, keyAt: number): number {
    const words = this.region.words;
    const keyWords = (keyLength + 3) >>> 2;
    let segment = words[words[REGION_DIRECTORY] * 2 + directoryIndex(hash, words[REGION_DEPTH])] * 2;
    for (;;) {
      const slots = segment + SEGMENT_HEADER_WORDS;
      let index = home(hash);
      for (let probes = 0; probes < SEGMENT_SLOTS; probes++) {
        const slot = slots + index * 2;
        const unit = words[slot + 1];
        if (unit === 0) break;
        if (words[slot] === hash) {
          const entry = unit * 2;
          if ((words[entry] & 0xffff) === keyLength) {
            const at = entry + ENTRY_HEADER_WORDS;
            let i = 0;
            while (i < keyWords && words[at + i] === key[keyAt + i]) i++;
            if (i === keyWords) {
              this.slotWord = slot;
              this.segmentWord = segment;
              return entry;
            }
          }
        }
        index = index + 1 === SEGMENT_SLOTS ? 0 : index + 1;
      }
      const overflow = words[segment + SEGMENT_OVERFLOW];
      if (overflow === 0) return ABSENT;
      segment = overflow * 2;
    }
  }

  /**
   * Finds, under the lock, the entry in whose chain of versions `unit` is, and remembers its slot and, in `newerWord`, the word that leads to
   * the version.
   * @returns word index of the entry, or ABSENT
   */
  locateVersion(hash: number, unit: number): number {
    const words = this.region.words;
    let segment = words[words[REGION_DIRECTORY] * 2 + directoryIndex(hash, words[REGION_DEPTH])] * 2;
    for (; segment !== 0; segment = words[segment + SEGMENT_OVERFLOW] * 2) {
      let index = home(hash);
      for (let probes = 0; probes < SEGMENT_SLOTS; probes++) {
        const slot = segment + SEGMENT_HEADER_WORDS + index * 2;
        if (words[slot + 1] === 0) break;
        if (words[slot] === hash) {
          const entry = words[slot + 1] * 2;
          for (let newer = entry + ENTRY_OLDER; words[newer] !== 0; newer = words[newer] * 2 + ENTRY_OLDER) {
            if (words[newer] !== unit) continue;
            this.slotWord = slot;
            this.segmentWord = segment;
            this.newerWord = newer;
            return entry;
          }
        }
        index = index + 1 === SEGMENT_SLOTS ? 0 : index + 1;
      }
    }
    return ABSENT;
  }

  /**
   * Makes sure that the segment of `hash` has a free slot, splitting it as often as it takes.
   * May move other slots: `locate` again afterwards. Readers meanwhile must see an odd version.
   * @returns false when there is no memory
   */
  makeRoom(hash: number): boolean {
    for (;;) {
      const words = this.region.words;
      const depth = words[REGION_DEPTH];
      const segment = words[words[REGION_DIRECTORY] * 2 + directoryIndex(hash, depth)];
      const header = words[segment * 2];
      if (header >>> COUNT_SHIFT < SPLIT_COUNT) return true;
      const localDepth = header & DEPTH_MASK;
      if (localDepth >= DEPTH_MAX) return this.#makeOverflowRoom(segment);
      if (localDepth === depth && !this.#doubleDirectory()) return false;
      if (!this.#split(segment, localDepth, hash)) return false;
    }
  }

  /** Whether `makeRoom` would have to change anything. */
  hasRoom(hash: number): boolean {
    const words = this.region.words;
    const segment = words[words[REGION_DIRECTORY] * 2 + directoryIndex(hash, words[REGION_DEPTH])];
    return words[segment * 2] >>> COUNT_SHIFT < SPLIT_COUNT;
  }

  /** Insertions that the segment of `hash` takes without splitting, at need past SPLIT_COUNT. */
  slotsFree(hash: number): number {
    const words = this.region.words;
    const segment = words[words[REGION_DIRECTORY] * 2 + directoryIndex(hash, words[REGION_DEPTH])];
    // One slot stays free: it ends every search.
    return SEGMENT_SLOTS - 1 - (words[segment * 2] >>> COUNT_SHIFT);
  }

  /**
   * Bytes that `count` insertions may take for segments and directories. Every segment may be one short of
   * splitting, so there are as many splits as segments or insertions, and one more for every half segment.
   */
  growthBytes(count: number): number {
    const words = this.region.words;
    const splits = Math.min(count, words[REGION_SEGMENTS]) + Math.ceil(count / (SPLIT_COUNT / 2)) + 2;
    const directory = 8 + Math.max(4 << words[REGION_DEPTH], 4 * (words[REGION_SEGMENTS] + splits));
    return Math.ceil(splits / 4) * CHUNK_BYTES + 8 * directory + 65_536;
  }

  #makeOverflowRoom(first: number): boolean {
    let segment = first;
    for (;;) {
      const words = this.region.words;
      if (words[segment * 2] >>> COUNT_SHIFT < SPLIT_COUNT) return true;
      let overflow = words[segment * 2 + SEGMENT_OVERFLOW];
      if (overflow === 0) {
        overflow = newSegment(this.region, DEPTH_MAX);
        if (overflow === 0) return false;
        this.region.words[segment * 2 + SEGMENT_OVERFLOW] = overflow;
        return true;
      }
      segment = overflow;
    }
  }

  #doubleDirectory(): boolean {
    const region = this.region;
    const depth = region.words[REGION_DEPTH];
    const after = newDirectory(region, depth + 1);
    if (after === 0) return false;
    const words = region.words;
    const before = words[REGION_DIRECTORY];
    for (let i = 0; i < 1 << depth; i++) {
      words[after * 2 + i * 2] = words[before * 2 + i];
      words[after * 2 + i * 2 + 1] = words[before * 2 + i];
    }
    words[REGION_DIRECTORY] = after;
    words[REGION_DEPTH] = depth + 1;
    free(region, before - 1, classAt(region, before - 1));
    return true;
  }

  #split(segment: number, localDepth: number, hash: number): boolean {
    const region = this.region;
    const upper = newSegment(region, localDepth + 1);
    if (upper === 0) return false;
    const lower = newSegment(region, localDepth + 1);
    if (lower === 0) {
      free(region, upper, classAt(region, upper));
      region.words[REGION_SEGMENTS]--;
      return false;
    }
    const words = region.words;
    const bit = 31 - localDepth;
    for (let i = 0; i < SEGMENT_SLOTS; i++) {
      const slot = segment * 2 + SEGMENT_HEADER_WORDS + i * 2;
      const unit = words[slot + 1];
      if (unit === 0) continue;
      const slotHash = words[slot];
      putSlot(words, (((slotHash >>> bit) & 1) === 1 ? upper : lower) * 2, slotHash, unit);
    }
    const depth = words[REGION_DEPTH];
    const directory = words[REGION_DIRECTORY] * 2;
    const span = 1 << (depth - localDepth);
    const first = directoryIndex(hash, depth) & ~(span - 1);
    words.fill(lower, directory + first, directory + first + (span >>> 1));
    words.fill(upper, directory + first + (span >>> 1), directory + first + span);
    free(region, segment, classAt(region, segment));
    words[REGION_SEGMENTS]--;
    return true;
  }

  /** Adds an entry whose key is absent. Room must have been made. */
  insert(hash: number, unit: number): void {
    const words = this.region.words;
    let segment = words[words[REGION_DIRECTORY] * 2 + directoryIndex(hash, words[REGION_DEPTH])] * 2;
    while (words[segment] >>> COUNT_SHIFT >= SPLIT_COUNT && words[segment + SEGMENT_OVERFLOW] !== 0) {
      segment = words[segment + SEGMENT_OVERFLOW] * 2;
    }
    putSlot(words, segment, hash, unit);
  }

  /** The entry at the slot that `locate` found has moved. */
  replaceLocated(unit: number): void {
    this.region.words[this.slotWord + 1] = unit;
  }

  /** Removes the slot that `locate` found: slots behind it move back where their probing allows. */
  removeLocated(): void {
    const words = this.region.words;
    const slots = this.segmentWord + SEGMENT_HEADER_WORDS;
    let gap = (this.slotWord - slots) >>> 1;
    let index = gap;
    for (let probes = 1; probes < SEGMENT_SLOTS; probes++) {
      index = index + 1 === SEGMENT_SLOTS ? 0 : index + 1;
      const slot = slots + index * 2;
      if (words[slot + 1] === 0) break;
      // The slot may fill the gap unless its home lies between the gap and itself, going round.
      const from = home(words[slot]);
      const stays = gap <= index ? gap < from && from <= index : gap < from || from <= index;
      if (stays) continue;
      words[slots + gap * 2] = words[slot];
      words[slots + gap * 2 + 1] = words[slot + 1];
      gap = index;
    }
    words[slots + gap * 2] = 0;
    words[slots + gap * 2 + 1] = 0;
    words[this.segmentWord] -= COUNT_ONE;
  }

  /**
   * Collects the entries of the segment that serves hashes with the top bits of `prefix`, for a walk
   * over the table. The walk visits segments by rising prefix; one that splits meanwhile is met in
   * two parts, never twice. Without the lock, what is collected is only good if the version held.
   * @param into receives units of entries
   * @param hashes receives their hashes, if given
   * @returns how many hash values the segment spans, as a power of two (its exponent), or RETRY
   */
  collect(prefix: number, into: number[], hashes?: number[]): number {
    const words = this.region.words;
    const limit = words.length;
    into.length = 0;
    if (hashes !== undefined) hashes.length = 0;
    const pointer = words[REGION_DIRECTORY] * 2 + directoryIndex(prefix, words[REGION_DEPTH]);
    if (pointer >>> 0 >= limit) return RETRY;
    let segment = words[pointer] * 2;
    if (segment <= 0 || segment + SEGMENT_WORDS > limit) return RETRY;
    const span = 32 - (words[segment] & DEPTH_MASK);
    for (let hops = 0; hops < 1_000_000; hops++) {
      for (let i = 0; i < SEGMENT_SLOTS; i++) {
        const slot = segment + SEGMENT_HEADER_WORDS + i * 2;
        const unit = words[slot + 1];
        if (unit === 0) continue;
        into.push(unit);
        if (hashes !== undefined) hashes.push(words[slot]);
      }
      const overflow = words[segment + SEGMENT_OVERFLOW];
      if (overflow === 0) return span;
      segment = overflow * 2;
      if (segment <= 0 || segment + SEGMENT_WORDS > limit) return RETRY;
    }
    return RETRY;
  }
}

/** Puts an entry into the first slot that its hash can have. Segments keep one slot free: it ends every search. */
export function putSlot(words: Int32Array, segment: number, hash: number, unit: number): void {
  assert(words[segment] >>> COUNT_SHIFT < SEGMENT_SLOTS - 1, 'a segment keeps a free slot');
  const slots = segment + SEGMENT_HEADER_WORDS;
  let index = home(hash);
  while (words[slots + index * 2 + 1] !== 0) index = index + 1 === SEGMENT_SLOTS ? 0 : index + 1;
  words[slots + index * 2] = hash;
  words[slots + index * 2 + 1] = unit;
  words[segment] += COUNT_ONE;
}
