/**
 * The upper half of the allocator: blocks in size classes.
 *
 * A slab is one or more chunks cut into blocks of one size. Its header (8 words) holds the list of
 * its freed blocks and the number in use; slabs with room are listed by class. An empty slab goes
 * back to the chunks, but for one that is the only one with room of its class, so that a pattern of "one in, one out" does not
 * give and take chunks all the time; that goes when another one is listed, or when there is no other memory. Blocks larger than the largest class are runs of chunks.
 *
 * Classes: steps of 8 bytes to 256, of 16 to 512; then, because a slab holds few of them, the
 * largest multiple of 8 of which n fit a slab: n = 31 down to 3 in one chunk, then 8 blocks in 3 to
 * 16 chunks. So a block loses at most 8 bytes up to 256, and about a tenth above.
 *
 * Every function runs under the region's lock. Blocks are named by their unit (offset / 8).
 */

import { assert } from '../base/errors.js';
import { CHUNK_LARGE, CHUNK_SLAB, CHUNK_PART, chunkArgument, chunkEntry, chunkKind, giveChunks, setChunk, takeChunks } from './chunks.js';
import {
  CHUNK_BYTES,
  CHUNK_UNITS,
  CHUNK_WORDS,
  REGION_CLASS_COUNT_MAX,
  REGION_FREE_CHUNKS,
  REGION_KEPT_SLABS,
  REGION_SLABS,
  REGION_USED_UNITS,
  type Region,
} from './region.js';

const SLAB_HEADER_BYTES = 32;
const SLAB_HEADER_UNITS = SLAB_HEADER_BYTES / 8;
// Words of a slab's header.
const SLAB_USED = 0;
/** Unit of the first freed block, or 0. A freed block's first word holds the next. */
const SLAB_FREED = 1;
/** Blocks ever handed out: those from here on are untouched. */
const SLAB_FRESH = 2;
/** Neighbours in the list of slabs with room: their first chunk, or 0. */
const SLAB_NEXT = 3;
const SLAB_PREVIOUS = 4;

/** The class of blocks that are runs of chunks. */
export const CLASS_LARGE = 255;

const sizes: number[] = [];
const chunkCounts: number[] = [];
const addClass = (bytes: number, chunks: number): void => {
  sizes.push(bytes);
  chunkCounts.push(chunks);
};
for (let bytes = 16; bytes <= 256; bytes += 8) addClass(bytes, 1);
for (let bytes = 272; bytes <= 512; bytes += 16) addClass(bytes, 1);
const ONE_CHUNK = CHUNK_BYTES - SLAB_HEADER_BYTES;
for (let count = 31; count >= 3; count--) {
  const bytes = Math.floor(ONE_CHUNK / count / 8) * 8;
  if (bytes > sizes[sizes.length - 1]) addClass(bytes, 1);
}
for (let chunks = 3; chunks <= 16; chunks++) addClass(Math.floor((chunks * CHUNK_BYTES - SLAB_HEADER_BYTES) / 8 / 8) * 8, chunks);

export const CLASS_COUNT = sizes.length;
/** Size of a class's blocks in bytes. */
export const CLASS_BYTES = Int32Array.from(sizes);
const CLASS_CHUNKS = Int32Array.from(chunkCounts);
const CLASS_CAPACITY = Int32Array.from(sizes, (bytes, i) => Math.floor((chunkCounts[i] * CHUNK_BYTES - SLAB_HEADER_BYTES) / bytes));
export const CLASSED_BYTES_MAX = sizes[sizes.length - 1];
/** Chunks of one slab of each class up to this one. */
const CHUNKS_UP_TO = Int32Array.from(chunkCounts, (_, i) => chunkCounts.slice(0, i + 1).reduce((sum, chunks) => sum + chunks, 0));
assert(CLASS_COUNT <= REGION_CLASS_COUNT_MAX, 'the region header has a list for every size class');

/** Class of a block of so many units. */
const CLASS_OF_UNITS = new Uint8Array(CLASSED_BYTES_MAX / 8 + 1);
for (let units = 0, size = 0; units < CLASS_OF_UNITS.length; units++) {
  if (units * 8 > sizes[size]) size++;
  CLASS_OF_UNITS[units] = size;
}

/** The class that holds `bytes`. */
export function classOf(bytes: number): number {
  return bytes <= CLASSED_BYTES_MAX ? CLASS_OF_UNITS[(bytes + 7) >>> 3] : CLASS_LARGE;
}

