/**
 * The ring between writers and the log thread: the writers' side.
 *
 * Positions count units of 8 bytes and wrap at 2^32; `position & mask` is a unit in the ring. The
 * record format is in base/record.ts. Order of operations of one write, and why:
 *
 * 1. Under the log lock: header words, state RESERVED; then this thread's registry slot says "busy
 *    applying the record at this position"; then the LSN counter; then the head. The head comes last, so a
 *    thread that dies before has reserved nothing, and the log thread, which reads the head first,
 *    never meets a header that is not there.
 * 2. Body copied, then the state word stored as PUBLISHED: the log thread loads that word before
 *    it reads the body.
 * 3. The record is applied to the tables, then the slot is no longer busy. The log thread moves the
 *    tail at most to the oldest record being applied, so the record stays readable for a repair.
 *
 * Waking: the writer stores PUBLISHED, releases its shard locks (a full barrier) and then loads LOG_SLEEPING;
 * the log thread stores LOG_SLEEPING and then looks for published records again. One of them sees the other.
 */

import {
  DURABILITY_MEMORY,
  KIND_PAD,
  RECORD_HEADER_WORDS,
  RECORD_LENGTH,
  RECORD_LSN_HIGH,
  RECORD_LSN_LOW,
  RECORD_STATE,
  STATE_PUBLISHED,
  STATE_RESERVED,
  recordState,
} from '../base/record.js';
import { lsnFrom } from '../base/lsn.js';
import type { Control } from './control.js';
import { loadAcquire, storeRelease } from './fence.js';
import * as L from './layout.js';
import { acquire, release } from './lock.js';
import { threadWord } from './registry.js';

/**
 * Room that ordinary records leave free for the records that define structures. A store defines at
 * most 32 of them, of at most 512 bytes each, so such a record always finds room.
 */
export const RING_HEADROOM_BYTES = 20_480;
/** No room in the ring: let go of every lock, wait for ROOM_EPOCH, try again. */
export const NO_ROOM = -1;
/** A snapshot was opened since the write was planned: let go of every lock, and plan it again. */
const SNAPSHOT_OPENED = -2;
export const ANY_EPOCH = -1;
/** Bits of CONTROL_SNAPSHOT_EPOCH that are compared: so no epoch looks like ANY_EPOCH. */
export const EPOCH_MASK = 0x7fff_ffff;

export class Ring {
  readonly words: Int32Array;
  readonly bytes: Buffer;
  readonly #control: Int32Array;
  readonly #mask: number;
  readonly #self: number;
  readonly #threadWord: number;
  readonly #store: Control;
  /** Times that the log lock was not free at once; read and reset by the metrics. */
  lockWaits = 0;
  /** Records longer than this are staged (see staging.ts) so that no record fills the ring. */
  readonly inlineBytesMax: number;

  constructor(buffer: SharedArrayBuffer, control: Control, slot: number) {
    this.words = new Int32Array(buffer);
    this.bytes = Buffer.from(buffer);
    this.#store = control;
    this.#control = control.words;
    this.#mask = buffer.byteLength / 8 - 1;
    this.#self = slot + 1;
    this.#threadWord = threadWord(control, slot);
    this.inlineBytesMax = Math.min(buffer.byteLength >>> 3, 65_536);
  }

