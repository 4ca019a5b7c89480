/** Pool tasks of recovery: loading parts of a checkpoint, and replaying the log into this task's share of the shards. */

import type { MessagePort } from 'node:worker_threads';
import { toErrorData, type ErrorData } from '../src/base/errors.js';
import type { PartSummary } from '../src/checkpoint/format.js';
import { readPart } from '../src/checkpoint/part-reader.js';
import { Clock } from '../src/memory/clock.js';
import { Control } from '../src/memory/control.js';
import { CONTROL_HASH_SEED } from '../src/memory/layout.js';
import { Region } from '../src/memory/region.js';
import { Checksum } from '../src/platform/checksum.js';
import type { FileSystem, FileSystemSource } from '../src/platform/files.js';
import { loadFileSystem } from '../src/platform/load-files.js';
import { Loader, type LoadedEntry } from '../src/table/load.js';
import { Replayer, type Partition } from '../src/table/replay.js';
import { Scratch } from '../src/table/scratch.js';
import { Shard } from '../src/table/shard.js';
import { Dictionary } from '../src/table/structures.js';
import { ValueCodec } from '../src/table/value-codec.js';
import { LogReader, type LogSummary } from '../src/wal/log-reader.js';
import { visitRecords } from '../src/wal/records.js';

interface Common {
  directory: string;
  files: FileSystemSource;
  storeId: Uint8Array;
  control: SharedArrayBuffer;
  shards: SharedArrayBuffer[];
  partition: Partition;
  /** Receives `[bytesRead, bytesTotal, records]` from time to time. */
  progress?: MessagePort;
}

/** Loads every `partition.count`-th of the parts. */
export interface LoadTask extends Common {
  kind: 'load';
  checkpoint: number;
  parts: PartSummary[];
}

export interface ReplayTask extends Common {
  kind: 'replay';
  segmentBytes: number;
  startLsn: number;
}

export type RecoverTask = LoadTask | ReplayTask;
export interface RecoverDone {
  loaded?: number;
  summary?: LogSummary;
  error?: undefined;
}
export type RecoverResult = RecoverDone | { error: ErrorData };

const PROGRESS_BYTES = 16 * 1024 * 1024;

export default async function recover(task: RecoverTask): Promise<RecoverResult> {
  try {
    const files = await loadFileSystem(task.files);
    const checksum = await Checksum.load();
    const control = new Control(task.control);
    const scratch = new Scratch(control.words[CONTROL_HASH_SEED]);
    const dictionary = new Dictionary(control, 0, undefined);
    const codec = new ValueCodec(scratch, dictionary);
    // The index is built when everything is there.
    const context = { scratch, codec, clock: new Clock(task.control), slot: 0, index: undefined };
    const shards = task.shards.map((buffer, i) => new Shard(new Region(buffer, control.words), i, context));
    if (task.kind === 'load') return { loaded: load(files, checksum, new Loader(shards, scratch, task.partition.index + 1), task) };
    return { summary: replay(files, checksum, new Replayer(shards, scratch, dictionary, task.partition), task) };
  } catch (error) {
    return { error: toErrorData(error) };
  } finally {
    task.progress?.close();
  }
}

interface LateEntry {
  entry: LoadedEntry;
  payload: Buffer;
}

function load(files: FileSystem, checksum: Checksum, loader: Loader, task: LoadTask): number {
  const { partition, parts, checkpoint } = task;
  const storeId = Buffer.from(task.storeId);
  const own = parts.filter((_, i) => i % partition.count === partition.index);
  const total = own.reduce((sum, part) => sum + part.bytes, 0);
  let before = 0;
  let told = 0;
  /** Entries of a block whose shard was another loader's when their turn came. */
  let late: LateEntry[] = [];
  for (const part of own) {
    readPart(files, checksum, task.directory, { storeId, checkpoint, part: part.part }, part, {
      entry: (entry, payload) => {
        if (!loader.offer(entry, payload)) late.push({ entry: { ...entry }, payload });
      },
      progress: (bytes) => {
        // Hardly any of them is met with a busy shard twice.
        late = late.filter(({ entry, payload }) => !loader.offer(entry, payload));
        for (const { entry, payload } of late) loader.entry(entry, payload);
        late.length = 0;
        if (before + bytes - told < PROGRESS_BYTES) return;
        told = before + bytes;
        task.progress?.postMessage([told, total, loader.loaded]);
      },
    });
    before += part.bytes;
  }
  task.progress?.postMessage([total, total, loader.loaded]);
  return loader.loaded;
}

function replay(files: FileSystem, checksum: Checksum, replayer: Replayer, task: ReplayTask): LogSummary {
  const reader = new LogReader(files, checksum, task.directory, Buffer.from(task.storeId), task.segmentBytes);
  let records = 0;
  return reader.read(
    {
      frame: (header, payload, file, offset) => {
        records += header.records;
        visitRecords(payload, header.records, header.firstLsn, file, offset, replayer);
      },
      progress: (bytesRead, bytesTotal) => task.progress?.postMessage([bytesRead, bytesTotal, records]),
    },
    task.startLsn,
  );
}