function listSlab(words: Int32Array, list: number, chunk: number): void {
  const next = words[list];
  const slab = chunk * CHUNK_WORDS;
  words[slab + SLAB_NEXT] = next;
  words[slab + SLAB_PREVIOUS] = 0;
  if (next !== 0) words[next * CHUNK_WORDS + SLAB_PREVIOUS] = chunk;
  words[list] = chunk;
}

function unlistSlab(words: Int32Array, list: number, chunk: number): void {
  const slab = chunk * CHUNK_WORDS;
  const next = words[slab + SLAB_NEXT];
  const previous = words[slab + SLAB_PREVIOUS];
  if (previous === 0) words[list] = next;
  else words[previous * CHUNK_WORDS + SLAB_NEXT] = next;
  if (next !== 0) words[next * CHUNK_WORDS + SLAB_PREVIOUS] = previous;
}

/** Takes a run of chunks; where there is none, once more when all empty slabs have been given back. */
function takeOrReclaim(region: Region, chunks: number): number {
  const chunk = takeChunks(region, chunks);
  return chunk === 0 && giveEmptySlabs(region) ? takeChunks(region, chunks) : chunk;
}

/** Gives the slabs back that were kept though they are empty. @returns whether there were any */
function giveEmptySlabs(region: Region): boolean {
  const words = region.words;
  if (words[REGION_KEPT_SLABS] === 0) return false;
  for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass++) giveKeptSlab(region, sizeClass);
  return true;
}

/** Gives the slab of a class back that was kept though it is empty: it is the only one in its list. */
function giveKeptSlab(region: Region, sizeClass: number): void {
  const words = region.words;
  const chunk = words[REGION_SLABS + sizeClass];
  if (chunk === 0 || words[chunk * CHUNK_WORDS + SLAB_USED] !== 0) return;
  words[REGION_KEPT_SLABS]--;
  giveSlab(region, chunk, sizeClass);
}

/** Gives an empty slab back to the chunks. */
function giveSlab(region: Region, chunk: number, sizeClass: number): void {
  unlistSlab(region.words, REGION_SLABS + sizeClass, chunk);
  for (let i = 1; i < CLASS_CHUNKS[sizeClass]; i++) setChunk(region, chunk + i, 0, 0);
  giveChunks(region, chunk, CLASS_CHUNKS[sizeClass]);
}

function newSlab(region: Region, sizeClass: number): number {
  const chunks = CLASS_CHUNKS[sizeClass];
  const chunk = takeOrReclaim(region, chunks);
  if (chunk === 0) return 0;
  setChunk(region, chunk, CHUNK_SLAB, sizeClass);
  for (let i = 1; i < chunks; i++) setChunk(region, chunk + i, CHUNK_PART, i);
  const words = region.words;
  const slab = chunk * CHUNK_WORDS;
  words[slab + SLAB_USED] = 0;
  words[slab + SLAB_FREED] = 0;
  words[slab + SLAB_FRESH] = 0;
  // Until the block is taken that it was made for.
  words[REGION_KEPT_SLABS]++;
  listSlab(words, REGION_SLABS + sizeClass, chunk);
  return chunk;
}

/**
 * Takes a block of at least `bytes`, which must be of class `sizeClass`. Its contents are undefined.
 * Where there is no memory for a new slab, a block of a larger class serves: the region's `takenClass` says which, until the next one is taken, and `classAt`.
 * @returns its unit, or 0 when there is no memory
 */
export function allocate(region: Region, bytes: number, sizeClass: number): number {
  if (sizeClass === CLASS_LARGE) return allocateLarge(region, bytes);
  let unit = allocateClassed(region, sizeClass);
  for (let larger = sizeClass + 1; unit === 0 && larger < CLASS_COUNT; larger++) {
    if (region.words[REGION_SLABS + larger] !== 0) unit = allocateClassed(region, larger);
  }
  return unit;
}

/** Whether `allocate` would find a block of at least `bytes` in the memory that the region has. May say no where the answer is yes. */
export function hasBlock(region: Region, bytes: number): boolean {
  const { words } = region;
  const sizeClass = classOf(bytes);
  if (sizeClass === CLASS_LARGE) return false;
  for (let larger = sizeClass; larger < CLASS_COUNT; larger++) if (words[REGION_SLABS + larger] !== 0) return true;
  return CLASS_CHUNKS[sizeClass] === 1 && words[REGION_FREE_CHUNKS] > 0;
}

/**
 * Whether `allocate` would find so many blocks, each of up to `bytes`, in the memory that the region has, although up to `freed` others are given back between them. May say no where
 * the answer is yes. A block of a smaller class may take a whole chunk for a slab of its own, and an empty slab with it: either counts as one block, and so does a slab that may become empty.
 * @param chunks how many of the free chunks count
 * @param exceptClass a larger class whose blocks do not
 */
