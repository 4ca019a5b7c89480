/**
 * The lower half of the allocator: runs of 16 KiB chunks.
 *
 * The chunk map says of every chunk what it is, in one word: kind in bits 0-2, an argument above.
 * Free neighbours are always merged, and a free run at the top is given back to the top, so a region
 * fragments only where something in use lies between. Free runs are listed by length, exact below 16
 * chunks, by powers of two above; the list's links lie in the free chunks themselves.
 *
 * Every function runs under the region's lock.
 */

import {
  CHUNK_BYTES,
  CHUNK_WORDS,
  REGION_FREE_CHUNKS,
  REGION_MAP,
  REGION_MAP_CHUNKS,
  REGION_MAP_COUNT_MAX,
  REGION_RUN_BINS,
  REGION_RUN_BIN_COUNT,
  REGION_TOP,
  type Region,
} from './region.js';

const CHUNK_UNUSED = 0;
/** First chunk of a free run; argument: its length. */
const CHUNK_FREE = 1;
/** Last chunk of a free run of two or more; argument: its length. */
const CHUNK_FREE_END = 2;
/** First chunk of a slab; argument: its size class. */
export const CHUNK_SLAB = 3;
/** Further chunk of a slab, or last chunk of a large block; argument: how many chunks before it that starts. */
export const CHUNK_PART = 4;
/** First chunk of a run that holds one large block; argument: its length. */
export const CHUNK_LARGE = 5;

const KIND_BITS = 3;
const KIND_MASK = 7;
/** Chunks that one chunk of the map describes. */
const MAP_SPAN = CHUNK_WORDS;
/** How many runs of a power-of-two bin are looked at before a larger bin is used. */
const BIN_SCAN_MAX = 16;

export function chunkEntry(region: Region, chunk: number): number {
  const words = region.words;
  return words[words[REGION_MAP + (chunk >>> 12)] * CHUNK_WORDS + (chunk & (MAP_SPAN - 1))];
}

export function chunkKind(entry: number): number {
  return entry & KIND_MASK;
}

export function chunkArgument(entry: number): number {
  return entry >>> KIND_BITS;
}

export function setChunk(region: Region, chunk: number, kind: number, argument: number): void {
  const words = region.words;
  words[words[REGION_MAP + (chunk >>> 12)] * CHUNK_WORDS + (chunk & (MAP_SPAN - 1))] = (argument << KIND_BITS) | kind;
}

function binOf(length: number): number {
  return length < 16 ? length : Math.min(REGION_RUN_BIN_COUNT - 1, 43 - Math.clz32(length));
}

export function listFreeRun(region: Region, chunk: number, length: number): void {
  const words = region.words;
  const bin = REGION_RUN_BINS + binOf(length);
  const next = words[bin];
  words[chunk * CHUNK_WORDS] = next;
  words[chunk * CHUNK_WORDS + 1] = 0;
  if (next !== 0) words[next * CHUNK_WORDS + 1] = chunk;
  words[bin] = chunk;
  setChunk(region, chunk, CHUNK_FREE, length);
  if (length > 1) setChunk(region, chunk + length - 1, CHUNK_FREE_END, length);
  words[REGION_FREE_CHUNKS] += length;
}

function unlistRun(region: Region, chunk: number, length: number): void {
  const words = region.words;
  const next = words[chunk * CHUNK_WORDS];
  const previous = words[chunk * CHUNK_WORDS + 1];
  if (previous === 0) words[REGION_RUN_BINS + binOf(length)] = next;
  else words[previous * CHUNK_WORDS] = next;
  if (next !== 0) words[next * CHUNK_WORDS + 1] = previous;
  words[REGION_FREE_CHUNKS] -= length;
}

/** Takes `length` chunks from the top. The map grows first, so that no map chunk lies inside the run. */
function takeFromTop(region: Region, length: number): number {
  let top = region.words[REGION_TOP];
  let maps = region.words[REGION_MAP_CHUNKS];
  let mapsNeeded = maps;
  while (mapsNeeded * MAP_SPAN < top + (mapsNeeded - maps) + length) mapsNeeded++;
  if (mapsNeeded > REGION_MAP_COUNT_MAX) return 0;
  if (!region.grow((top + (mapsNeeded - maps) + length) * CHUNK_BYTES)) return 0;
  const words = region.words;
  for (; maps < mapsNeeded; maps++) {
    words.fill(0, top * CHUNK_WORDS, (top + 1) * CHUNK_WORDS);
    words[REGION_MAP + maps] = top++;
  }
  words[REGION_MAP_CHUNKS] = maps;
  words[REGION_TOP] = top + length;
  return top;
}

/**
 * Takes a run of chunks. Its contents are whatever was there before.
 * @returns the first chunk, or 0 when there is no memory
 */
export function takeChunks(region: Region, length: number): number {
  const words = region.words;
  for (let bin = binOf(length); bin < REGION_RUN_BIN_COUNT; bin++) {
    let chunk = words[REGION_RUN_BINS + bin];
    for (let scanned = 0; chunk !== 0 && scanned < BIN_SCAN_MAX; scanned++) {
      const found = chunkArgument(chunkEntry(region, chunk));
      if (found >= length) {
        unlistRun(region, chunk, found);
        if (found > length) listFreeRun(region, chunk + length, found - length);
        return chunk;
      }
      chunk = words[chunk * CHUNK_WORDS];
    }
  }
  return takeFromTop(region, length);
}

/** Gives a run back, merging it with its free neighbours. */
export function giveChunks(region: Region, first: number, count: number): void {
  let chunk = first;
  let length = count;
  const words = region.words;
  setChunk(region, chunk, CHUNK_UNUSED, 0);
  setChunk(region, chunk + length - 1, CHUNK_UNUSED, 0);
  const top = words[REGION_TOP];
  if (chunk + length < top) {
    const after = chunkEntry(region, chunk + length);
    if (chunkKind(after) === CHUNK_FREE) {
      const merged = chunkArgument(after);
      unlistRun(region, chunk + length, merged);
      setChunk(region, chunk + length, CHUNK_UNUSED, 0);
      length += merged;
    }
  }
  const before = chunkEntry(region, chunk - 1);
  const beforeKind = chunkKind(before);
  if (beforeKind === CHUNK_FREE_END || (beforeKind === CHUNK_FREE && chunkArgument(before) === 1)) {
    const merged = chunkArgument(before);
    unlistRun(region, chunk - merged, merged);
    setChunk(region, chunk - 1, CHUNK_UNUSED, 0);
    chunk -= merged;
    length += merged;
  }
  if (chunk + length === top) {
    setChunk(region, chunk, CHUNK_UNUSED, 0);
    words[REGION_TOP] = chunk;
  } else {
    listFreeRun(region, chunk, length);
  }
}

/**
 * Makes sure that `bytes` can be taken from the top later without fail, in any mixture of runs.
 * @returns false when there is no memory for it
 */
export function reserveTop(region: Region, bytes: number): boolean {
  // One map chunk for every 64 MiB, and one more for the part begun.
  const chunks = Math.ceil(bytes / CHUNK_BYTES) + Math.ceil(bytes / (CHUNK_BYTES * MAP_SPAN)) + 1;
  return region.grow((region.words[REGION_TOP] + chunks) * CHUNK_BYTES);
}
