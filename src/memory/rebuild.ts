/**
 * Rebuilding a region's allocator from the blocks that are in use, after a thread has died while it held the region's lock.
 *
 * Trusted is what a block in use rests on and nobody changes while it is: the chunk map's words of its
 * slab or run, and the map's own chunks. Everything else (free lists, counts, free runs, the top) is made anew.
 * A block that the dead thread had taken and not linked anywhere is free again afterwards.
 *
 * Runs under the region's lock. Cost: a few nanoseconds for each chunk and block.
 */

import { CHUNK_LARGE, CHUNK_PART, CHUNK_SLAB, chunkArgument, chunkEntry, chunkKind, listFreeRun, setChunk } from './chunks.js';
import {
  CHUNK_UNITS,
  GROWTH_BYTES,
  REGION_FREE_CHUNKS,
  REGION_KEPT_SLABS,
  REGION_LENGTH,
  REGION_MAP,
  REGION_MAP_CHUNKS,
  REGION_RUN_BINS,
  REGION_RUN_BIN_COUNT,
  REGION_SLABS,
  REGION_CLASS_COUNT_MAX,
  REGION_TOP,
  REGION_USED_UNITS,
  type Region,
} from './region.js';
import { rebuildSlab, slabChunks, slabUnits } from './slabs.js';

/** Units of blocks in use: a bit for each unit of the region. */
export class UnitSet {
  readonly #bits: Uint32Array;

  constructor(region: Region) {
    this.#bits = new Uint32Array((region.words.length >>> 6) + 1);
  }

  has(unit: number): boolean {
    return (this.#bits[unit >>> 5] & (1 << (unit & 31))) !== 0;
  }

  /** @returns whether it was not there yet */
  add(unit: number): boolean {
    const bit = 1 << (unit & 31);
    if ((this.#bits[unit >>> 5] & bit) !== 0) return false;
    this.#bits[unit >>> 5] |= bit;
    return true;
  }
}

/** @param units every block in use, each once; `live` holds the same */
export function rebuildAllocator(region: Region, units: readonly number[], live: UnitSet): void {
  const words = region.words;
  words[REGION_LENGTH] = region.bytes.length / GROWTH_BYTES;
  const inUse = new Map<number, { chunks: number; sizeClass: number }>();
  let usedUnits = 0;
  for (const unit of units) {
    let chunk = unit >>> 11;
    let entry = chunkEntry(region, chunk);
    if (chunkKind(entry) === CHUNK_PART) {
      chunk -= chunkArgument(entry);
      entry = chunkEntry(region, chunk);
    }
    const isLarge = chunkKind(entry) === CHUNK_LARGE;
    const sizeClass = isLarge ? -1 : chunkArgument(entry);
    const chunks = isLarge ? chunkArgument(entry) : slabChunks(sizeClass);
    usedUnits += isLarge ? chunks * CHUNK_UNITS : slabUnits(sizeClass);
    if (!inUse.has(chunk)) inUse.set(chunk, { chunks, sizeClass });
  }
  const maps = words[REGION_MAP_CHUNKS];
  const reserved = new Set<number>([0]);
  for (let i = 0; i < maps; i++) reserved.add(words[REGION_MAP + i]);
  let top = 1;
  for (const chunk of reserved) top = Math.max(top, chunk + 1);
  for (const [chunk, { chunks }] of inUse) top = Math.max(top, chunk + chunks);
  words.fill(0, REGION_RUN_BINS, REGION_RUN_BINS + REGION_RUN_BIN_COUNT);
  words.fill(0, REGION_SLABS, REGION_SLABS + REGION_CLASS_COUNT_MAX);
  words[REGION_FREE_CHUNKS] = 0;
  words[REGION_KEPT_SLABS] = 0;
  words[REGION_USED_UNITS] = usedUnits;
  const mapped = maps << 12;
  for (let chunk = top; chunk < Math.min(mapped, words.length >>> 12); chunk++) setChunk(region, chunk, 0, 0);
  words[REGION_TOP] = top;
  let freeFrom = -1;
  for (let chunk = 0; chunk < top;) {
    const use = inUse.get(chunk);
    const isFree = use === undefined && !reserved.has(chunk);
    if (isFree) {
      if (freeFrom === -1) freeFrom = chunk;
      setChunk(region, chunk, 0, 0);
      chunk++;
      continue;
    }
    if (freeFrom !== -1) listFreeRun(region, freeFrom, chunk - freeFrom);
    freeFrom = -1;
    if (use !== undefined && use.sizeClass !== -1) {
      setChunk(region, chunk, CHUNK_SLAB, use.sizeClass);
      rebuildSlab(region, chunk, use.sizeClass, live);
    }
    chunk += use?.chunks ?? 1;
  }
}
