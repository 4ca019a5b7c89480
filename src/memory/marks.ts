/**
 * Access marks: when keys were last used, as far as eviction needs to know. One mark for each of 65,536 groups of a shard's keys, by hash; more
 * keys than that share marks. Whoever reads or writes a key stores the present tick, without any lock: a mark that is lost or late does no harm.
 */

import * as L from './layout.js';

const GROUPS = 65_536;
/** A tick of the access clock, in ms; it goes round after 18 hours. */
export const TICK_MS = 1000;
const TICK_MASK = 0xffff;

/** Bytes of the marks of a store. */
export function markBytes(shards: number): number {
  return shards * GROUPS * 2;
}

export class AccessMarks {
  readonly #marks: Uint16Array;
  readonly #control: Int32Array;

  constructor(buffer: SharedArrayBuffer, shard: number, control: Int32Array) {
    this.#marks = new Uint16Array(buffer, shard * GROUPS * 2, GROUPS);
    this.#control = control;
  }

  touch(hash: number): void {
    this.#marks[(hash >>> 8) & (GROUPS - 1)] = this.#control[L.CONTROL_ACCESS_TICK];
  }

  /** Ticks since a key of this hash was used. */
  age(hash: number): number {
    return (this.#control[L.CONTROL_ACCESS_TICK] - this.#marks[(hash >>> 8) & (GROUPS - 1)]) & TICK_MASK;
  }
}
