/**
 * A whole store in one thread over a simulated disk: the engine's recovery, write path, group commit and checkpoints,
 * with the pool's tasks run in place and the log's loop run whenever it has something to do. So every
 * run makes the same file operations in the same order.
 */

import { resolveOptions } from '../../src/base/options.js';
import { removeDebris } from '../../src/checkpoint/catalog.js';
import { Checkpointer, type CheckpointReport } from '../../src/engine/checkpoints.js';
import { Core } from '../../src/engine/core.js';
import { FlashVector } from '../../src/engine/database.js';
import { createMemory } from '../../src/engine/memory.js';
import type { Pool } from '../../src/engine/pool.js';
import { Recovery } from '../../src/engine/recovery.js';
import { Writer } from '../../src/engine/writer.js';
import * as L from '../../src/memory/layout.js';
import { Region } from '../../src/memory/region.js';
import { claimSlot } from '../../src/memory/registry.js';
import { RingReader } from '../../src/memory/ring-reader.js';
import { Checksum } from '../../src/platform/checksum.js';
import { runGroupCommit, type RecordSource } from '../../src/wal/group-commit.js';
import { createIdentity, readIdentity, removeTemporaries } from '../../src/wal/identity.js';
import { SegmentWriter } from '../../src/wal/segment-writer.js';
import recover, { type RecoverTask } from '../../workers/recover.js';
import index, { type IndexTask } from '../../workers/index.js';
import checkpoint, { type CheckpointTask } from '../../workers/checkpoint.js';
import { diskSource, type SimulatedDisk } from './simulated-disk.js';

const DIRECTORY = '/store';
const SEGMENT_BYTES = 65_536;
const FRAME_BYTES_MAX = 16_384;

/** Thrown out of the log's loop when it would sleep. */
const asleep = new Error('asleep');

const tasks: Record<string, (task: unknown) => unknown> = {
  recover: (task) => recover(task as RecoverTask),
  checkpoint: (task) => checkpoint(task as CheckpointTask),
  index: (task) => index(task as IndexTask),
};
const run = (name: string, task: unknown): unknown => tasks[name](task);

const inlinePool = {
  threads: 2,
  run: async (name: string, task: unknown) => run(name, task),
  runOnLead: async (name: string, task: unknown) => run(name, task),
  destroy: () => Promise.resolve(),
} as unknown as Pool;

export class HarnessStore {
  readonly db: FlashVector;
  reports: CheckpointReport[] = [];
  #failed = false;

  private constructor(
    readonly disk: SimulatedDisk,
    readonly core: Core,
    readonly writer: Writer,
    readonly log: SegmentWriter,
    readonly reader: RingReader,
    readonly checkpointer: Checkpointer,
    public lastLsn: number,
  ) {
    this.db = new FlashVector(core, writer, {
      close: () => Promise.resolve(),
      checkpoint: () => checkpointer.request(),
      backup: (target) => checkpointer.backup(target),
      checkpoints: undefined,
    });
  }

