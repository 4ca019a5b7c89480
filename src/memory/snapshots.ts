/**
 * The table of open snapshots: which LSNs somebody still reads at.
 *
 * Guarded by the log lock: under it no record is reserved, so "every record up to the last one reserved" is a moment that all threads agree on.
 * A writer reads the youngest snapshot's LSN before it reserves, and hands the epoch that it saw to the reservation, which refuses when a
 * snapshot was opened in between (ring.ts): so a record past a snapshot was always planned with that snapshot in view.
 *
 * Records up to the snapshot's LSN may still be on their way into the tables. Their threads are busy, and `open` waits for them:
 * some microseconds, bounded by LOCK_TIMEOUT_MS; when such a thread has died, until the owner has repaired what it left.
 */

import { FlashVectorError } from '../base/errors.js';
import type { Control } from './control.js';
import type { Clock } from './clock.js';
import * as L from './layout.js';
import { acquire, askGuardian, release } from './lock.js';
import { threadWord } from './registry.js';
import type { Ring } from './ring.js';

const SPINS = 2000;
const SLEEP_MS = 1;
const WAIT_MS_MAX = 10_000;

export class SnapshotTable {
  readonly #control: Control;
  readonly #words: Int32Array;
  readonly #opened: Float64Array;
  readonly #self: number;

  constructor(
    control: Control,
    readonly slot: number,
    readonly ring: Ring,
    readonly clock: Clock,
  ) {
    this.#control = control;
    this.#words = control.words;
    this.#opened = new Float64Array(control.buffer, 0, control.buffer.byteLength >>> 3);
    this.#self = slot + 1;
  }

