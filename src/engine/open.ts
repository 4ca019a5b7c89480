/**
 * Opening a store: folder, lock, shared memory, recovery, log thread; and the owner's way of closing it.
 * Runs in the thread that will own the store.
 */

import path from 'node:path';
import { FlashVectorError, assert, describe, ioError } from '../base/errors.js';
import { resolveOptions, type OpenOptions, type ResolvedOptions } from '../base/options.js';
import { removeDebris } from '../checkpoint/catalog.js';
import { memoryUnits, type Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { claimSlot } from '../memory/registry.js';
import { folderAt } from '../platform/folders.js';
import { lockFolder, refuseHeldFolder, type FolderLock } from '../platform/folder-lock.js';
import type { FileSystem, FileSystemSource } from '../platform/files.js';
import { loadFileSystem } from '../platform/load-files.js';
import { NODE_FILES } from '../platform/node-files.js';
import { Checksum } from '../platform/checksum.js';
import { createIdentity, readIdentity, removeTemporaries } from '../wal/identity.js';
import type { LogSummary } from '../wal/log-reader.js';
import type { LogTask } from '../../workers/log.js';
import type { ChangeSource } from './changes.js';
import { Checkpointer, type CheckpointBase, type CheckpointSettings, type CheckpointStats } from './checkpoints.js';
import { keepCode } from './code-keeper.js';
import { Core } from './core.js';
import { FlashVector, type Lifecycle } from './database.js';
import { Expirer } from './expirer.js';
import type { StoreHandle } from './handle.js';
import { indexer } from './indexer.js';
import { createMemory, growingBytes } from './memory.js';
import { Pool } from './pool.js';
import { Recovery } from './recovery.js';
import { closeOnSignals } from './signals.js';
import { ThreadWatch } from './threads.js';
import { Writer } from './writer.js';
import { systemThreadId } from '../platform/thread-life.js';

/** What tests replace. */
export interface Environment {
  files: FileSystemSource;
}

/** Longest that closing waits for writes that other threads have deferred. */
const DEFERRED_TIMEOUT_MS = 30_000;
const POLL_MS = 5;
/** How often the state of the log is looked at although nobody announced a change. */
const LOG_CHECK_MS = 1000;

/**
 * Opens the store in `directory`, creating it when there is none, and recovers what is there.
 *
 * The calling thread becomes the store's owner. One process can have a store open at a time; its
 * threads share it through `db.handle` and `attach`.
 * Rejects with `FV_OPTION`, `FV_LOCKED` (with `pid`), `FV_CORRUPT` (with `file`, `offset`, LSNs), `FV_VERSION`,
 * `FV_MEMORY_FULL`, `FV_IO`, `FV_ABORTED` (a thread that recovered it died), or a TypeError.
 * @example const db = await open('./data', { durability: 'sync' })
 */
export function open(directory: string, options?: OpenOptions): Promise<FlashVector> {
  return openIn({ files: NODE_FILES }, directory, options);
}

/** As `open`, over other files. */
export async function openIn(environment: Environment, directory: string, options?: OpenOptions): Promise<FlashVector> {
  if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) {
    throw new TypeError(`open: directory must be a path, not ${describe(directory)}`);
  }
  const opening = new Opening(environment, path.resolve(directory), resolveOptions(options));
  try {
    const db = await opening.run();
    if (opening.options.handleSignals) closeOnSignals(db);
    return db;
  } catch (error) {
    await opening.undo();
    throw error;
  }
}

/** The steps of opening, and what of them is to be undone when one fails. */
class Opening {
  #lock: FolderLock | undefined;
  #pool: Pool | undefined;
  #core: Core | undefined;
  #watch: ThreadWatch | undefined;
  #writer: Writer | undefined;
  #logTask: Promise<unknown> | undefined;
  #checkpointer: Checkpointer | undefined;
  #expirer: Expirer | undefined;
  #changes: ChangeSource | undefined;
  #closing = false;
  #db: FlashVector | undefined;
  #announced = false;

  constructor(
    readonly environment: Environment,
    readonly directory: string,
    readonly options: ResolvedOptions,
  ) {}

