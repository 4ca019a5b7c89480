/**
 * Recovery: from what is in the folder to shared memory that holds it. Changes no file.
 *
 * The newest checkpoint is loaded in parallel by parts, then the log from its LSN on is replayed in parallel by shards. Where
 * a checkpoint is damaged the one before is taken, if there is one and the log still reaches back to it; otherwise
 * the damage is reported, with its position, and nothing is opened.
 */

import { MessageChannel } from 'node:worker_threads';
import { FlashVectorError, fromErrorData, ioError } from '../base/errors.js';
import type { RecoveryProgress, ResolvedOptions } from '../base/options.js';
import { checkpointNumbers, readManifest } from '../checkpoint/catalog.js';
import { partCheckpoint, type Manifest } from '../checkpoint/format.js';
import { Clock } from '../memory/clock.js';
import { Control } from '../memory/control.js';
import { CONTROL_HASH_SEED } from '../memory/layout.js';
import type { Checksum } from '../platform/checksum.js';
import type { FileSystem, FileSystemSource } from '../platform/files.js';
import { splitRuns } from '../table/index-merge.js';
import { sampleShared, type SortedRun } from '../table/index-sort.js';
import { Scratch } from '../table/scratch.js';
import { Dictionary } from '../table/structures.js';
import { ValueCodec } from '../table/value-codec.js';
import { segmentNumber } from '../wal/format.js';
import type { LogSummary } from '../wal/log-reader.js';
import type { IndexDone, IndexResult, IndexTask } from '../../workers/index.js';
import type { RecoverDone, RecoverResult, RecoverTask } from '../../workers/recover.js';
import type { CheckpointBase } from './checkpoints.js';
import { mapShards } from './core.js';
import type { StoreHandle } from './handle.js';
import type { Pool } from './pool.js';

export interface Recovered {
  handle: StoreHandle;
  summary: LogSummary;
  base: CheckpointBase;
}

/** The log is replayed in one thread below this many segments: starting another costs more than it saves. */
const PARALLEL_SEGMENTS = 2;

/** Keys that are worth sorting in several threads. */
const PARALLEL_ENTRIES = 50_000;

type Phase = RecoveryProgress['phase'];

export class Recovery {
  /** What `onProgress` has thrown. */
  #refusal: { reason: unknown } | undefined;

  constructor(
    readonly source: FileSystemSource,
    readonly files: FileSystem,
    readonly checksum: Checksum,
    readonly directory: string,
    readonly storeId: Buffer,
    readonly options: ResolvedOptions,
    readonly pool: Pool,
    readonly createMemory: () => StoreHandle,
  ) {}

  /** @throws FlashVectorError FV_CORRUPT, FV_VERSION, FV_IO, FV_MEMORY_FULL */
  async run(): Promise<Recovered> {
    const names = this.#list();
    /** Damage of the newest checkpoint: what is reported when no other way leads on. */
    let damage: FlashVectorError | undefined;
    /** The log was durable up to here, says any manifest that can be read. */
    let endLsn = 0;
    for (const number of checkpointNumbers(this.files, this.directory)) {
      let manifest: Manifest;
      let handle: StoreHandle;
      try {
        manifest = readManifest(this.files, this.checksum, this.directory, this.storeId, number);
        endLsn = Math.max(endLsn, manifest.endLsn);
        handle = await this.#load(manifest);
      } catch (error) {
        if (this.#refusal !== undefined) throw this.#refusal.reason;
        if (!(error instanceof FlashVectorError) || error.code !== 'FV_CORRUPT') throw error;
        damage ??= error;
        continue;
      }
      return this.#replay(handle, manifest, names, endLsn, damage);
    }
    return this.#replay(this.createMemory(), undefined, names, endLsn, damage);
  }

  #list(): string[] {
    try {
      return this.files.list(this.directory);
    } catch (error) {
      throw ioError('listing the folder', this.directory, error);
    }
  }

