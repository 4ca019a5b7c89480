/**
 * The ring: the log thread's side. Takes published records in LSN order, as they lie in the ring,
 * and frees their room once they are written and applied. See ring.ts for the protocol.
 *
 * Invariant: what `take` returned stays unchanged until `release`.
 */

import {
  DURABILITY_MASK,
  DURABILITY_MEMORY,
  DURABILITY_SHIFT,
  DURABILITY_SYNC,
  KIND_MASK,
  KIND_PAD,
  KIND_SHIFT,
  KIND_STAGED,
  RECORD_LENGTH,
  RECORD_LSN_HIGH,
  RECORD_LSN_LOW,
  RECORD_STATE,
  STAGED_UNIT,
  STAGED_UNITS,
  STATE_MASK,
  STATE_PUBLISHED,
} from '../base/record.js';
import { assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import type { Control } from './control.js';
import * as L from './layout.js';
import type { Region } from './region.js';
import { threadWord } from './registry.js';

/** What one `take` found: a run of records, one behind the other. Reused by the next `take`. */
export interface RecordRun {
  /** The records' bytes; a view of shared memory, valid until `release`. */
  bytes: Uint8Array;
  records: number;
  firstLsn: number;
  lastLsn: number;
  /** A record among them waits for `fdatasync`. */
  wantsSync: boolean;
  /** A record among them is acknowledged when it is written or synced: somebody waits. */
  wantsAck: boolean;
  /** More records are published: the run ended at the ring's end, at its limit, or at a staged record. */
  more: boolean;
}

/** Looks for published records before sleeping: some 80 µs, within which a writer that waits for its ack comes back. */
const SPINS = 2500;
const ROOM_RECHECK_MS = 2;
const GATHER_MS = 1;

export class RingReader {
  readonly #words: Int32Array;
  readonly #bytes: Buffer;
  readonly #mask: number;
  #position: number;
  /** LOG_WAKE as it was before the last progress was announced. */
  #wakeBefore = 0;
  readonly #run: RecordRun = {
    bytes: new Uint8Array(0),
    records: 0,
    firstLsn: 0,
    lastLsn: 0,
    wantsSync: false,
    wantsAck: false,
    more: false,
  };

  constructor(
    buffer: SharedArrayBuffer,
    readonly control: Control,
    readonly staging: Region,
  ) {
    this.#words = new Int32Array(buffer);
    this.#bytes = Buffer.from(buffer);
    this.#mask = buffer.byteLength / 8 - 1;
    this.#position = Atomics.load(control.words, L.CONTROL_RING_CONSUMED);
  }

  /** Whether every record reserved so far has been taken. */
  get drained(): boolean {
    return Atomics.load(this.control.words, L.CONTROL_RING_HEAD) === this.#position;
  }

  /** Takes published records, at most `bytesMax` of them but at least one if there is one. */
  take(bytesMax: number): RecordRun | undefined {
    const words = this.#words;
    const head = Atomics.load(this.control.words, L.CONTROL_RING_HEAD);
    const run = this.#run;
    let position = this.#position;
    let records = 0;
    let first = 0;
    let last = 0;
    let wantsSync = false;
    let wantsAck = false;
    let more = false;
    let start = position & this.#mask;
    let end = start;
    while (position !== head) {
      const at = (position & this.#mask) * 2;
      const state = Atomics.load(words, at + RECORD_STATE);
      if ((state & STATE_MASK) !== STATE_PUBLISHED) break;
      const units = words[at + RECORD_LENGTH] >>> 3;
      const kind = (state >>> KIND_SHIFT) & KIND_MASK;
      if (kind === KIND_PAD) {
        more = records !== 0;
        if (more) break;
        position = (position + units) | 0;
        start = end = position & this.#mask;
        continue;
      }
      more = records !== 0 && (kind === KIND_STAGED || (end - start + units) * 8 > bytesMax);
      if (more) break;
      last = at;
      if (records === 0) first = at;
      records++;
      const durability = (state >>> DURABILITY_SHIFT) & DURABILITY_MASK;
      if (durability !== DURABILITY_MEMORY) wantsAck = true;
      if (durability === DURABILITY_SYNC) wantsSync = true;
      end += units;
      position = (position + units) | 0;
      if (kind === KIND_STAGED) {
        more = position !== head;
        break;
      }
      // What follows lies at the ring's start: another run. A record that ends exactly at the ring's end has no pad behind it.
      if (end > this.#mask) {
        more = position !== head;
        break;
      }
    }
    this.#position = position;
    if (records === 0) return undefined;
    run.records = records;
    run.firstLsn = lsnFrom(words[first + RECORD_LSN_LOW], words[first + RECORD_LSN_HIGH]);
    run.lastLsn = lsnFrom(words[last + RECORD_LSN_LOW], words[last + RECORD_LSN_HIGH]);
    run.wantsSync = wantsSync;
    run.wantsAck = wantsAck;
    run.more = more;
    assert(end <= this.#mask + 1, 'a run of records does not wrap');
    const kind = (words[first + RECORD_STATE] >>> KIND_SHIFT) & KIND_MASK;
    run.bytes = kind === KIND_STAGED ? this.#staged(first) : this.#bytes.subarray(start * 8, end * 8);
    return run;
  }

  #staged(at: number): Uint8Array {
    const offset = (this.#words[at + STAGED_UNIT] >>> 0) * 8;
    const length = (this.#words[at + STAGED_UNITS] >>> 0) * 8;
    if (offset + length > this.staging.bytes.length) this.staging.refresh();
    return this.staging.bytes.subarray(offset, offset + length);
  }

  /** Lets go of what was taken: frees room up to the oldest record still being applied. */
  release(): void {
    const words = this.control.words;
    Atomics.store(words, L.CONTROL_RING_CONSUMED, this.#position);
    let tail = this.#position;
    for (let slot = 0; slot < L.THREADS_MAX; slot++) {
      const word = threadWord(this.control, slot);
      if (words[word + L.THREAD_ID] === 0 || Atomics.load(words, word + L.THREAD_BUSY) === 0) continue;
      const applying = Atomics.load(words, word + L.THREAD_APPLYING);
      if (((applying - tail) | 0) < 0) tail = applying;
    }
    // A slot may be read just after its record was applied and a later one begun; the tail only rises.
    if (((tail - Atomics.load(words, L.CONTROL_RING_TAIL)) | 0) <= 0) return;
    Atomics.store(words, L.CONTROL_RING_TAIL, tail);
    if (Atomics.load(words, L.CONTROL_ROOM_WAITERS) !== 0) this.control.bump(L.CONTROL_ROOM_EPOCH);
  }

  /**
   * Lets records gather for a moment when nobody waits for those that were taken. A writer that wants an
   * acknowledgement ends the nap (LOG_SLEEPING is LOG_NAPPING); others need not spend a wake on it.
   * @returns whether there was time for a nap
   */
  gather(): boolean {
    const words = this.control.words;
    const epoch = Atomics.load(words, L.CONTROL_LOG_WAKE);
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, L.LOG_NAPPING);
    // Among the records published since the last look may be one that somebody waits for, and that found this thread awake: look again before sleeping.
    const hurried =
      this.#isUrgent() ||
      Atomics.load(words, L.CONTROL_ROOM_WAITERS) !== 0 ||
      Atomics.load(words, L.CONTROL_SYNC_REQUESTED) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_STOP) !== 0;
    if (!hurried) Atomics.wait(words, L.CONTROL_LOG_WAKE, epoch, GATHER_MS);
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, 0);
    return !hurried;
  }

  /**
   * After a group of several whose writers have just been told: they write again soon, and if this thread took the first of them at once, the
   * others would wait for a sync of their own. Not when anybody wants something else. Nobody wakes it: a wake costs the writers more than it would save.
   */
  linger(ms: number): void {
    const words = this.control.words;
    const isCalled =
      Atomics.load(words, L.CONTROL_ROOM_WAITERS) !== 0 ||
      Atomics.load(words, L.CONTROL_SYNC_REQUESTED) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_STOP) !== 0;
    if (!isCalled) Atomics.wait(words, L.CONTROL_LOG_WAKE, Atomics.load(words, L.CONTROL_LOG_WAKE), ms);
  }

  /**
   * Says how far the log has got.
   * @returns whether anybody listened. Nobody: who waits has been told of something before, and has not come round to looking
   */
  announce(writtenLsn: number, durableLsn: number): boolean {
    const { control } = this;
    this.#wakeBefore = Atomics.load(control.words, L.CONTROL_LOG_WAKE);
    control.storeLsn(L.CONTROL_WRITTEN, writtenLsn);
    control.storeLsn(L.CONTROL_DURABLE, durableLsn);
    return control.bump(L.CONTROL_ACK_EPOCH) !== 0;
  }

  /**
   * Lets records gather after an announcement that nobody listened to: whoever waits is busy, with writing most of the time, and
   * groups that nobody hears of cost the machine more than they help. Who begins to listen ends it (`Ring.callFromRest`), and so does who wants room, or anything else.
   */
  rest(ms: number): void {
    const words = this.control.words;
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, L.LOG_RESTING);
    const isCalled =
      Atomics.load(words, L.CONTROL_ROOM_WAITERS) !== 0 ||
      Atomics.load(words, L.CONTROL_SYNC_REQUESTED) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_STOP) !== 0;
    if (!isCalled) Atomics.wait(words, L.CONTROL_LOG_WAKE, this.#wakeBefore, ms);
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, 0);
  }

  /** Whether one of the published records that were not taken yet waits for an acknowledgement, or they take a quarter of the ring: the next ones need room. */
  #isUrgent(): boolean {
    const words = this.#words;
    const head = Atomics.load(this.control.words, L.CONTROL_RING_HEAD);
    let position = this.#position;
    if (((head - position) >>> 0) * 4 > this.#mask) return true;
    while (position !== head) {
      const at = (position & this.#mask) * 2;
      const state = Atomics.load(words, at + RECORD_STATE);
      // Who publishes one from here on sees that this thread sleeps.
      const counts = (state & STATE_MASK) === STATE_PUBLISHED && ((state >>> KIND_SHIFT) & KIND_MASK) !== KIND_PAD;
      if (counts && ((state >>> DURABILITY_SHIFT) & DURABILITY_MASK) !== DURABILITY_MEMORY) return true;
      position = (position + (words[at + RECORD_LENGTH] >>> 3)) | 0;
    }
    return false;
  }

  #published(): boolean {
    const position = this.#position;
    if (Atomics.load(this.control.words, L.CONTROL_RING_HEAD) === position) return false;
    return (Atomics.load(this.#words, (position & this.#mask) * 2 + RECORD_STATE) & STATE_MASK) === STATE_PUBLISHED;
  }

  #called(): boolean {
    const words = this.control.words;
    return (
      this.#published() ||
      Atomics.load(words, L.CONTROL_LOG_STOP) !== 0 ||
      Atomics.load(words, L.CONTROL_SYNC_REQUESTED) !== 0 ||
      Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0
    );
  }

  /** Returns when there is something to do, or after `timeoutMs`. Spins for a moment, then sleeps. */
  wait(timeoutMs: number): void {
    for (let i = 0; i < SPINS; i++) if (this.#called()) return;
    // Room that a thread was still applying when it was released is freed here.
    this.release();
    const words = this.control.words;
    const epoch = Atomics.load(words, L.CONTROL_LOG_WAKE);
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, L.LOG_ASLEEP);
    // While somebody waits for room that a busy thread held at the last release, look again soon.
    const sleepMs = Atomics.load(words, L.CONTROL_ROOM_WAITERS) === 0 ? timeoutMs : Math.min(timeoutMs, ROOM_RECHECK_MS);
    if (!this.#called()) Atomics.wait(words, L.CONTROL_LOG_WAKE, epoch, sleepMs);
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, 0);
    this.release();
  }
}
