/**
 * The control region: made by the owner, mapped by every thread that is given the handle.
 * Invariant: line 0 never changes after `createControl`, but for the memory cap, which is set once recovery is done.
 */

import { FlashVectorError, fromErrorData, toErrorData, type ErrorData } from '../base/errors.js';
import { lsnFrom, lsnHigh, lsnLow } from '../base/lsn.js';
import * as L from './layout.js';

export class Control {
  readonly words: Int32Array;
  readonly shape: L.ControlShape;

  constructor(readonly buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    if (this.words[L.CONTROL_MAGIC] !== L.CONTROL_MAGIC_VALUE || this.words[L.CONTROL_LAYOUT] !== L.CONTROL_LAYOUT_VERSION) {
      throw new TypeError('this is not the handle of a FlashVector store, or one of another version');
    }
    this.shape = L.controlShape(this.words[L.CONTROL_SHARDS]);
  }

  get status(): number {
    return Atomics.load(this.words, L.CONTROL_STATUS);
  }

  /** LSN up to which everything was handed to the operating system. */
  get writtenLsn(): number {
    return this.readLsn(L.CONTROL_WRITTEN);
  }

  /** LSN up to which everything is on disk. */
  get durableLsn(): number {
    return this.readLsn(L.CONTROL_DURABLE);
  }

  /** LSN of the last record reserved. A moment old when it is returned. */
  get lastLsn(): number {
    return this.readLsn(L.CONTROL_NEXT_LSN) - 1;
  }

  /**
   * Reads an LSN that another thread may be storing. The writer stores high, low, high; the reader
   * reads them backwards, so equal high words mean that the low word was stored between them.
   */
  readLsn(word: number): number {
    for (;;) {
      const high = Atomics.load(this.words, word + 2);
      const low = Atomics.load(this.words, word + L.LSN_LOW);
      if (Atomics.load(this.words, word) === high) return lsnFrom(low, high);
    }
  }

  storeLsn(word: number, lsn: number): void {
    Atomics.store(this.words, word, lsnHigh(lsn));
    Atomics.store(this.words, word + L.LSN_LOW, lsnLow(lsn));
    Atomics.store(this.words, word + 2, lsnHigh(lsn));
  }

  /**
   * Turns the store read-only for ever. The first failure wins; the description is in place before
   * the status says so.
   */
  fail(error: unknown): void {
    const area = new Uint8Array(this.buffer, L.FAILURE_AREA_WORD * 4, L.FAILURE_AREA_BYTES);
    const data = toErrorData(error);
    delete data.stack;
    if (data.cause !== undefined) delete data.cause.stack;
    let json = Buffer.from(JSON.stringify(data));
    if (json.length > area.length)
      json = Buffer.from(JSON.stringify({ name: data.name, message: data.message.slice(0, 500), code: data.code }));
    if (Atomics.load(this.words, L.CONTROL_FAILURE_BYTES) !== 0) return;
    area.set(json);
    Atomics.store(this.words, L.CONTROL_FAILURE_BYTES, json.length);
    Atomics.compareExchange(this.words, L.CONTROL_STATUS, L.STATUS_OPEN, L.STATUS_READONLY);
    this.bump(L.CONTROL_ACK_EPOCH);
    this.bump(L.CONTROL_ROOM_EPOCH);
  }

  /** What turned the store read-only, if anything did. */
  get failure(): Error | undefined {
    const length = Atomics.load(this.words, L.CONTROL_FAILURE_BYTES);
    if (length === 0) return undefined;
    const copy = Buffer.from(new Uint8Array(this.buffer, L.FAILURE_AREA_WORD * 4, length));
    return fromErrorData(JSON.parse(copy.toString('utf8')) as ErrorData);
  }

  /** Changes a word that others sleep on, then wakes them all. @returns how many waits that ended */
  bump(word: number): number {
    Atomics.add(this.words, word, 1);
    return Atomics.notify(this.words, word);
  }

  closedError(): FlashVectorError {
    return new FlashVectorError('FV_CLOSED', 'the store is closed');
  }

  readonlyError(): FlashVectorError {
    const cause = this.failure;
    return new FlashVectorError(
      'FV_READONLY',
      cause === undefined ? 'the store was opened read-only' : `the store is read-only since its log failed: ${cause.message}`,
      { cause },
    );
  }
}

/** A memory cap in the units of CONTROL_MEMORY_UNITS_MAX. */
export function memoryUnits(bytes: number): number {
  return Math.min(L.MEMORY_UNITS_UNLIMITED, Math.floor(bytes / 65_536));
}

export interface ControlSettings {
  shards: number;
  hashSeed: number;
  durability: number;
  maxMemoryBytes: number;
  /** Whether the store keeps an ordered index. */
  indexed: boolean;
  /** Whether keys are in the encoding `ordered`. */
  orderedKeys?: boolean;
  /** EVICTION_*. None. */
  eviction?: number;
  /** See CONTROL_ACK_POLL_US. 0. */
  ackPollUs?: number;
}

export function createControl(settings: ControlSettings): Control {
  const buffer = new SharedArrayBuffer(L.controlShape(settings.shards).words * 4);
  const words = new Int32Array(buffer);
  words[L.CONTROL_MAGIC] = L.CONTROL_MAGIC_VALUE;
  words[L.CONTROL_LAYOUT] = L.CONTROL_LAYOUT_VERSION;
  words[L.CONTROL_SHARDS] = settings.shards;
  words[L.CONTROL_HASH_SEED] = settings.hashSeed;
  words[L.CONTROL_DURABILITY] = settings.durability;
  words[L.CONTROL_MEMORY_UNITS_MAX] = memoryUnits(settings.maxMemoryBytes);
  words[L.CONTROL_NEXT_LSN + L.LSN_LOW] = 1;
  words[L.CONTROL_INDEXED] = settings.indexed ? 1 : 0;
  words[L.CONTROL_ORDERED_KEYS] = settings.orderedKeys === true ? 1 : 0;
  words[L.CONTROL_EVICTION] = settings.eviction ?? L.EVICTION_NONE;
  words[L.CONTROL_ACK_POLL_US] = settings.ackPollUs ?? 0;
  const control = new Control(buffer);
  control.storeLsn(L.CONTROL_SNAPSHOT_OLDEST, L.SNAPSHOT_NONE);
  return control;
}