  async #load(manifest: Manifest): Promise<StoreHandle> {
    const handle = this.createMemory();
    const dictionary = new Dictionary(new Control(handle.control), 0, undefined);
    manifest.structures.forEach((text, number) => dictionary.append(number, text));
    const { number: checkpoint, parts } = manifest;
    const count = Math.max(1, Math.min(this.options.poolThreads, parts.length));
    const results = await this.#inParallel('load', handle, count, (common) => ({ kind: 'load', ...common, checkpoint, parts }));
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    this.#tell(
      'load',
      bytes,
      results.reduce((sum, { loaded }) => sum + (loaded ?? 0), 0),
    );
    return handle;
  }

  async #replay(
    handle: StoreHandle,
    manifest: Manifest | undefined,
    names: string[],
    endLsn: number,
    damage: FlashVectorError | undefined,
  ): Promise<Recovered> {
    const startLsn = manifest?.startLsn ?? 1;
    const segments = names.filter((name) => segmentNumber(name) !== undefined).length;
    const count = segments < PARALLEL_SEGMENTS ? 1 : Math.min(this.options.poolThreads, this.options.shards);
    // Without a checkpoint and without a log it would look like a store that never held anything.
    if (manifest === undefined && damage !== undefined && segments === 0) throw damage;
    const segmentBytes = this.options.walSegmentBytes;
    let summary: LogSummary;
    try {
      const [first] = await this.#inParallel('replay', handle, count, (common) => ({ kind: 'replay', ...common, segmentBytes, startLsn }));
      summary = first.summary as LogSummary;
    } catch (error) {
      throw damage ?? error;
    }
    const { lastLsn } = summary.end;
    if (lastLsn < endLsn) {
      if (damage !== undefined) throw damage;
      throw new FlashVectorError('FV_CORRUPT', `the log in ${this.directory} ends with LSN ${lastLsn}, but was durable up to ${endLsn}`, {
        file: this.directory,
        lsn: lastLsn + 1,
        lsnLast: endLsn,
      });
    }
    this.#tell('replay', summary.bytes, summary.records);
    if (this.options.ordered) await this.#index(handle);
    this.#tell('done', 0, summary.records);
    const used = names.map((name) => partCheckpoint(name) ?? 0);
    const base: CheckpointBase = {
      number: Math.max(0, ...checkpointNumbers(this.files, this.directory), ...used),
      lsn: startLsn,
      entries: manifest?.entries ?? 0,
      bytes: manifest?.parts.reduce((sum, part) => sum + part.bytes, 0) ?? 0,
      logBytes: summary.bytes,
    };
    return { handle, summary, base };
  }

  /** Builds the ordered index over what has been recovered. */
  async #index(handle: StoreHandle): Promise<void> {
    const control = new Control(handle.control);
    const scratch = new Scratch(control.words[CONTROL_HASH_SEED]);
    const codec = new ValueCodec(scratch, new Dictionary(control, 0, undefined));
    const { shards } = mapShards(handle, control.words, 0, scratch, codec, new Clock(handle.control));
    const entries = shards.reduce((sum, shard) => sum + shard.entryCount, 0);
    if (entries === 0) return;
    const count = entries < PARALLEL_ENTRIES ? 1 : Math.min(this.options.poolThreads, shards.length);
    const common = { control: handle.control, shards: [...handle.shards] };
    let shared = sampleShared(shards);
    let runs: SortedRun[];
    for (;;) {
      const guess = shared;
      const tasks = Array.from({ length: count }, (_, index): IndexTask => ({ kind: 'sort', ...common, index, count, shared: guess }));
      const results = await Promise.all(tasks.map((task, index) => this.#indexTask(task, index)));
      runs = results.flatMap(({ run }) => run ?? []);
      if (runs.length === count) break;
      // The sample was not like all keys: the least that any run has met is right.
      shared = Math.min(...results.map((result) => result.shared ?? guess));
    }
    this.#tell('index', 0, Math.floor(entries / 2));
    const region = handle.index;
    if (count === 1) {
      await this.#indexTask({ kind: 'build', ...common, region, runs }, 0);
    } else {
      const ranges = splitRuns(runs, shards, count);
      // All of them, also after one has failed: nobody may still fill memory that was given up.
      const ends = await Promise.allSettled(
        ranges.map((range, index) => this.#indexTask({ kind: 'leaves', ...common, region, runs, range, index }, index)),
      );
      const leaves = valuesOf(ends).flatMap((done) => done.leaves ?? []);
      await this.#indexTask({ kind: 'tree', ...common, region, leaves }, 0);
    }
    this.#tell('index', 0, entries);
  }

  async #indexTask(task: IndexTask, index: number): Promise<IndexDone> {
    const { pool } = this;
    const result = await (index === 0
      ? pool.runOnLead<IndexTask, IndexResult>('index', task)
      : pool.run<IndexTask, IndexResult>('index', task));
    if (result.error !== undefined) throw fromErrorData(result.error);
    return result;
  }

  /** A phase is over. What its task has said last may not have arrived. @throws what `onProgress` has thrown */
  #tell(phase: Phase, bytes: number, records: number): void {
    this.#report({ phase, bytesRead: bytes, bytesTotal: bytes, records });
    if (this.#refusal !== undefined) throw this.#refusal.reason;
  }

  /** Calls `onProgress`, and no more once it has thrown: opening fails for that when the phase is over and its tasks have ended. */
  #report(progress: RecoveryProgress): void {
    if (this.#refusal !== undefined) return;
    try {
      this.options.onProgress?.(progress);
    } catch (reason) {
      this.#refusal = { reason };
    }
  }

  async #inParallel(
    phase: Phase,
    handle: StoreHandle,
    count: number,
    makeTask: (common: Pick<RecoverTask, 'directory' | 'files' | 'storeId' | 'control' | 'shards' | 'partition'>) => RecoverTask,
  ): Promise<RecoverDone[]> {
    const { directory, source: files, storeId } = this;
    const run = async (index: number): Promise<RecoverDone> => {
      const common = { directory, files, storeId, control: handle.control, shards: [...handle.shards], partition: { index, count } };
      const task = makeTask(common);
      const result = await (index === 0 ? this.#lead(phase, task) : this.pool.run<RecoverTask, RecoverResult>('recover', task));
      if (result.error !== undefined) throw fromErrorData(result.error);
      return result;
    };
    // All of them, also after one has failed: nobody may still fill memory that was given up.
    const ends = await Promise.allSettled(Array.from({ length: count }, (_, index) => run(index)));
    return valuesOf(ends);
  }

  /** The part that runs on the lead thread also tells of its progress. */
  #lead(phase: Phase, task: RecoverTask): Promise<RecoverResult> {
    if (this.options.onProgress === undefined) return this.pool.runOnLead<RecoverTask, RecoverResult>('recover', task);
    const { port1, port2 } = new MessageChannel();
    port1.on('message', ([bytesRead, bytesTotal, records]: [number, number, number]) =>
      this.#report({ phase, bytesRead, bytesTotal, records }),
    );
    port1.unref();
    return this.pool.runOnLead<RecoverTask, RecoverResult>('recover', { ...task, progress: port2 }, [port2]).finally(() => port1.close());
  }
}

/** What tasks that ran at once have brought. @throws why one of them failed: rather what made the others wait in vain than that they did */
function valuesOf<T>(ends: readonly PromiseSettledResult<T>[]): T[] {
  const failures = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []));
  if (failures.length > 0) throw failures.find((failure) => !isTimeout(failure)) ?? failures[0];
  return ends.flatMap((end) => (end.status === 'fulfilled' ? [end.value] : []));
}

function isTimeout(failure: unknown): boolean {
  return failure instanceof FlashVectorError && failure.code === 'FV_TIMEOUT';
}