  #word(index: number): number {
    return this.#control.shape.snapshotAreaWord + index * L.SNAPSHOT_WORDS;
  }

  /** Open snapshots. */
  get count(): number {
    return Atomics.load(this.#words, L.CONTROL_SNAPSHOT_COUNT);
  }

  lsnOf(index: number): number {
    return this.#control.readLsn(this.#word(index) + L.SNAPSHOT_LSN);
  }

  /** When the oldest open snapshot was opened, in ms of the store's clock, or `undefined`. */
  get oldestOpenedMs(): number | undefined {
    let oldest: number | undefined;
    for (let index = 0; index < Atomics.load(this.#words, L.CONTROL_SNAPSHOT_SLOTS); index++) {
      const word = this.#word(index);
      if (Atomics.load(this.#words, word + L.SNAPSHOT_THREAD) === 0) continue;
      const opened = this.#opened[(word + L.SNAPSHOT_OPENED) >>> 1];
      if (oldest === undefined || opened < oldest) oldest = opened;
    }
    return oldest;
  }

  /**
   * Opens a snapshot of everything reserved so far.
   * @returns its index in the table
   * @throws FlashVectorError FV_MEMORY_FULL when too many are open, FV_TIMEOUT
   */
  open(): number {
    const words = this.#words;
    const openedMs = this.clock.now();
    acquire(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS, this.#self, 'log');
    let index = 0;
    let lsn = 0;
    try {
      while (index < L.SNAPSHOTS_MAX && words[this.#word(index) + L.SNAPSHOT_THREAD] !== 0) index++;
      if (index === L.SNAPSHOTS_MAX) throw new FlashVectorError('FV_MEMORY_FULL', `${L.SNAPSHOTS_MAX} snapshots are open; close some`);
      lsn = this.#control.readLsn(L.CONTROL_NEXT_LSN) - 1;
      const word = this.#word(index);
      this.#control.storeLsn(word + L.SNAPSHOT_LSN, lsn);
      this.#opened[(word + L.SNAPSHOT_OPENED) >>> 1] = openedMs;
      // Before the slot is taken: who dies in between leaves a slot that is found.
      if (index >= words[L.CONTROL_SNAPSHOT_SLOTS]) Atomics.store(words, L.CONTROL_SNAPSHOT_SLOTS, index + 1);
      Atomics.store(words, word + L.SNAPSHOT_THREAD, this.#self);
      this.#recount();
      Atomics.add(words, L.CONTROL_SNAPSHOT_EPOCH, 1);
    } finally {
      release(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
    }
    try {
      this.#awaitApplied(lsn);
    } catch (error) {
      this.close(index);
      throw error;
    }
    return index;
  }

  close(index: number): void {
    const words = this.#words;
    acquire(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS, this.#self, 'log');
    Atomics.store(words, this.#word(index) + L.SNAPSHOT_THREAD, 0);
    this.#recount();
    release(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
  }

  /** Closes all snapshots of a thread that has died. */
  closeAllOf(slot: number): void {
    const words = this.#words;
    acquire(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS, this.#self, 'log');
    for (let index = 0; index < words[L.CONTROL_SNAPSHOT_SLOTS]; index++) {
      const word = this.#word(index) + L.SNAPSHOT_THREAD;
      if (words[word] === slot + 1) Atomics.store(words, word, 0);
    }
    // Also where the thread died in the middle of opening or closing one: everything is counted anew.
    this.#recount();
    release(words, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
  }

  /** The youngest, the oldest, how many. Under the log lock. */
  #recount(): void {
    const words = this.#words;
    let count = 0;
    let newest = 0;
    let oldest: number = L.SNAPSHOT_NONE;
    let slots = 0;
    for (let index = 0; index < words[L.CONTROL_SNAPSHOT_SLOTS]; index++) {
      if (words[this.#word(index) + L.SNAPSHOT_THREAD] === 0) continue;
      const lsn = this.lsnOf(index);
      count++;
      slots = index + 1;
      if (lsn > newest) newest = lsn;
      if (lsn < oldest) oldest = lsn;
    }
    this.#control.storeLsn(L.CONTROL_SNAPSHOT_NEWEST, newest);
    // Always: what is there may be half of what a thread stored that has died.
    this.#control.storeLsn(L.CONTROL_SNAPSHOT_OLDEST, oldest);
    if (words[L.CONTROL_SNAPSHOT_SLOTS] !== slots) Atomics.store(words, L.CONTROL_SNAPSHOT_SLOTS, slots);
    Atomics.store(words, L.CONTROL_SNAPSHOT_COUNT, count);
  }

  /** Waits until no thread is applying a record up to `lsn`. @throws FlashVectorError FV_TIMEOUT */
  #awaitApplied(lsn: number): void {
    let since = 0;
    // A thread that takes its slot from now on writes past `lsn`.
    const slots = Atomics.load(this.#words, L.CONTROL_THREAD_SLOTS);
    for (let slot = 0; slot < slots; slot++) {
      for (let spins = 0; slot !== this.slot && this.#isApplyingUpTo(slot, lsn); spins++) {
        if (spins < SPINS) continue;
        if (since === 0) since = performance.now();
        // Nobody wakes this one: it looks again after a millisecond.
        Atomics.wait(this.#words, L.CONTROL_FENCE, this.#words[L.CONTROL_FENCE], SLEEP_MS);
        if (this.#isApplyingUpTo(slot, lsn)) askGuardian(this.#words, slot);
        if (performance.now() - since > WAIT_MS_MAX)
          throw new FlashVectorError('FV_TIMEOUT', `thread slot ${slot} has been in the middle of a write for ${WAIT_MS_MAX} ms`);
      }
    }
  }

  #isApplyingUpTo(slot: number, lsn: number): boolean {
    const words = this.#words;
    const word = threadWord(this.#control, slot);
    if (Atomics.load(words, word + L.THREAD_BUSY) === 0) return false;
    const applying = this.ring.lsnOfApplying(slot);
    // It may have finished, and begun another record, between the two loads: then it is looked at once more.
    return applying <= lsn && Atomics.load(words, word + L.THREAD_BUSY) !== 0;
  }
}
