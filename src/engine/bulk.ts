/**
 * Writing and removing many entries: `load` and `clear`.
 *
 * Both write batches, a bounded number at a time, each of which is atomic by itself; so memory stays bounded, other writes come in between, and the
 * event loop gets its turns. `load` encodes in the calling thread: cloning an entry into another thread takes longer than encoding it
 * (docs/performance.md).
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { FlashVectorError, describe } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import {
  DURABILITY_MEMORY,
  ENTRY_FLAGS_MASK,
  ENTRY_FLAGS_SHIFT,
  KEY_FLAGS_MASK,
  KEY_LENGTH_MASK,
  OPERATION_HEADER_WORDS,
} from '../base/record.js';
import { ABSENT } from '../table/hash-table.js';
import { RawKey } from '../table/key-codec.js';
import { EncodedBatch } from './batch.js';
import type { Core } from './core.js';
import type { AnyKey } from './key.js';
import { RangeReader, type Bounds } from './range.js';
import type { View } from '../table/shard-reader.js';
import type { Views } from './views.js';
import type { Guard } from './batch-writer.js';

/** Entries and bytes after which a batch is written. */
const BATCH_ENTRIES = 256;
const BATCH_BYTES = 64 * 1024;
/** Batches on their way; the next one waits for the oldest. */
const IN_FLIGHT = 16;

export interface LoadOptions {
  /** Called after every batch. */
  onProgress?: (progress: { entries: number; bytes: number }) => void;
  /** Stops the load, which then rejects with `FV_ABORTED`; what was written stays. */
  signal?: AbortSignal;
}

type WriteBatch = (batch: EncodedBatch, durability: number, guard?: Guard) => Promise<number>;

/** Batches on their way, oldest first. */
class Flight {
  readonly #batches: Promise<number>[] = [];