  async run(): Promise<FlashVector> {
    const { directory, options } = this;
    // Refused before anything is made.
    growingBytes(options);
    const files = await loadFileSystem(this.environment.files);
    const checksum = await Checksum.load();
    this.#makeFolder(files);
    if (options.readOnly) await refuseHeldFolder(directory);
    else {
      this.#lock = await lockFolder(directory);
      try {
        removeTemporaries(files, directory);
      } catch (error) {
        throw ioError('opening the store', directory, error);
      }
    }
    const storeId = this.#identify(files, checksum);
    const pool = new Pool(options.poolThreads);
    this.#pool = pool;
    const source = this.environment.files;
    const recovery = new Recovery(source, files, checksum, directory, storeId, options, pool, () => createMemory(options));
    const { handle, summary, base } = await recovery.run();
    // Only now: what looks like debris in a damaged folder may be what can still be saved.
    if (!options.readOnly) removeDebris(files, directory);
    const core = new Core(handle, L.OWNER_SLOT);
    this.#core = core;
    claimSlot(core.control, L.OWNER_SLOT, systemThreadId());
    core.clock.start(Date.now());
    this.#watch = new ThreadWatch(core, (failure) => this.#announceFailure(failure));
    core.words[L.CONTROL_MEMORY_UNITS_MAX] = memoryUnits(growingBytes(options));
    this.#startLsn(core.control, summary.end.lastLsn);
    const writer = new Writer(core);
    this.#writer = writer;
    if (options.readOnly) Atomics.store(core.words, L.CONTROL_STATUS, L.STATUS_READONLY);
    const db = new FlashVector(core, writer, this.#lifecycle(), options.cache);
    this.#db = db;
    if (options.readOnly) {
      await pool.destroy();
      return db;
    }
    await this.#startLog(storeId, handle, summary, db);
    core.onIndexerWanted = () => indexer.assign(core);
    this.#expirer = new Expirer(core, writer, () => db.reclaimVersions());
    this.#changes = { directory, files: source, storeId, pool };
    this.#startCheckpoints(core, writer, pool, storeId, base, db);
    return db;
  }

  #lifecycle(): Lifecycle {
    const checkpointer = (): Checkpointer => {
      assert(this.#checkpointer !== undefined, 'a store that can be written has its checkpoints');
      return this.#checkpointer;
    };
    const stats = (): CheckpointStats | undefined => this.#checkpointer?.stats;
    const changes = (): ChangeSource | undefined => this.#changes;
    return {
      close: () => this.#close(),
      checkpoint: () => checkpointer().request(),
      backup: (directory) => checkpointer().backup(path.resolve(directory)),
      get changes() {
        return changes();
      },
      get checkpoints() {
        return stats();
      },
    };
  }

  #startCheckpoints(core: Core, writer: Writer, pool: Pool, storeId: Buffer, base: CheckpointBase, db: FlashVector): void {
    const { directory, options } = this;
    const settings: CheckpointSettings = {
      directory,
      files: this.environment.files,
      storeId,
      segmentBytes: options.walSegmentBytes,
      intervalMs: options.snapshotIntervalSeconds * 1000,
      logBytes: options.checkpointLogBytes ?? 0,
    };
    this.#checkpointer = new Checkpointer(core, writer, pool, settings, base, (report) => {
      // Apart from the caller: what a listener throws is the listener's own.
      setImmediate(() => db.emit('checkpoint', report));
    });
  }

  #makeFolder(files: FileSystem): void {
    const { directory, options } = this;
    const found = folderAt(directory);
    if (found === 'other') throw new FlashVectorError('FV_IO', `${directory} is not a folder`, { file: directory });
    if (found === 'folder') return;
    if (!options.createIfMissing || options.readOnly) throw this.#missing();
    try {
      files.makeDirectory(directory);
      files.syncDirectory(path.dirname(directory));
    } catch (error) {
      throw ioError('creating the folder', directory, error);
    }
  }

  #missing(): FlashVectorError {
    return new FlashVectorError('FV_IO', `there is no store in ${this.directory}`, { file: this.directory });
  }

  #identify(files: FileSystem, checksum: Checksum): Buffer {
    const { directory, options } = this;
    const storeId = readIdentity(files, checksum, directory);
    if (storeId === undefined) {
      if (!options.createIfMissing || options.readOnly) throw this.#missing();
      return createIdentity(files, checksum, directory, Date.now());
    }
    if (options.errorIfExists)
      throw new FlashVectorError('FV_IO', `there is a store in ${directory} already, and errorIfExists is set`, { file: directory });
    return storeId;
  }

  #poolOrThrow(): Pool {
    assert(this.#pool !== undefined, 'the pool is made before tasks run');
    return this.#pool;
  }

  #startLsn(control: Control, lastLsn: number): void {
    control.storeLsn(L.CONTROL_NEXT_LSN, lastLsn + 1);
    control.storeLsn(L.CONTROL_WRITTEN, lastLsn);
    control.storeLsn(L.CONTROL_DURABLE, lastLsn);
  }

  async #startLog(storeId: Buffer, handle: StoreHandle, summary: LogSummary, db: FlashVector): Promise<void> {
    const { directory, options } = this;
    const words = db.handle.control;
    const control = new Int32Array(words);
    await this.#poolOrThrow().runOnLead<LogTask, void>('log', {
      directory,
      files: this.environment.files,
      storeId,
      segmentBytes: options.walSegmentBytes,
      syncIntervalMs: options.syncIntervalMs,
      commitDelayMs: options.commitDelayUs / 1000,
      end: summary.end,
      control: handle.control,
      ring: handle.ring,
      staging: handle.staging,
    });
    await this.#logLeaves(control, L.LOG_STARTING);
    this.#logTask = this.#logLeaves(control, L.LOG_RUNNING).then(() => this.#logEnded());
    if (Atomics.load(control, L.CONTROL_LOG_STATE) === L.LOG_FAILED) {
      throw this.#core?.control.failure ?? new FlashVectorError('FV_IO', 'the log could not be started');
    }
  }

  /** Resolves when the log is no longer in `state`. Holds the process only while starting and closing. */
  async #logLeaves(control: Int32Array, state: number): Promise<void> {
    while (Atomics.load(control, L.CONTROL_LOG_STATE) === state) {
      const wait = Atomics.waitAsync(control, L.CONTROL_LOG_STATE, state, LOG_CHECK_MS);
      const held = state === L.LOG_STARTING || this.#closing;
      const alive = held ? setTimeout(() => undefined, 2 * LOG_CHECK_MS) : undefined;
      if (wait.async) await wait.value;
      clearTimeout(alive);
    }
  }

  #logEnded(): void {
    const failure = this.#core?.control.failure;
    if (failure !== undefined) this.#announceFailure(failure);
  }

  /** Tells the listeners, once, and apart from the caller: what a listener throws is the listener's own. */
  #announceFailure(failure: Error): void {
    const db = this.#db;
    if (this.#announced || db === undefined) return;
    this.#announced = true;
    setImmediate(() => {
      db.emit('readonly', failure);
      if (db.listenerCount('error') > 0) db.emit('error', failure);
    });
  }

  /** The owner's close: see docs/durability.md for what it promises. */
  async #close(): Promise<void> {
    const core = this.#core;
    const writer = this.#writer;
    if (core === undefined || writer === undefined) return;
    const { control, words } = core;
    Atomics.store(words, L.CONTROL_STATUS, L.STATUS_CLOSING);
    if (!this.options.readOnly) {
      this.#expirer?.stop();
      await this.#checkpointer?.stop();
      await writer.idle();
      await this.#otherThreadsDone(core);
      Atomics.store(words, L.CONTROL_LOG_STOP, 1);
      control.bump(L.CONTROL_LOG_WAKE);
      this.#closing = true;
      const alive = setInterval(() => undefined, LOG_CHECK_MS);
      await this.#logTask;
      clearInterval(alive);
      if (Atomics.load(words, L.CONTROL_LOG_STATE) === L.LOG_FAILED) await writer.idle();
    }
    Atomics.store(words, L.CONTROL_STATUS, L.STATUS_CLOSED);
    control.bump(L.CONTROL_ACK_EPOCH);
    await this.undo();
    keepCode(core, this.options.cache);
    if (!this.options.readOnly && control.failure !== undefined) throw control.failure;
  }

  /** Waits until no other thread has writes that it will still try. */
  async #otherThreadsDone(core: Core): Promise<void> {
    const deadline = performance.now() + DEFERRED_TIMEOUT_MS;
    const deferred = (): boolean => {
      for (let slot = L.FIRST_FREE_SLOT; slot < L.THREADS_MAX; slot++) {
        const word = core.control.shape.threadAreaWord + slot * L.THREAD_WORDS;
        if (Atomics.load(core.words, word + L.THREAD_ID) !== 0 && Atomics.load(core.words, word + L.THREAD_DEFERRED) > 0) return true;
      }
      return false;
    };
    while (deferred() && performance.now() < deadline && core.control.failure === undefined) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Gives everything back that was taken so far. */
  async undo(): Promise<void> {
    this.#expirer?.stop();
    await this.#checkpointer?.stop();
    this.#watch?.dispose();
    this.#writer?.dispose();
    if (this.#core !== undefined) Atomics.store(this.#core.words, L.CONTROL_STATUS, L.STATUS_CLOSED);
    if (this.#core !== undefined) indexer.release(this.#core);
    await this.#pool?.destroy();
    await this.#lock?.release();
  }
}
