/**
 * A region: one growable SharedArrayBuffer, and this thread's views of it.
 *
 * Views have a fixed length, because a length-tracking view over a growable buffer costs 51 ns for
 * a read-modify-write where a fixed one costs 3 ns (Node 20). They are made anew when an offset lies
 * past their end. Views of a region never move data: an old view stays valid, it is only short.
 *
 * Offsets inside a region are in units of 8 bytes; unit 0 belongs to the header, so 0 means "none".
 *
 * Invariants:
 * 1. Only the holder of the region's lock grows it or changes its header.
 * 2. The header's length word is stored after the buffer has grown, so a view made after reading it
 *    reaches at least that far.
 */

import * as L from './layout.js';

const UNIT_BYTES = 8;
export const CHUNK_BYTES = 16_384;
export const CHUNK_WORDS = CHUNK_BYTES / 4;
export const CHUNK_UNITS = CHUNK_BYTES / UNIT_BYTES;
/** Units that are always left for the index when others grow. */
const INDEX_UNITS_MIN = 3;
/** The part of the cap that is kept for the index, as a divisor: what keys and values of some 150 bytes need. */
const INDEX_SHARE = 12;
/** So much more index the same number of keys takes once eviction has removed some here and there: leaves that were full of keys in order are half full then. */
const EVICTED_SPREAD = 1.5;
/** Regions grow in multiples of this. */
export const GROWTH_BYTES = 65_536;

// Header: the first chunk of the region, in words.
/** Length of the region in units of GROWTH_BYTES. */
export const REGION_LENGTH = 0;
/** Number of chunks below the top: those above were never handed out, or were given back. */
export const REGION_TOP = 1;
/** Chunks that the chunk map can describe: 4,096 a map chunk. */
export const REGION_MAP_CHUNKS = 2;
/** Units handed out by the allocator. */
export const REGION_USED_UNITS = 3;
/** Chunks in free runs below the top. */
export const REGION_FREE_CHUNKS = 4;
/** Slabs that are kept though they are empty. */
export const REGION_KEPT_SLABS = 5;
/** Root of the hash table: unit of the directory and its depth. On a line of its own: every read loads it. */
export const REGION_DIRECTORY = 16;
export const REGION_DEPTH = 17;
/** Bytes of keys and of values in live entries, low and high words. */
export const REGION_KEY_BYTES = 32;
export const REGION_VALUE_BYTES = 34;
/** Segments of the hash table. */
export const REGION_SEGMENTS = 36;
/** Entries that expire. */
export const REGION_EXPIRING = 37;
/** Old versions that snapshots need (see table/versions.ts): first and last note of the queue, their count, units of the blocks. */
export const REGION_NOTES_FIRST = 40;
export const REGION_NOTES_LAST = 41;
export const REGION_NOTES_COUNT = 42;
export const REGION_VERSION_UNITS = 43;
/**
 * In the index's region only (see table/index-node.ts): unit of the root; first free node and number of free nodes; nodes in the tree;
 * number of repairs, which readers compare as they compare versions; length of the longest key that was ever put into the index: no separator is longer.
 */
export const REGION_INDEX_ROOT = 48;
export const REGION_INDEX_FREE = 49;
export const REGION_INDEX_FREE_COUNT = 50;
export const REGION_INDEX_NODES = 51;
export const REGION_INDEX_REPAIRS = 52;
export const REGION_INDEX_KEY_BYTES = 53;
/** Lists of free runs, one a length bin. */
export const REGION_RUN_BINS = 64;
export const REGION_RUN_BIN_COUNT = 32;
/** Lists of slabs with room, one a size class. */
export const REGION_SLABS = 128;
export const REGION_CLASS_COUNT_MAX = 128;
/** Chunks of the chunk map. */
export const REGION_MAP = 256;
export const REGION_MAP_COUNT_MAX = 64;

/** Some memory, as it is looked at: by words, by bytes, and by what lies at any place in it. */
export interface Memory {
  readonly words: Int32Array;
  readonly bytes: Buffer;
  readonly view: DataView;
}

export class Region implements Memory {
  words: Int32Array;
  bytes: Buffer;
  view: DataView;
  /** Size class of the block that this thread has taken last (see slabs.ts). */
  takenClass = 0;