  /** Opens the store on the disk, as Opening does, or creates it. */
  static async open(disk: SimulatedDisk, onProgress?: () => void): Promise<HarnessStore> {
    const source = diskSource(disk);
    const files = disk.files();
    const checksum = await Checksum.load();
    const options = resolveOptions({ shards: 2, ringBytes: 65_536, walSegmentBytes: SEGMENT_BYTES, poolThreads: 1, onProgress });
    removeTemporaries(files, DIRECTORY);
    const storeId = readIdentity(files, checksum, DIRECTORY) ?? createIdentity(files, checksum, DIRECTORY, 0);
    const recovery = new Recovery(source, files, checksum, DIRECTORY, storeId, options, inlinePool, () => createMemory(options));
    const { handle, summary, base } = await recovery.run();
    removeDebris(files, DIRECTORY);
    const core = new Core(handle, L.OWNER_SLOT);
    claimSlot(core.control, L.OWNER_SLOT, 0);
    core.clock.start(1_700_000_000_000);
    const { control, words } = core;
    const lastLsn = summary.end.lastLsn;
    control.storeLsn(L.CONTROL_NEXT_LSN, lastLsn + 1);
    control.storeLsn(L.CONTROL_WRITTEN, lastLsn);
    control.storeLsn(L.CONTROL_DURABLE, lastLsn);
    const log = new SegmentWriter(files, checksum, { directory: DIRECTORY, storeId, segmentBytes: SEGMENT_BYTES }, summary.end);
    Atomics.store(words, L.CONTROL_LOG_STATE, L.LOG_RUNNING);
    const reader = new RingReader(handle.ring, control, new Region(handle.staging, words, false));
    const writer = new Writer(core);
    const settings = {
      directory: DIRECTORY,
      files: source,
      storeId,
      segmentBytes: SEGMENT_BYTES,
      intervalMs: 0,
      logBytes: Number.MAX_SAFE_INTEGER,
    };
    const reports: CheckpointReport[] = [];
    const checkpointer = new Checkpointer(core, writer, inlinePool, settings, base, (report) => reports.push(report));
    const store = new HarnessStore(disk, core, writer, log, reader, checkpointer, lastLsn);
    store.reports = reports;
    return store;
  }

  /** Runs the log's loop until it would sleep, or has failed. */
  pump(): void {
    if (this.#failed) return;
    const { core, reader } = this;
    const { control, words } = core;
    const sleep = (): never => {
      throw asleep;
    };
    const source: RecordSource = {
      take: (bytesMax) => reader.take(bytesMax),
      release: () => reader.release(),
      gather: () => undefined,
      linger: () => undefined,
      rest: () => undefined,
      beat: () => undefined,
      wait: sleep,
      stopping: false,
      drained: true,
      get rotationWanted() {
        return Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0;
      },
      rotated: () => {
        Atomics.store(words, L.CONTROL_LOG_ROTATE, 0);
        Atomics.notify(words, L.CONTROL_LOG_ROTATE);
      },
      takeSyncRequest: () => Atomics.exchange(words, L.CONTROL_SYNC_REQUESTED, 0) !== 0,
      progress: (writtenLsn, durableLsn) => {
        this.lastLsn = writtenLsn;
        return reader.announce(writtenLsn, durableLsn);
      },
    };
    const observer = { frame: () => undefined, sync: () => undefined, segments: () => undefined };
    // Every group is synced before the loop sleeps, so what is written is durable when it starts again.
    const settings = {
      syncIntervalMs: 0,
      commitDelayMs: 0,
      frameBytesMax: FRAME_BYTES_MAX,
      groupBytesMax: FRAME_BYTES_MAX,
      restBytesMax: 1024 * 1024,
      lastLsn: this.lastLsn,
    };
    try {
      runGroupCommit(source, this.log, observer, settings, () => 0);
    } catch (error) {
      if (error === asleep) return;
      this.#failed = true;
      control.fail(error);
      Atomics.store(words, L.CONTROL_LOG_STATE, L.LOG_FAILED);
      control.bump(L.CONTROL_ACK_EPOCH);
    }
  }

  /** Waits for a promise of the store while the log goes on. */
  async settle<Value>(promise: Promise<Value>): Promise<Value> {
    let settled = false;
    const done = promise.finally(() => {
      settled = true;
    });
    done.catch(() => undefined);
    while (!settled) {
      this.pump();
      await new Promise((resolve) => setImmediate(resolve));
    }
    return done;
  }

  /** Closes as the engine does: the log ends with a clean frame. */
  async close(): Promise<void> {
    this.pump();
    await this.checkpointer.stop();
    if (!this.#failed) {
      this.log.writeCleanEnd(this.lastLsn);
      this.log.close();
    }
    this.dispose();
  }

  /** Lets go of timers, after a power cut. */
  dispose(): void {
    void this.checkpointer.stop();
    this.writer.dispose();
  }

  /** Everything in the store. */
  contents(): Map<string, unknown> {
    return new Map([...this.db.entries()].map(([key, value]) => [String(key), value]));
  }
}
