/**
 * The owner's side of checkpoints: when one is made, and its steps. The work itself is done in the pool.
 *
 * Steps: have the log begin a new segment; note the LSN below which everything has been applied; let the pool write the parts; wait until the
 * log is durable up to the last record that any part may hold, so that a checkpoint never knows more than the
 * log; let the pool publish it, read it back, and remove what it replaces.
 *
 * One at a time. Requests that come while one is written are served together by the next one, because the
 * one under way may have passed their writes already.
 */

import { FlashVectorError, fromErrorData } from '../base/errors.js';
import type { Manifest, PartSummary } from '../checkpoint/format.js';
import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import type { FileSystemSource } from '../platform/files.js';
import { newStoreId } from '../wal/identity.js';
import type { CheckpointDone, CheckpointResult, CheckpointTask } from '../../workers/checkpoint.js';
import type { Core } from './core.js';
import { OwnerLoad } from './owner-load.js';
import type { Pool } from './pool.js';
import type { Writer } from './writer.js';

export interface CheckpointReport {
  /** Why it was made. */
  reason: 'call' | 'interval' | 'log size';
  /** Every write below is in the checkpoint; the log from here on is kept. */
  lsn: number;
  entries: number;
  bytes: number;
  durationMs: number;
  /** Log segments given up. */
  segmentsRetired: number;
  /** Why not everything that it replaces could be removed, if so; the next checkpoint tries again. */
  leftover?: Error;
  /** What went wrong, if it failed. Nothing is lost then: the checkpoint before and the log are as they were. */
  error?: Error;
}

export interface CheckpointStats {
  running: boolean;
  /** Share of the entries written by the checkpoint under way, 0 to 1. */
  progress: number;
  completed: number;
  failed: number;
  /** Bytes of log that a recovery would replay now. */
  logBytes: number;
  /** The last that was completed; LSN 1 when there is none. */
  lsn: number;
  entries: number;
  bytes: number;
  durationMs: number;
  lastError: Error | undefined;
}

export interface CheckpointSettings {
  directory: string;
  files: FileSystemSource;
  storeId: Buffer;
  /** Size of log segments. */
  segmentBytes: number;
  intervalMs: number;
  /** 0: by the size of the last checkpoint. */
  logBytes: number;
}

/** The newest checkpoint at opening. */
export interface CheckpointBase {
  number: number;
  lsn: number;
  entries: number;
  bytes: number;
  /** Bytes of log from `lsn` on. */
  logBytes: number;
}

/** How often it is looked whether a checkpoint is due, while the event loop turns: one thread that writes as fast as it can logs 5 MB meanwhile. */
const LOOK_MS = 50;
/** Looks that are closer to each other say nothing about the load. */
const LOAD_APART_MS = 125;
/** Keeps the process while a checkpoint is written; and the longest wait for the log thread's word before looking again. */
const WAIT_MS = 250;
/** What one thread that writes as fast as it can logs in half a second: more often, checkpoints would take more of the processors than they save space. */
const LOG_BYTES_MIN = 40 * 1024 * 1024;
/** Entries for which a part of their own pays. */
const PART_ENTRIES = 50_000;
const PARTS_MIN = 4;
/** Memory of a store whose checkpoint takes more than a moment. */
const LONG_BYTES = 128 * 1024 * 1024;
/** After a failure the next try waits so long, doubled at each further one. */
const RETRY_MS = 1000;
const RETRY_MS_MAX = 300_000;

/** What all tasks of one checkpoint have in common. */
interface Common {
  directory: string;
  files: FileSystemSource;
  storeId: Buffer;
  checkpoint: number;
  givesWay: boolean;
}

interface Request {
  resolve: (lsn: number) => void;
  reject: (error: unknown) => void;
}

export class Checkpointer {
  readonly #core: Core;
  readonly #words: Int32Array;
  readonly #logCounters: Float64Array;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> | undefined;
  #stopped = false;
  /** Backups that wait for their turn: no further checkpoint begins before them. */
  #waiting = 0;
  #requests: Request[] = [];
  /** Log bytes, as the log thread counts them, at the beginning of the last checkpoint. */
  #logBase: number;
  #last: CheckpointReport;
  #number: number;
  #startedMs = performance.now();
  #completed = 0;
  #failed = 0;
  #retryAtMs = 0;
  #retryMs = RETRY_MS;
  #lastError: Error | undefined;
  readonly #load = new OwnerLoad(LOAD_APART_MS);
  /** Requests of attached threads that have been served. */
  #served = 0;

