/** Read, compute, write, and once more if another writer was faster: what `update` and `modify` do. */

import { checkReplacement } from '../base/options.js';
import { OPERATION_DELETE, OPERATION_PUT } from '../base/record.js';
import * as M from '../memory/metrics.js';
import { addExpiry } from '../table/expiry.js';
import { encodeKey } from '../table/key-codec.js';
import type { Core } from './core.js';
import type { AnyKey, Entry, Key } from './key.js';
import { CONFLICT } from './write-result.js';
import type { Writer } from './writer.js';

/** Tries against other writers of the same key before it is given up with FV_CONFLICT. */
const ATTEMPTS = 1000;

/** What takes the place of an entry; see `FlashVector.modify`. */
export interface Replacement {
  value: unknown;
  ttl?: number;
  expiresAt?: number;
}

export type Modifier = (entry: Entry | undefined) => Replacement | null | undefined;

export class Modifications {
  /** @param readEntry reads what is under a key now */
  constructor(
    readonly core: Core,
    readonly writer: Writer,
    readonly counters: Float64Array,
    readonly readEntry: (key: AnyKey) => Entry | undefined,
  ) {}

  /** @returns as the writer's functions @param result receives the new value */
  tryUpdate<V>(key: AnyKey, fn: (value: V | undefined) => V, durability: number, patienceMs: number, result: { value: V }): number {
    const { core } = this;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const entry = this.readEntry(key);
      const value = fn(entry?.value as V | undefined);
      core.codec.prepare(value);
      encodeKey(core.scratch, key);
      core.codec.place(value);
      addExpiry(core.scratch, entry?.expiresAt ?? 0);
      const lsn = this.writer.tryWrite(OPERATION_PUT, entry === undefined ? 'absent' : entry.lsn, durability, patienceMs);
      if (lsn === CONFLICT) continue;
      if (lsn > 0) {
        result.value = value;
        this.#count(M.COUNTER_PUTS);
      }
      return lsn;
    }
    this.counters[M.COUNTER_CONFLICTS]++;
    return CONFLICT;
  }

  /** @returns as the writer's functions, and 0 when nothing was to be written */
  tryModify(key: Key, fn: Modifier, durability: number, patienceMs: number): number {
    const { core } = this;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const entry = this.readEntry(key);
      const replacement = fn(entry);
      if (replacement === undefined || (replacement === null && entry === undefined)) return 0;
      const type = replacement === null ? OPERATION_DELETE : OPERATION_PUT;
      if (replacement === null) {
        core.encodeDelete(key);
      } else {
        checkReplacement(replacement);
        const { value, ttl, expiresAt } = replacement;
        core.codec.prepare(value);
        encodeKey(core.scratch, key);
        core.codec.place(value);
        addExpiry(core.scratch, ttl === undefined ? (expiresAt ?? 0) : core.clock.momentIn(ttl));
      }
      const lsn = this.writer.tryWrite(type, entry === undefined ? 'absent' : entry.lsn, durability, patienceMs);
      if (lsn === CONFLICT) continue;
      if (lsn > 0) this.#count(replacement === null ? M.COUNTER_DELETES : M.COUNTER_PUTS);
      return lsn;
    }
    this.counters[M.COUNTER_CONFLICTS]++;
    return CONFLICT;
  }

  #count(counter: number): void {
    const { scratch } = this.core;
    this.counters[counter]++;
    this.counters[M.COUNTER_BYTES_WRITTEN] += scratch.keyLength + scratch.valueLength;
  }
}
