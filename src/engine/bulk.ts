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
import { DURABILITY_MEMORY } from '../base/record.js';
import { RawKey } from '../table/key-codec.js';
import { EncodedBatch } from './batch.js';
import type { Core } from './core.js';
import type { AnyKey } from './key.js';
import { RangeReader, type Bounds } from './range.js';
import type { Views } from './views.js';

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

type WriteBatch = (batch: EncodedBatch, durability: number) => Promise<number>;

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
  for await (const entry of entries as AsyncIterable<readonly [AnyKey, unknown]>) {
    if (signal?.aborted === true) break;
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
    last = write(batch, durability);
    batch = new EncodedBatch();
    await flight.add(last);
  };
  for (let left = bounds.limit; left > 0 && reader.advance();) {
    if (lsnFrom(reader.lsnLow, reader.lsnHigh) > lastLsn) continue;
    left--;
    batch.del(core, new RawKey(reader.key.bytes.subarray(0, reader.key.length), 0));
    if (batch.count < BATCH_ENTRIES) continue;
    await send();
    await nextTurn();
    if (views.isClosed) throw core.control.closedError();
  }
  if (batch.count > 0) await send();
  await flight.end();
  return last ?? 0;
}