  /** @param onEnd is told of every checkpoint that has ended */
  constructor(
    core: Core,
    readonly writer: Writer,
    readonly pool: Pool,
    readonly settings: CheckpointSettings,
    base: CheckpointBase,
    readonly onEnd: (report: CheckpointReport) => void,
  ) {
    this.#core = core;
    this.#words = core.words;
    this.#logCounters = new M.ThreadMetrics(core.control, L.LOG_SLOT).counters;
    this.#logBase = -base.logBytes;
    this.#number = base.number;
    this.#last = { reason: 'call', lsn: base.lsn, entries: base.entries, bytes: base.bytes, durationMs: 0, segmentsRetired: 0 };
    core.control.storeLsn(L.CONTROL_CHECKPOINT_LSN, base.lsn);
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  get stats(): CheckpointStats {
    const { lsn, entries, bytes, durationMs } = this.#last;
    const written = Atomics.load(this.#words, L.CONTROL_CHECKPOINT_ENTRIES) >>> 0;
    const running = this.#running !== undefined;
    return {
      running,
      progress: running ? Math.min(1, written / Math.max(1, this.#entryCount())) : 0,
      completed: this.#completed,
      failed: this.#failed,
      logBytes: this.#logBytes(),
      lsn,
      entries,
      bytes,
      durationMs,
      lastError: this.#lastError,
    };
  }

  /** Resolves with the LSN of a checkpoint that begins from now on. */
  request(): Promise<number> {
    if (this.#stopped) return Promise.reject(this.#core.control.closedError());
    return new Promise((resolve, reject) => {
      this.#requests.push({ resolve, reject });
      this.#look();
    });
  }

  /**
   * Makes a complete copy of the store in a new or empty folder, while writers run. It takes its turn with checkpoints, because
   * the log that it copies must stay.
   * @returns the LSN up to which, at least, the copy holds everything
   */
  async backup(target: string): Promise<number> {
    this.#waiting++;
    try {
      while (this.#running !== undefined) await this.#running;
    } finally {
      this.#waiting--;
    }
    if (this.#stopped) throw this.#core.control.closedError();
    const job = this.#backup(target);
    // Never rejects: whoever waits for its turn is not concerned.
    this.#running = job.then(
      () => undefined,
      () => undefined,
    );
    try {
      return await job;
    } finally {
      this.#running = undefined;
      this.#look();
    }
  }

  async #backup(target: string): Promise<number> {
    const { directory, storeId: sourceId, files, segmentBytes } = this.settings;
    const storeId = newStoreId();
    const common = { directory: target, files, storeId, checkpoint: 1, givesWay: this.#givesWay() };
    const alive = setInterval(() => undefined, WAIT_MS);
    try {
      await this.#task({ kind: 'prepare', ...common });
      try {
        const startLsn = this.#core.ring.appliedBelow();
        const manifest = await this.#capture(common, startLsn);
        await this.#task({ kind: 'complete', ...common, manifest, source: { directory, storeId: sourceId, segmentBytes } });
        return manifest.endLsn;
      } catch (error) {
        await this.#task({ kind: 'discard', ...common }).catch(() => undefined);
        throw error;
      }
    } finally {
      clearInterval(alive);
    }
  }

  /** Stops the checkpoint under way and makes no more. Resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    Atomics.store(this.#words, L.CONTROL_CHECKPOINT_ABORT, 1);
    await this.#running;
    this.#refuse(this.#core.control.closedError());
  }

  /** Ends every request that waits, of this thread and of attached ones. */
  #refuse(error: Error): void {
    for (const { reject } of this.#requests.splice(0)) reject(error);
    const asked = Atomics.load(this.#words, L.CONTROL_CHECKPOINT_REQUESTS);
    if (asked === this.#served) return;
    this.#served = asked;
    Atomics.store(this.#words, L.CONTROL_CHECKPOINT_OUTCOME, L.CHECKPOINT_FAILED);
    Atomics.store(this.#words, L.CONTROL_CHECKPOINT_SERVED, asked);
    this.#core.control.bump(L.CONTROL_CHECKPOINT_ENDS);
  }

  #logBytes(): number {
    return this.#logCounters[M.COUNTER_LOG_BYTES] - this.#logBase;
  }

  #entryCount(): number {
    let count = 0;
    for (const shard of this.#core.shards) count += shard.entryCount;
    return count;
  }

  #look(): void {
    this.#load.look(this.#logCounters[M.COUNTER_LOG_BYTES]);
    if (this.#running !== undefined || this.#stopped || this.#waiting > 0) return;
    if (this.#core.control.status !== L.STATUS_OPEN) {
      this.#refuse(this.#core.control.readonlyError());
      return;
    }
    const reason = this.#reason();
    if (reason === undefined) return;
    this.#running = this.#run(reason).finally(() => {
      this.#running = undefined;
      if (this.#requests.length > 0) this.#look();
    });
  }

  #reason(): CheckpointReport['reason'] | undefined {
    const asked = Atomics.load(this.#words, L.CONTROL_CHECKPOINT_REQUESTS) !== this.#served;
    if (this.#requests.length > 0 || asked) return 'call';
    const now = performance.now();
    if (now < this.#retryAtMs) return undefined;
    const logBytes = this.#logBytes();
    const limit = this.settings.logBytes || Math.max(LOG_BYTES_MIN, this.#last.bytes / 2);
    if (logBytes >= limit) return 'log size';
    const { intervalMs } = this.settings;
    const isDue = intervalMs !== 0 && now - this.#startedMs >= intervalMs && this.#core.control.lastLsn >= this.#last.lsn;
    return isDue ? 'interval' : undefined;
  }

  /** Never rejects: the report says how it went. */
  async #run(reason: CheckpointReport['reason']): Promise<void> {
    const words = this.#words;
    const requests = this.#requests.splice(0);
    const asked = Atomics.load(words, L.CONTROL_CHECKPOINT_REQUESTS);
    const started = performance.now();
    const logBase = this.#logCounters[M.COUNTER_LOG_BYTES];
    const report: CheckpointReport = { reason, lsn: 0, entries: 0, bytes: 0, durationMs: 0, segmentsRetired: 0 };
    // What is written keeps the process, as a pending write does.
    const alive = setInterval(() => undefined, WAIT_MS);
    try {
      await this.#write(report);
      this.#startedMs = started;
      this.#logBase = logBase;
      this.#last = report;
      this.#completed++;
      this.#retryMs = RETRY_MS;
      this.#lastError = undefined;
      this.#core.control.storeLsn(L.CONTROL_CHECKPOINT_LSN, report.lsn);
    } catch (error) {
      report.error = error as Error;
      this.#failed++;
      this.#lastError = report.error;
      this.#retryAtMs = performance.now() + this.#retryMs;
      this.#retryMs = Math.min(RETRY_MS_MAX, this.#retryMs * 2);
    } finally {
      clearInterval(alive);
    }
    report.durationMs = performance.now() - started;
    this.#served = asked;
    Atomics.store(words, L.CONTROL_CHECKPOINT_OUTCOME, outcomeOf(report.error));
    Atomics.store(words, L.CONTROL_CHECKPOINT_SERVED, asked);
    this.#core.control.bump(L.CONTROL_CHECKPOINT_ENDS);
    for (const { resolve, reject } of requests) {
      if (report.error === undefined) resolve(report.lsn);
      else reject(report.error);
    }
    this.onEnd(report);
  }

  async #write(report: CheckpointReport): Promise<void> {
    const { directory, files, storeId } = this.settings;
    const common = { directory, files, storeId, checkpoint: ++this.#number, givesWay: this.#givesWay() };
    try {
      await this.#rotateLog();
      report.lsn = this.#core.ring.appliedBelow();
      const manifest = await this.#capture(common, report.lsn);
      report.entries = manifest.entries;
      report.bytes = manifest.parts.reduce((sum, part) => sum + part.bytes, 0);
      await this.#publish(common, manifest, report);
    } catch (error) {
      // What cannot be removed now goes with the next checkpoint, or at the next opening.
      await this.#task({ kind: 'sweep', ...common }).catch(() => undefined);
      throw error;
    }
  }

  async #publish(common: Common, manifest: Manifest, report: CheckpointReport): Promise<void> {
    try {
      const result = await this.#task({
        kind: 'publish',
        ...common,
        control: this.#core.handle.control,
        manifest,
        restMs: this.#load.restMs(this.#givesWay()),
      });
      report.segmentsRetired = result.retired ?? 0;
      if (result.leftover !== undefined) report.leftover = fromErrorData(result.leftover);
    } catch (error) {
      // Its thread died, and what was there before may be gone in part: then this one is what counts.
      if (Atomics.load(this.#words, L.CONTROL_CHECKPOINT_VERIFIED) !== common.checkpoint) throw error;
      report.leftover = error as Error;
    }
  }

  /**
   * Has the log begin a new segment, so that all segments before it can be given up once the checkpoint is there: what is kept is
   * what was written since it began, to the byte.
   */
  async #rotateLog(): Promise<void> {
    const words = this.#words;
    Atomics.store(words, L.CONTROL_LOG_ROTATE, 1);
    this.#core.control.bump(L.CONTROL_LOG_WAKE);
    while (Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0) {
      const { failure } = this.#core.control;
      if (failure !== undefined || Atomics.load(words, L.CONTROL_LOG_STATE) !== L.LOG_RUNNING)
        throw failure ?? new FlashVectorError('FV_CLOSED', 'the store is closed');
      const wait = Atomics.waitAsync(words, L.CONTROL_LOG_ROTATE, 1, WAIT_MS);
      if (wait.async) await wait.value;
    }
  }

  /** Writes the parts and waits until the log is durable past them. */
  async #capture(common: Common, startLsn: number): Promise<Manifest> {
    Atomics.store(this.#words, L.CONTROL_CHECKPOINT_ENTRIES, 0);
    const parts = await this.#writeParts(common);
    // The structures before the end: each was logged before it could be read.
    const structures = this.#core.dictionary.texts().map((text) => Buffer.from(text));
    const endLsn = this.#core.ring.lastReserved();
    await this.writer.makeDurable(endLsn);
    const entries = parts.reduce((sum, part) => sum + part.entries, 0);
    return { storeId: common.storeId, number: common.checkpoint, startLsn, endLsn, createdMs: Date.now(), entries, parts, structures };
  }

  async #writeParts(common: Common): Promise<PartSummary[]> {
    const { handle } = this.#core;
    const wanted = Math.ceil(this.#entryCount() / PART_ENTRIES);
    const parts = Math.max(1, Math.min(handle.shards.length, wanted, Math.max(PARTS_MIN, this.pool.threads)));
    const summaries: PartSummary[] = [];
    let next = 0;
    let failure: unknown;
    let running = 0;
    const lanes: Promise<void>[] = [];
    // Before each part it is asked anew how many may run.
    const extend = (): void => {
      for (; running < this.#lanes() && next < parts && failure === undefined; running++) lanes.push(lane());
    };
    const lane = async (): Promise<void> => {
      do {
        const part = next++;
        const restMs = this.#load.restMs(this.#givesWay());
        try {
          const done = await this.#task({
            kind: 'write',
            ...common,
            control: handle.control,
            shards: [...handle.shards],
            part,
            parts,
            restMs,
          });
          if (done.part === undefined) throw new FlashVectorError('FV_IO', 'a part of the checkpoint was not written');
          summaries[part] = done.part;
        } catch (error) {
          failure ??= error;
        }
        extend();
      } while (running <= this.#lanes() && next < parts && failure === undefined);
      running--;
    };
    extend();
    // All lanes end, also after one has failed: nobody may still write when the rest is swept away.
    for (let i = 0; i < lanes.length; i++) await lanes[i];
    if (failure !== undefined) throw failure;
    return summaries;
  }

  /** A short checkpoint is over sooner, and its log is shorter, when it does not wait for its turn; a long one must not be felt. */
  #givesWay(): boolean {
    return this.#core.shards.reduce((sum, shard) => sum + shard.region.buffer.byteLength, 0) > LONG_BYTES;
  }

  /** Parts written at once. */
  #lanes(): number {
    const { threads } = this.pool;
    return this.#load.isBusy ? Math.max(1, threads >>> 1) : threads;
  }

  async #task(task: CheckpointTask): Promise<CheckpointDone> {
    const result = await this.pool.run<CheckpointTask, CheckpointResult>('checkpoint', task);
    if (result.error !== undefined) throw fromErrorData(result.error);
    return result;
  }
}

function outcomeOf(error: Error | undefined): number {
  if (error === undefined) return L.CHECKPOINT_MADE;
  return error instanceof FlashVectorError && error.code === 'FV_ABORTED' ? L.CHECKPOINT_ABORTED : L.CHECKPOINT_FAILED;
}