export function hasBlocks(region: Region, bytes: number, count: number, freed: number, chunks: number, exceptClass: number): boolean {
  if (count === 0) return true;
  const { words } = region;
  const sizeClass = classOf(bytes);
  if (sizeClass === CLASS_LARGE) return false;
  const isOneChunk = CLASS_CHUNKS[sizeClass] === 1;
  let left = isOneChunk ? count - chunks : count;
  for (let larger = sizeClass; larger < CLASS_COUNT; larger++) {
    if (larger === exceptClass) continue;
    for (let chunk = words[REGION_SLABS + larger]; chunk !== 0 && left > 0; chunk = words[chunk * CHUNK_WORDS + SLAB_NEXT]) {
      const used = words[chunk * CHUNK_WORDS + SLAB_USED];
      if (used > freed) left -= CLASS_CAPACITY[larger] - used;
      else if (isOneChunk) left--;
    }
  }
  return left <= 0;
}

/** Blocks of a class that are free in its slabs. */
export function blocksFree(region: Region, sizeClass: number): number {
  const { words } = region;
  let blocks = 0;
  for (let chunk = words[REGION_SLABS + sizeClass]; chunk !== 0; chunk = words[chunk * CHUNK_WORDS + SLAB_NEXT])
    blocks += CLASS_CAPACITY[sizeClass] - words[chunk * CHUNK_WORDS + SLAB_USED];
  return blocks;
}

/** Chunks that so many blocks, each of up to `bytes`, take at most: of classes that all have to open a slab, and then of those that need most. */
export function chunksFor(bytes: number, count: number): number {
  const sizeClass = classOf(bytes);
  const isLarge = sizeClass === CLASS_LARGE;
  const largest = isLarge ? CLASS_COUNT - 1 : sizeClass;
  const run = isLarge ? Math.ceil(bytes / CHUNK_BYTES) : 0;
  const most = isLarge ? run : CLASS_CHUNKS[sizeClass] / CLASS_CAPACITY[sizeClass];
  const opened = CHUNKS_UP_TO[largest] - (count > largest ? 0 : CHUNKS_UP_TO[largest - count]);
  return run + opened + Math.ceil((count - 1) * most);
}

/** Size class of the block at `unit`. */
export function classAt(region: Region, unit: number): number {
  let entry = chunkEntry(region, unit >>> 11);
  if (chunkKind(entry) === CHUNK_PART) entry = chunkEntry(region, (unit >>> 11) - chunkArgument(entry));
  return chunkKind(entry) === CHUNK_SLAB ? chunkArgument(entry) : CLASS_LARGE;
}

function allocateClassed(region: Region, sizeClass: number): number {
  let words = region.words;
  let chunk = words[REGION_SLABS + sizeClass];
  if (chunk === 0) {
    chunk = newSlab(region, sizeClass);
    if (chunk === 0) return 0;
    words = region.words;
  }
  const slab = chunk * CHUNK_WORDS;
  let unit = words[slab + SLAB_FREED];
  if (unit !== 0) {
    words[slab + SLAB_FREED] = words[unit * 2];
  } else {
    const fresh = words[slab + SLAB_FRESH]++;
    unit = chunk * CHUNK_UNITS + SLAB_HEADER_UNITS + fresh * (CLASS_BYTES[sizeClass] >>> 3);
  }
  const used = words[slab + SLAB_USED] + 1;
  if (used === 1) words[REGION_KEPT_SLABS]--;
  words[slab + SLAB_USED] = used;
  if (used === CLASS_CAPACITY[sizeClass]) unlistSlab(words, REGION_SLABS + sizeClass, chunk);
  words[REGION_USED_UNITS] += CLASS_BYTES[sizeClass] >>> 3;
  region.takenClass = sizeClass;
  return unit;
}

function allocateLarge(region: Region, bytes: number): number {
  const chunks = Math.ceil(bytes / CHUNK_BYTES);
  const chunk = takeOrReclaim(region, chunks);
  if (chunk === 0) return 0;
  setChunk(region, chunk, CHUNK_LARGE, chunks);
  // The last chunk says that it is not free: whoever frees the next run looks at it.
  if (chunks > 1) setChunk(region, chunk + chunks - 1, CHUNK_PART, chunks - 1);
  region.words[REGION_USED_UNITS] += chunks * CHUNK_UNITS;
  region.takenClass = CLASS_LARGE;
  return chunk * CHUNK_UNITS;
}

