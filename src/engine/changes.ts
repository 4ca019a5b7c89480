/**
 * The change feed: every committed change in the order of LSNs, from the log.
 *
 * The pool reads a piece of the log at a time, from where the feed stands to where the log is durable; what was written a moment ago comes from the
 * system's page cache. The feed keeps nothing but its position, so a slow consumer holds nobody up; one that is slower than the log is given
 * up ends with FV_ABORTED.
 */

import { FlashVectorError, describe, fromErrorData } from '../base/errors.js';
import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import type { FileSystemSource } from '../platform/files.js';
import { decodeStored, storedExpiry } from '../table/stored-value.js';
import type { TailPosition, TailRead } from '../wal/log-tail.js';
import { visitRecords } from '../wal/records.js';
import type { ChangesResult, ChangesTask } from '../../workers/changes.js';
import type { Core } from './core.js';
import type { Key } from './key.js';
import type { Pool } from './pool.js';

export interface Change {
  /** Of the record that it belongs to: changes of one batch or transaction have the same. */
  lsn: number;
  type: 'put' | 'del';
  key: Key;
  /** What was put. */
  value?: unknown;
  /** When it expires, in ms since 1970. */
  expiresAt?: number;
}

export interface ChangesOptions {
  /** Changes after this LSN: 0 for all that the log still holds from the first one on. By default those that come from now on. */
  since?: number;
  /** Ends the feed with `FV_ABORTED`. */
  signal?: AbortSignal;
}

/** Where a feed reads. */
export interface ChangeSource {
  directory: string;
  files: FileSystemSource;
  storeId: Uint8Array;
  pool: Pool;
}

/** Log read at once. */
const READ_BYTES = 1024 * 1024;
/** How often the feed looks for more although nobody announced any. */
const RECHECK_MS = 1000;

/** @throws TypeError, FlashVectorError FV_OPTION */
export function checkChangesOptions(options: ChangesOptions): void {
  if (typeof options !== 'object' || options === null) throw new TypeError(`changes takes options, not ${describe(options)}`);
  for (const name of Object.keys(options)) {
    if (name !== 'since' && name !== 'signal')
      throw new FlashVectorError('FV_OPTION', `changes has no option ${describe(name)}; it takes since, signal`);
  }
  const { since, signal } = options;
  if (since !== undefined && (!Number.isSafeInteger(since) || since < 0))
    throw new FlashVectorError('FV_OPTION', `changes: option since is ${describe(since)}; allowed is an LSN, 0 or more`);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new TypeError(`changes: signal must be an AbortSignal, not ${describe(signal)}`);
}

/** @param since checked */
export function followChanges(
  core: Core,
  source: ChangeSource,
  since: number,
  signal: AbortSignal | undefined,
): AsyncIterableIterator<Change, undefined> {
  const stop = new AbortController();
  const changes = generateChanges(core, source, since, signal, stop.signal);
  return {
    next: () => changes.next(),
    // A feed that waits for what comes next is woken first.
    return: () => {
      stop.abort();
      return changes.return(undefined);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

function abortedError(signal: AbortSignal | undefined): FlashVectorError {
  return new FlashVectorError('FV_ABORTED', 'the change feed was aborted', { cause: signal?.reason });
}

async function* generateChanges(
  core: Core,
  source: ChangeSource,
  since: number,
  signal: AbortSignal | undefined,
  stop: AbortSignal,
): AsyncGenerator<Change, undefined> {
  const { control } = core;
  let position: TailPosition = { lsn: since + 1, segment: 0, offset: 0 };
  for (;;) {
    if (stop.aborted) return undefined;
    if (isAborted(signal)) throw abortedError(signal);
    if (control.status >= L.STATUS_CLOSING) throw control.closedError();
    const epoch = Atomics.load(core.words, L.CONTROL_ACK_EPOCH);
    const { durableLsn } = control;
    if (position.lsn > durableLsn) {
      await progress(core.words, epoch, [stop, signal]);
      continue;
    }
    const from = position.lsn;
    const read = await readLog(source, position, durableLsn, core);
    ({ position } = read);
    // A frame that began before may be durable in part only; the log thread is about to say so.
    if (read.payloads.length === 0) await progress(core.words, epoch, [stop, signal]);
    for (const { bytes, records, firstLsn, file, offset } of read.payloads) {
      const found: Change[] = [];
      const payload = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
      visitRecords(payload, records, firstLsn, file, offset, {
        operation: (operation, body, lsn) => {
          if (lsn >= from) found.push(changeOf(core, operation, body, lsn));
        },
        structure: () => undefined,
      });
      for (const change of found) {
        yield change;
        if (isAborted(signal)) throw abortedError(signal);
      }
    }
  }
}

/** A call, because it changes while the feed waits. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function changeOf(
  core: Core,
  operation: { type: number; meta: number; keyStart: number; keyLength: number; valueStart: number; valueLength: number },
  body: Buffer,
  lsn: number,
): Change {
  const { meta, keyStart, keyLength, valueStart, valueLength } = operation;
  const flags = (meta >>> R.ENTRY_FLAGS_SHIFT) & R.ENTRY_FLAGS_MASK;
  const key = core.decodeKey(body, keyStart, keyStart + keyLength, flags);
  if (operation.type !== R.OPERATION_PUT) return { lsn, type: 'del', key };
  const type = (meta >>> R.VALUE_TYPE_SHIFT) & R.VALUE_TYPE_MASK;
  const change: Change = {
    lsn,
    type: 'put',
    key,
    value: decodeStored(core.codec, core.scratch, type, flags, body, valueStart, valueLength),
  };
  const expiresMs = storedExpiry(flags, body, valueStart);
  if (expiresMs !== 0) change.expiresAt = expiresMs;
  return change;
}

async function readLog(source: ChangeSource, position: TailPosition, durableLsn: number, core: Core): Promise<TailRead> {
  const { directory, files, storeId, pool } = source;
  let result: ChangesResult;
  try {
    result = await pool.run<ChangesTask, ChangesResult>('changes', {
      directory,
      files,
      storeId,
      position,
      durableLsn,
      bytesMax: READ_BYTES,
    });
  } catch (error) {
    throw core.control.status >= L.STATUS_CLOSING ? core.control.closedError() : error;
  }
  if (result.error !== undefined) throw fromErrorData(result.error);
  return result.read;
}

/** Resolves when the log has moved on, when it is time to look again, or when the feed is aborted. Keeps the process alive meanwhile. */
async function progress(words: Int32Array, epoch: number, signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  const wait = Atomics.waitAsync(words, L.CONTROL_ACK_EPOCH, epoch, RECHECK_MS);
  if (!wait.async) return;
  let abort = (): void => undefined;
  const aborted = new Promise<void>((resolve) => {
    abort = () => resolve();
  });
  for (const signal of signals) signal?.addEventListener('abort', abort, { once: true });
  const alive = setTimeout(() => undefined, 2 * RECHECK_MS);
  try {
    await Promise.race([wait.value, aborted]);
  } finally {
    clearTimeout(alive);
    for (const signal of signals) signal?.removeEventListener('abort', abort);
  }
}
