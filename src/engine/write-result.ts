/** What a write may depend on, and what a try to write comes to: an LSN, or one of these. */

import { FlashVectorError } from '../base/errors.js';
import { ABSENT } from '../table/hash-table.js';
import type { Shard } from '../table/shard.js';

/**
 * `absent`: the key has no value. A number: its value was written by that LSN. A negative one: the entry is of that LSN, expired or not;
 * see `ofVersion`.
 */
export type Condition = 'none' | 'absent' | number;

/** The condition that an entry is still of an LSN, also after it has expired. */
export function ofVersion(lsn: number): Condition {
  return -lsn;
}

/** Whether a condition holds of what `locate` found. With the shard's lock held. */
export function holds(shard: Shard, entry: number, condition: 'absent' | number): boolean {
  if (condition === 'absent') return !shard.isLiveLocked(entry);
  if (condition < 0) return entry !== ABSENT && shard.lsnLocked(entry) === -condition;
  return shard.isLiveLocked(entry) && shard.lsnLocked(entry) === condition;
}

/**
 * How long a write may sleep for a shard's lock before it is deferred, in ms. Who holds a lock for longer than the spinning takes has lost its processor as a
 * rule, and gets it back when this thread leaves its own. Deferring the write, and with it all that follow in this turn of the event loop, costs 1.9 ms of
 * work for a thousand of them; with two writers on two processors the sleep is over after 0.18 ms in the median, and after 1.4 in nine of ten cases.
 */
export const FIRST_PATIENCE_MS = 0.1;

/** Try again later. */
export const DEFER = -1;
/** The condition does not hold. */
export const CONFLICT = -2;
/** As DEFER, because a shard's lock was busy. */
export const DEFER_LOCK = -3;

export function isDeferred(lsn: number): boolean {
  return lsn === DEFER || lsn === DEFER_LOCK;
}

export function conflictError(): FlashVectorError {
  return new FlashVectorError('FV_CONFLICT', 'the condition of the write does not hold; nothing was written');
}