  /**
   * Reserves room for a record of `bytes` (a multiple of 8) and gives it the next LSN.
   * `headroomBytes` of the ring stay free.
   * @param snapshotEpoch what the writer read before it planned its write; ANY_EPOCH for records that change no entry
   * @returns word index of the record in the ring, NO_ROOM, or SNAPSHOT_OPENED when a snapshot was opened since the epoch was read
   * @throws FlashVectorError FV_TIMEOUT when the log lock's holder is stuck
   */
  reserve(bytes: number, headroomBytes: number, snapshotEpoch: number): number {
    const control = this.#control;
    const words = this.words;
    if (acquire(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS, this.#self, 'log')) this.lockWaits++;
    if (snapshotEpoch !== ANY_EPOCH && (control[L.CONTROL_SNAPSHOT_EPOCH] & EPOCH_MASK) !== snapshotEpoch) {
      release(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
      return SNAPSHOT_OPENED;
    }
    const head = control[L.CONTROL_RING_HEAD];
    const units = bytes >>> 3;
    const size = this.#mask + 1;
    const start = head & this.#mask;
    const pad = start + units > size ? size - start : 0;
    // An old tail only makes the ring look fuller.
    const used = (head - control[L.CONTROL_RING_TAIL]) | 0;
    if (used + pad + units > size - (headroomBytes >>> 3)) {
      release(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
      return NO_ROOM;
    }
    let at = start * 2;
    if (pad !== 0) {
      words[at + RECORD_LENGTH] = pad * 8;
      words[at + RECORD_STATE] = recordState(KIND_PAD, 0, STATE_PUBLISHED);
      at = 0;
    }
    const low = control[L.CONTROL_NEXT_LSN + L.LSN_LOW];
    const high = control[L.CONTROL_NEXT_LSN];
    words[at + RECORD_LENGTH] = bytes;
    words[at + RECORD_STATE] = STATE_RESERVED;
    words[at + RECORD_LSN_LOW] = low;
    words[at + RECORD_LSN_HIGH] = high;
    control[this.#threadWord + L.THREAD_APPLYING] = (head + pad) | 0;
    control[this.#threadWord + L.THREAD_BUSY] = 1;
    if (low === -1) {
      Atomics.store(control, L.CONTROL_NEXT_LSN, high + 1);
      Atomics.store(control, L.CONTROL_NEXT_LSN + L.LSN_LOW, 0);
      Atomics.store(control, L.CONTROL_NEXT_LSN + 2, high + 1);
    } else {
      control[L.CONTROL_NEXT_LSN + L.LSN_LOW] = (low + 1) | 0;
    }
    storeRelease(control, L.CONTROL_RING_HEAD, (head + pad + units) | 0);
    release(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
    return at;
  }

  /**
   * The LSN below which every record is in the tables. Exact for a moment: under the log lock nobody begins a record.
   * @throws FlashVectorError FV_TIMEOUT when the log lock's holder is stuck
   */
  appliedBelow(): number {
    const control = this.#control;
    acquire(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS, this.#self, 'log');
    let below = lsnFrom(control[L.CONTROL_NEXT_LSN + L.LSN_LOW], control[L.CONTROL_NEXT_LSN]);
    for (let slot = 0; slot < L.THREADS_MAX; slot++) {
      const word = threadWord(this.#store, slot);
      if (Atomics.load(control, word + L.THREAD_BUSY) === 0) continue;
      const at = (Atomics.load(control, word + L.THREAD_APPLYING) & this.#mask) * 2;
      below = Math.min(below, this.lsnAt(at));
    }
    release(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
    return below;
  }

  /** The LSN reserved last, under the log lock: that of a record that is in the ring, whatever becomes of its writer. */
  lastReserved(): number {
    const control = this.#control;
    acquire(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS, this.#self, 'log');
    const next = lsnFrom(control[L.CONTROL_NEXT_LSN + L.LSN_LOW], control[L.CONTROL_NEXT_LSN]);
    release(control, L.CONTROL_LOG_LOCK, L.CONTROL_LOG_LOCK_WAITERS);
    return next - 1;
  }

  /**
   * Puts right what a thread in `slot` has left behind that died while it held the log lock: an LSN taken for a record that
   * never came into the ring is given back. The lock stays the dead thread's.
   */
  repairLocked(slot: number): void {
    const control = this.#control;
    const word = threadWord(this.#store, slot);
    if (Atomics.load(control, word + L.THREAD_BUSY) === 0) return;
    const position = Atomics.load(control, word + L.THREAD_APPLYING);
    // The head is stored last: a record at or past it was never reserved.
    if (((position - Atomics.load(control, L.CONTROL_RING_HEAD)) | 0) < 0) return;
    this.#store.storeLsn(L.CONTROL_NEXT_LSN, this.lsnAt((position & this.#mask) * 2));
    Atomics.store(control, word + L.THREAD_BUSY, 0);
  }

  /** The record that the thread in `slot` was applying when it died, or NO_ROOM: word index in the ring. */
  applyingOf(slot: number): number {
    const word = threadWord(this.#store, slot);
    if (Atomics.load(this.#control, word + L.THREAD_BUSY) === 0) return NO_ROOM;
    return (Atomics.load(this.#control, word + L.THREAD_APPLYING) & this.#mask) * 2;
  }

  /** LSN of the record that the thread in `slot` is applying; means something while it is busy. */
  lsnOfApplying(slot: number): number {
    const position = Atomics.load(this.#control, threadWord(this.#store, slot) + L.THREAD_APPLYING);
    return this.lsnAt((position & this.#mask) * 2);
  }

  /** Ring position of the record that this thread has reserved last. */
  get position(): number {
    return this.#control[this.#threadWord + L.THREAD_APPLYING];
  }

  /** Makes a record visible to the log thread. `wakeLog` follows, once the caller holds no lock. */
  publish(at: number, kind: number, durability: number): void {
    storeRelease(this.words, at + RECORD_STATE, recordState(kind, durability, STATE_PUBLISHED));
  }

  /**
   * Wakes the log thread if it sleeps and a record of this durability is worth it. A full barrier must lie
   * between `publish` and this: releasing a shard lock is one.
   */
  wakeLog(durability: number): void {
    const sleeping = loadAcquire(this.#control, L.CONTROL_LOG_SLEEPING);
    if (sleeping === 0 || sleeping === L.LOG_RESTING || (sleeping === L.LOG_NAPPING && durability === DURABILITY_MEMORY)) return;
    this.#store.bump(L.CONTROL_LOG_WAKE);
  }

  /** Wakes the log thread however it sleeps: for who waits for room or for a sync, and has said so in a word that it looks at before it sleeps. */
  callLog(): void {
    if (Atomics.load(this.#control, L.CONTROL_LOG_SLEEPING) !== 0) this.#store.bump(L.CONTROL_LOG_WAKE);
  }

  /**
   * Somebody listens for acknowledgements from here on: ends the log thread's rest, or keeps it from one that it is about to begin. The wake word is bumped in
   * any case, because the log thread read it before it told anybody anything: if this comes too late to be told, it comes early enough to be seen.
   */
  callFromRest(): void {
    Atomics.add(this.#control, L.CONTROL_LOG_WAKE, 1);
    if (Atomics.load(this.#control, L.CONTROL_LOG_SLEEPING) === L.LOG_RESTING) Atomics.notify(this.#control, L.CONTROL_LOG_WAKE);
  }

  /** The record reserved last is in the tables: the log thread may let its room go. */
  applied(): void {
    storeRelease(this.#control, this.#threadWord + L.THREAD_BUSY, 0);
  }

  lsnAt(at: number): number {
    return lsnFrom(this.words[at + RECORD_LSN_LOW], this.words[at + RECORD_LSN_HIGH]);
  }

  /** First word of the body of the record at `at`. */
  bodyAt(at: number): number {
    return at + RECORD_HEADER_WORDS;
  }
}