  /**
   * @param capped whether what the region holds counts against the store's memory cap
   * @param isIndex whether it is that of the ordered index, for which the others leave room
   */
  constructor(
    readonly buffer: SharedArrayBuffer,
    readonly control: Int32Array,
    readonly capped = true,
    readonly isIndex = false,
  ) {
    // Read once: another thread may grow the buffer meanwhile, and `sync` and `refresh` judge all views by the length of one.
    const length = buffer.byteLength;
    this.words = new Int32Array(buffer, 0, length >>> 2);
    this.bytes = Buffer.from(buffer, 0, length);
    this.view = new DataView(buffer, 0, length);
  }

  /**
   * Makes the views reach as far as the buffer does now.
   * @returns whether they reach further than before
   */
  refresh(): boolean {
    const length = this.buffer.byteLength;
    if (length === this.bytes.length) return false;
    this.words = new Int32Array(this.buffer, 0, length >>> 2);
    this.bytes = Buffer.from(this.buffer, 0, length);
    this.view = new DataView(this.buffer, 0, length);
    return true;
  }

  /** For the holder of the lock: makes the views whole if another thread grew the region. One plain load. */
  sync(): void {
    if (this.words[REGION_LENGTH] * (GROWTH_BYTES / 4) !== this.words.length) this.refresh();
  }

  /**
   * Grows the region so that it holds `bytes`, and some more.
   * @returns false when the store's memory cap, the region's limit or the operating system forbids it
   */
  grow(bytes: number): boolean {
    const before = this.buffer.byteLength;
    if (bytes <= before) return true;
    const wished = Math.max(bytes, before + Math.max(GROWTH_BYTES, before >>> 6));
    const max = this.buffer.maxByteLength;
    const after = Math.min(max, Math.ceil(wished / GROWTH_BYTES) * GROWTH_BYTES);
    if (after < bytes) return false;
    if (!this.#account((after - before) / GROWTH_BYTES)) {
      const least = Math.ceil(bytes / GROWTH_BYTES) * GROWTH_BYTES;
      return least < after && least <= max && this.#account((least - before) / GROWTH_BYTES) && this.#growTo(before, least);
    }
    return this.#growTo(before, after);
  }

  #account(units: number): boolean {
    if (!this.capped) return true;
    const held = Atomics.add(this.control, L.CONTROL_MEMORY_UNITS, units) + units;
    const max = this.control[L.CONTROL_MEMORY_UNITS_MAX];
    if (held + (this.isIndex ? 0 : this.#indexShare(held, max)) <= max) {
      if (this.isIndex) Atomics.add(this.control, L.CONTROL_INDEX_UNITS, units);
      return true;
    }
    Atomics.sub(this.control, L.CONTROL_MEMORY_UNITS, units);
    return false;
  }

  /** What the index is going to need if the store grows to its cap as it is now; otherwise entries would take all, and none could be added. */
  #indexShare(held: number, max: number): number {
    if (this.control[L.CONTROL_INDEXED] === 0 || held > max) return 0;
    const units = this.control[L.CONTROL_INDEX_UNITS];
    const spread = this.control[L.CONTROL_EVICTION] === L.EVICTION_NONE ? 1 : EVICTED_SPREAD;
    const wanted = (units * max * spread) / held - units;
    // At least a twelfth of the cap in all: regions never shrink, and a store that was filled with large values may come to hold many small ones.
    const least = Math.max(0, Math.floor(max / INDEX_SHARE) - units);
    return Math.min(Math.max(Math.ceil(wanted), least), max >>> 2) + INDEX_UNITS_MIN;
  }

  #growTo(before: number, after: number): boolean {
    try {
      this.buffer.grow(after);
    } catch (error) {
      // The only way for this to fail is that the operating system has no memory to give.
      if (!(error instanceof RangeError)) throw error;
      if (this.capped) Atomics.sub(this.control, L.CONTROL_MEMORY_UNITS, (after - before) / GROWTH_BYTES);
      if (this.isIndex) Atomics.sub(this.control, L.CONTROL_INDEX_UNITS, (after - before) / GROWTH_BYTES);
      return false;
    }
    this.refresh();
    this.words[REGION_LENGTH] = after / GROWTH_BYTES;
    return true;
  }
}

/** Makes the buffer of a region: two chunks, header and first map chunk, in use. */
export function createRegionBuffer(maxBytes: number): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(GROWTH_BYTES, { maxByteLength: Math.floor(maxBytes / GROWTH_BYTES) * GROWTH_BYTES });
  const words = new Int32Array(buffer, 0, GROWTH_BYTES / 4);
  words[REGION_LENGTH] = 1;
  words[REGION_TOP] = 2;
  words[REGION_MAP_CHUNKS] = 1;
  words[REGION_MAP] = 1;
  return buffer;
}
