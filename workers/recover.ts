/** Pool task: reads the log and applies this task's share of the shards. */

import type { MessagePort } from 'node:worker_threads';
import { toErrorData, type ErrorData } from '../src/base/errors.js';
import { Control } from '../src/memory/control.js';
import { CONTROL_HASH_SEED } from '../src/memory/layout.js';
import { Region } from '../src/memory/region.js';
import type { FileSystemSource } from '../src/platform/files.js';
import { loadFileSystem } from '../src/platform/load-files.js';
import { Replayer, type Partition } from '../src/table/replay.js';
import { Scratch } from '../src/table/scratch.js';
import { Shard } from '../src/table/shard.js';
import { Dictionary } from '../src/table/structures.js';
import { ValueCodec } from '../src/table/value-codec.js';
import { Checksum } from '../src/platform/checksum.js';
import { LogReader, type LogSummary } from '../src/wal/log-reader.js';
import { visitRecords } from '../src/wal/records.js';

export interface RecoverTask {
  directory: string;
  files: FileSystemSource;
  storeId: Uint8Array;
  segmentBytes: number;
  control: SharedArrayBuffer;
  shards: SharedArrayBuffer[];
  partition: Partition;
  /** Receives `[bytesRead, bytesTotal, records]` from time to time. */
  progress?: MessagePort;
}

export type RecoverResult = { summary: LogSummary; error?: undefined } | { error: ErrorData };

export default async function recover(task: RecoverTask): Promise<RecoverResult> {
  try {
    const files = await loadFileSystem(task.files);
    const checksum = await Checksum.load();
    const control = new Control(task.control);
    const scratch = new Scratch(control.words[CONTROL_HASH_SEED]);
    const dictionary = new Dictionary(control, 0, undefined);
    const codec = new ValueCodec(scratch, dictionary);
    const shards = task.shards.map((buffer, i) => new Shard(new Region(buffer, control.words), i, scratch, codec, 0));
    const replayer = new Replayer(shards, scratch, dictionary, task.partition);
    const reader = new LogReader(files, checksum, task.directory, Buffer.from(task.storeId), task.segmentBytes);
    let records = 0;
    const summary = reader.read({
      frame: (header, payload, file, offset) => {
        records += header.records;
        visitRecords(payload, header.records, header.firstLsn, file, offset, replayer);
      },
      progress: (bytesRead, bytesTotal) => task.progress?.postMessage([bytesRead, bytesTotal, records]),
    });
    return { summary };
  } catch (error) {
    return { error: toErrorData(error) };
  } finally {
    task.progress?.close();
  }
}
