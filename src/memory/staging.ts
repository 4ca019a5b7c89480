/**
 * The staging region: where records wait that are too long for the ring.
 *
 * A staged record lies in a block of its own, and a short record in the ring points to it. The block
 * is needed until the log thread has written it and its writer has applied it. Blocks are freed
 * lazily, by whoever stages next or flushes.
 *
 * Bounded: a record is staged when what is staged stays below STAGED_BYTES_MAX, or when nothing is staged; otherwise
 * its writer waits for room as for room in the ring.
 *
 * Guarded by the staging lock (control line 7), which is never held across a copy of a value.
 */

import { lsnFrom } from '../base/lsn.js';
import type { Control } from './control.js';
import * as L from './layout.js';
import { acquire, release } from './lock.js';
import { UnitSet, rebuildAllocator } from './rebuild.js';
import { Region } from './region.js';
import { isApplying } from './registry.js';
import { allocate, blockBytes, classAt, classOf, free } from './slabs.js';

const STAGED_BYTES_MAX = 64 * 1024 * 1024;

// Header of a block, in words; the record follows.
const BLOCK_NEXT = 0;
const BLOCK_CLASS = 1;
const BLOCK_POSITION = 2;
/** 0 while its record is not in the ring yet. */
const BLOCK_IN_RING = 3;
const BLOCK_LSN_LOW = 4;
const BLOCK_LSN_HIGH = 5;
/** Slot + 1 of the thread that took the block. */
const BLOCK_OWNER = 6;
const BLOCK_HEADER_BYTES = 32;
export const STAGED_RECORD_WORD = BLOCK_HEADER_BYTES / 4;

export class Staging {
  readonly region: Region;
  readonly #control: Int32Array;
  readonly #store: Control;
  readonly #self: number;

  constructor(buffer: SharedArrayBuffer, control: Control, slot: number) {
    // Not under the cap: a delete must find room here when the store is full.
    this.region = new Region(buffer, control.words, false);
    this.#control = control.words;
    this.#store = control;
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
      const unit = allocate(region, size, classOf(size));
      if (unit === 0) return -1;
      const sizeClass = classAt(region, unit);
      const words = region.words;
      const block = unit * 2;
      words[block + BLOCK_NEXT] = 0;
      words[block + BLOCK_CLASS] = sizeClass;
      words[block + BLOCK_IN_RING] = 0;
      words[block + BLOCK_OWNER] = this.#self;
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

  /** The block's record has its place in the ring, at `position`, and its LSN. */
  bind(unit: number, position: number, lsnLow: number, lsnHigh: number): void {
    const words = this.region.words;
    words[unit * 2 + BLOCK_LSN_LOW] = lsnLow;
    words[unit * 2 + BLOCK_LSN_HIGH] = lsnHigh;
    words[unit * 2 + BLOCK_POSITION] = position;
    Atomics.store(words, unit * 2 + BLOCK_IN_RING, 1);
  }

  /** Gives a block back whose record never came into the ring. */
  abandon(unit: number): void {
    this.bind(unit, 0, 0, 0);
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

  /** Gives back what a dead thread took and did not bring into the ring. */
  abandonAllOf(slot: number): void {
    const control = this.#control;
    acquire(control, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS, this.#self, 'staging');
    try {
      this.region.sync();
      const words = this.region.words;
      for (let unit = control[L.CONTROL_STAGED_FIRST]; unit !== 0; unit = words[unit * 2 + BLOCK_NEXT]) {
        if (words[unit * 2 + BLOCK_OWNER] === slot + 1 && Atomics.load(words, unit * 2 + BLOCK_IN_RING) === 0) this.bind(unit, 0, 0, 0);
      }
      this.#reclaimLocked();
    } finally {
      release(control, L.CONTROL_STAGING_LOCK, L.CONTROL_STAGING_WAITERS);
    }
  }

  /**
   * Makes the region whole after a thread has died while it held the staging lock: the list of blocks is what counts, and is whole
   * at every instruction. The lock stays the dead thread's.
   */
  repairLocked(): void {
    const control = this.#control;
    const region = this.region;
    region.refresh();
    const words = region.words;
    const blocks: number[] = [];
    const live = new UnitSet(region);
    let last = 0;
    let units = 0;
    for (let unit = control[L.CONTROL_STAGED_FIRST]; unit !== 0; unit = words[unit * 2 + BLOCK_NEXT]) {
      if (!live.add(unit)) break;
      blocks.push(unit);
      units += blockBytes(region, unit, words[unit * 2 + BLOCK_CLASS]) / 8;
      last = unit;
    }
    control[L.CONTROL_STAGED_LAST] = last;
    control[L.CONTROL_STAGED_UNITS] = units;
    rebuildAllocator(region, blocks, live);
  }

  #done(block: number, writtenLsn: number): boolean {
    const words = this.region.words;
    const lsn = lsnFrom(words[block + BLOCK_LSN_LOW], words[block + BLOCK_LSN_HIGH]);
    if (lsn === 0) return true;
    return lsn <= writtenLsn && !isApplying(this.#store, words[block + BLOCK_POSITION]);
  }

  #reclaimLocked(): void {
    const control = this.#control;
    const region = this.region;
    const words = region.words;
    const written = this.#store.writtenLsn;
    let previous = 0;
    let unit = control[L.CONTROL_STAGED_FIRST];
    while (unit !== 0) {
      const block = unit * 2;
      const next = words[block + BLOCK_NEXT];
      if (Atomics.load(words, block + BLOCK_IN_RING) !== 0 && this.#done(block, written)) {
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
