/**
 * The staging region: where records wait that are too long for the ring.
 *
 * A staged record lies in a block of its own, and a short record in the ring points to it. The block
 * is needed until the ring's tail has passed that short record: the log thread has written it then,
 * and its writer has applied it. Blocks are freed lazily, by whoever stages next or flushes.
 *
 * Bounded: a record is staged when what is staged stays below STAGED_BYTES_MAX, or when nothing is staged; otherwise
 * its writer waits for room as for room in the ring.
 *
 * Guarded by the staging lock (control line 7), which is never held across a copy of a value.
 */

import type { Control } from './control.js';
import * as L from './layout.js';
import { acquire, release } from './lock.js';
import { Region } from './region.js';
import { allocate, blockBytes, classOf, free } from './slabs.js';

const STAGED_BYTES_MAX = 64 * 1024 * 1024;

// Header of a block, in words; the record follows.
const BLOCK_NEXT = 0;
const BLOCK_CLASS = 1;
const BLOCK_POSITION = 2;
/** 0 while its record is not in the ring yet. */
const BLOCK_IN_RING = 3;
const BLOCK_HEADER_BYTES = 32;
export const STAGED_RECORD_WORD = BLOCK_HEADER_BYTES / 4;

export class Staging {
  readonly region: Region;
  readonly #control: Int32Array;
  readonly #self: number;

  constructor(buffer: SharedArrayBuffer, control: Control, slot: number) {
    this.region = new Region(buffer, control.words);
    this.#control = control.words;
    this.#self = slot + 1;
  }

  /**
   * Takes a block for a record of `bytes`.
   * @returns the block's unit; 0 when there is too much staged (try again later); -1 when there is no memory
   */
  take(bytes: number): number {
    const control = this.#control;
    const size = bytes + BLOCK_HEADER_BYTES;
    acquire(control, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS, this.#self, 'staging');
    try {
      const region = this.region;
      region.sync();
      this.#reclaimLocked();
      const staged = control[L.CONTROL_STAGED_UNITS] * 8;
      if (staged !== 0 && staged + size > STAGED_BYTES_MAX) return 0;
      const sizeClass = classOf(size);
      const unit = allocate(region, size, sizeClass);
      if (unit === 0) return -1;
      const words = region.words;
      const block = unit * 2;
      words[block + BLOCK_NEXT] = 0;
      words[block + BLOCK_CLASS] = sizeClass;
      words[block + BLOCK_IN_RING] = 0;
      const last = control[L.CONTROL_STAGED_LAST];
      if (last === 0) control[L.CONTROL_STAGED_FIRST] = unit;
      else words[last * 2 + BLOCK_NEXT] = unit;
      control[L.CONTROL_STAGED_LAST] = unit;
      control[L.CONTROL_STAGED_UNITS] += blockBytes(region, unit, sizeClass) / 8;
      return unit;
    } finally {
      release(control, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS);
    }
  }

  /** The block's record has its place in the ring, at `position`. */
  bind(unit: number, position: number): void {
    const words = this.region.words;
    words[unit * 2 + BLOCK_POSITION] = position;
    Atomics.store(words, unit * 2 + BLOCK_IN_RING, 1);
  }

  /** Gives a block back whose record never came into the ring. */
  abandon(unit: number): void {
    this.bind(unit, (Atomics.load(this.#control, L.CONTROL_RING_TAIL) - 1) | 0);
    this.reclaim();
  }

  /** Frees the blocks that are done with. */
  reclaim(): void {
    const control = this.#control;
    if (Atomics.load(control, L.CONTROL_STAGED_UNITS) === 0) return;
    acquire(control, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS, this.#self, 'staging');
    try {
      this.region.sync();
      this.#reclaimLocked();
    } finally {
      release(control, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS);
    }
  }

  #reclaimLocked(): void {
    const control = this.#control;
    const region = this.region;
    const words = region.words;
    const tail = Atomics.load(control, L.CONTROL_RING_TAIL);
    let previous = 0;
    let unit = control[L.CONTROL_STAGED_FIRST];
    while (unit !== 0) {
      const block = unit * 2;
      const next = words[block + BLOCK_NEXT];
      if (Atomics.load(words, block + BLOCK_IN_RING) !== 0 && ((tail - words[block + BLOCK_POSITION]) | 0) > 0) {
        if (previous === 0) control[L.CONTROL_STAGED_FIRST] = next;
        else words[previous * 2 + BLOCK_NEXT] = next;
        if (next === 0) control[L.CONTROL_STAGED_LAST] = previous;
        const sizeClass = words[block + BLOCK_CLASS];
        control[L.CONTROL_STAGED_UNITS] -= blockBytes(region, unit, sizeClass) / 8;
        free(region, unit, sizeClass);
      } else {
        previous = unit;
      }
      unit = next;
    }
  }
}