  async add(batch: Promise<number>): Promise<void> {
    // Whoever waits for it learns of its failure.
    batch.catch(() => undefined);
    this.#batches.push(batch);
    if (this.#batches.length >= IN_FLIGHT) await this.#batches.shift();
  }

  async end(): Promise<void> {
    for (const batch of this.#batches) await batch;
  }
}

/** What an iterable yields, until the signal comes, also while it is waited for. */
async function* untilAborted<T>(source: Iterable<T> | AsyncIterable<T>, signal: AbortSignal | undefined): AsyncGenerator<T, void> {
  const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let abort = (): void => undefined;
  const aborted = new Promise<undefined>((resolve) => {
    abort = () => resolve(undefined);
  });
  signal?.addEventListener('abort', abort, { once: true });
  try {
    while (signal?.aborted !== true) {
      const next = iterator.next();
      const result = next instanceof Promise ? await Promise.race([next, aborted]) : next;
      if (result === undefined || result.done === true) return;
      yield result.value;
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    // Told, and not waited for: it may be what did not come back.
    const ended: unknown = iterator.return?.();
    if (ended instanceof Promise) ended.catch(() => undefined);
  }
}

/** @returns number of entries, once they are durable */
export async function loadEntries(
  core: Core,
  entries: Iterable<readonly [AnyKey, unknown]> | AsyncIterable<readonly [AnyKey, unknown]>,
  options: LoadOptions,
  write: WriteBatch,
  flush: () => Promise<number>,
): Promise<number> {
  const { signal, onProgress } = options;
  const progress = { entries: 0, bytes: 0 };
  const flight = new Flight();
  let batch = new EncodedBatch();
  const send = async (): Promise<void> => {
    const full = batch;
    batch = new EncodedBatch();
    progress.entries += full.count;
    progress.bytes += full.length * 4;
    await flight.add(write(full, DURABILITY_MEMORY));
    onProgress?.({ ...progress });
    // A batch that did not have to wait has not given the event loop its turn.
    await nextTurn();
  };
  for await (const entry of untilAborted(entries, signal)) {
    if (!Array.isArray(entry) || entry.length !== 2)
      throw new TypeError(`load takes pairs of key and value; entry ${progress.entries + batch.count} is ${describe(entry)}`);
    batch.put(core, entry[0], entry[1], 0);
    if (batch.count >= BATCH_ENTRIES || batch.length * 4 >= BATCH_BYTES) await send();
  }
  if (batch.count > 0) await send();
  await flight.end();
  if (signal?.aborted === true) {
    throw new FlashVectorError('FV_ABORTED', `the load was aborted after ${progress.entries} entries, which are written`, {
      cause: signal.reason,
    });
  }
  await flush();
  return progress.entries;
}

/**
 * Removes what is in a range now: what is written into it meanwhile stays. No snapshot is open for it, so that nothing that it removes is kept: it
 * works where there is no memory left, too.
 * @returns the LSN of the last removal, 0 when there was nothing
 */
export async function clearRange(core: Core, views: Views, bounds: Bounds, durability: number, write: WriteBatch): Promise<number> {
  const now = { lsn: Number.MAX_SAFE_INTEGER, nowMs: core.clock.now() };
  const { lastLsn } = core.control;
  const flight = new Flight();
  const reader = new RangeReader(core, bounds, now, false);
  let batch = new EncodedBatch();
  let last: Promise<number> | undefined;
  const send = async (): Promise<void> => {
    last = removeAll(core, batch, now, lastLsn, (some, guard) => write(some, durability, guard));
    batch = new EncodedBatch();
    await flight.add(last);
  };
  for (let left = bounds.limit; left > 0 && reader.advance();) {
    if (lsnFrom(reader.lsnLow, reader.lsnHigh) > lastLsn) continue;
    left--;
    batch.del(core, new RawKey(reader.key.bytes.subarray(0, reader.key.length), reader.keyFlags & KEY_FLAGS_MASK));
    if (batch.count < BATCH_ENTRIES) continue;
    await send();
    await nextTurn();
    if (views.isClosed) throw core.control.closedError();
  }
  if (batch.count > 0) await send();
  await flight.end();
  return last ?? 0;
}

/** Removals that hold only as long as none of their keys has been written since. */
class Untouched implements Guard {
  readonly reads = undefined;
  readonly needsAllShards = false;

  constructor(
    readonly core: Core,
    readonly batch: EncodedBatch,
    readonly lastLsn: number,
  ) {}

  holdsLocked(): boolean {
    const { shards, shardMask } = this.core;
    for (let i = 0; i < this.batch.count; i++) {
      const shard = shards[this.batch.hashes[i] & shardMask];
      const entry = this.batch.locate(i, shard.table);
      if (entry !== ABSENT && shard.lsnLocked(entry) > this.lastLsn) return false;
    }
    return true;
  }
}

/** Removes the keys of a batch of deletes that have not been written after `lastLsn`. */
async function removeAll(
  core: Core,
  batch: EncodedBatch,
  now: View,
  lastLsn: number,
  write: (batch: EncodedBatch, guard: Guard) => Promise<number>,
): Promise<number> {
  for (let some = batch; some.count > 0; some = stillThere(core, some, { lsn: lastLsn, nowMs: now.nowMs })) {
    try {
      return await write(some, new Untouched(core, some, lastLsn));
    } catch (error) {
      if (!(error instanceof FlashVectorError) || error.code !== 'FV_CONFLICT') throw error;
    }
  }
  return 0;
}

/** Those deletes of a batch whose keys are as a view sees them. */
function stillThere(core: Core, batch: EncodedBatch, view: View): EncodedBatch {
  const rest = new EncodedBatch();
  for (let i = 0; i < batch.count; i++) {
    const at = batch.starts[i];
    const length = batch.words[at] & KEY_LENGTH_MASK;
    const start = (at + OPERATION_HEADER_WORDS) * 4;
    const flags = (batch.words[at] >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    core.encodeDelete(new RawKey(batch.bytes.subarray(start, start + length), flags));
    const shard = core.shards[core.scratch.keyHash & core.shardMask];
    if (shard.hasAt(view)) rest.delEncoded(core);
  }
  return rest;
}