/** Size in bytes of the block at `unit`: what fits without moving. */
export function blockBytes(region: Region, unit: number, sizeClass: number): number {
  if (sizeClass !== CLASS_LARGE) return CLASS_BYTES[sizeClass];
  return chunkArgument(chunkEntry(region, unit >>> 11)) * CHUNK_BYTES;
}

/** Gives a block back. Its first word is overwritten. */
export function free(region: Region, unit: number, sizeClass: number): void {
  const words = region.words;
  let chunk = unit >>> 11;
  if (sizeClass === CLASS_LARGE) {
    const chunks = chunkArgument(chunkEntry(region, chunk));
    words[REGION_USED_UNITS] -= chunks * CHUNK_UNITS;
    giveChunks(region, chunk, chunks);
    return;
  }
  if (CLASS_CHUNKS[sizeClass] !== 1) {
    const entry = chunkEntry(region, chunk);
    if (chunkKind(entry) === CHUNK_PART) chunk -= chunkArgument(entry);
  }
  words[REGION_USED_UNITS] -= CLASS_BYTES[sizeClass] >>> 3;
  const slab = chunk * CHUNK_WORDS;
  words[unit * 2] = words[slab + SLAB_FREED];
  words[slab + SLAB_FREED] = unit;
  const used = words[slab + SLAB_USED] - 1;
  words[slab + SLAB_USED] = used;
  const list = REGION_SLABS + sizeClass;
  if (used === CLASS_CAPACITY[sizeClass] - 1) {
    giveKeptSlab(region, sizeClass);
    listSlab(words, list, chunk);
  } else if (used === 0 && words[list] === chunk && words[slab + SLAB_NEXT] === 0) {
    words[REGION_KEPT_SLABS]++;
  } else if (used === 0) {
    giveSlab(region, chunk, sizeClass);
  }
}

/** The slab of a single chunk in which a block lies, and how many of its blocks are in use; 0 for other blocks. For who does not hold the region's lock: it may have changed. */
export function slabOf(region: Region, unit: number): { chunk: number; used: number } {
  const chunk = unit >>> 11;
  const entry = chunkEntry(region, chunk);
  if (chunkKind(entry) !== CHUNK_SLAB || CLASS_CHUNKS[chunkArgument(entry)] !== 1) return { chunk: 0, used: 0 };
  return { chunk, used: region.words[chunk * CHUNK_WORDS + SLAB_USED] };
}

/** Units of all blocks that such a slab has handed out, those that came back included, and their class. For who does not hold the region's lock. */
export function blocksOf(region: Region, chunk: number): { sizeClass: number; units: number[] } {
  const sizeClass = chunkArgument(chunkEntry(region, chunk));
  const units: number[] = [];
  const count = Math.min(region.words[chunk * CHUNK_WORDS + SLAB_FRESH], CLASS_CAPACITY[sizeClass]);
  for (let i = 0; i < count; i++) units.push(chunk * CHUNK_UNITS + SLAB_HEADER_UNITS + i * (CLASS_BYTES[sizeClass] >>> 3));
  return { sizeClass, units };
}

/** Chunks of a slab of this class. */
export function slabChunks(sizeClass: number): number {
  return CLASS_CHUNKS[sizeClass];
}

/** Units of a block of this class. */
export function slabUnits(sizeClass: number): number {
  return CLASS_BYTES[sizeClass] >>> 3;
}

/** Makes a slab's header and its list of free blocks anew, and lists it if it has room. */
export function rebuildSlab(region: Region, chunk: number, sizeClass: number, live: { has(unit: number): boolean }): void {
  const words = region.words;
  const slab = chunk * CHUNK_WORDS;
  const step = CLASS_BYTES[sizeClass] >>> 3;
  const first = chunk * CHUNK_UNITS + SLAB_HEADER_UNITS;
  let used = 0;
  let freed = 0;
  for (let i = CLASS_CAPACITY[sizeClass] - 1; i >= 0; i--) {
    const unit = first + i * step;
    if (live.has(unit)) {
      used++;
    } else {
      words[unit * 2] = freed;
      freed = unit;
    }
  }
  words[slab + SLAB_USED] = used;
  words[slab + SLAB_FREED] = freed;
  words[slab + SLAB_FRESH] = CLASS_CAPACITY[sizeClass];
  words[slab + SLAB_NEXT] = 0;
  words[slab + SLAB_PREVIOUS] = 0;
  if (used < CLASS_CAPACITY[sizeClass]) listSlab(words, REGION_SLABS + sizeClass, chunk);
}
