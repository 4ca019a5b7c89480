/** Pool task of the change feed: reading the log from a position on. */

import { toErrorData, type ErrorData } from '../src/base/errors.js';
import { Checksum } from '../src/platform/checksum.js';
import type { FileSystemSource } from '../src/platform/files.js';
import { loadFileSystem } from '../src/platform/load-files.js';
import { LogTail, type TailPosition, type TailRead } from '../src/wal/log-tail.js';

export interface ChangesTask {
  directory: string;
  files: FileSystemSource;
  storeId: Uint8Array;
  position: TailPosition;
  durableLsn: number;
  bytesMax: number;
}

export type ChangesResult = { read: TailRead; error?: undefined } | { error: ErrorData };

export default async function changes(task: ChangesTask): Promise<ChangesResult> {
  try {
    const tail = new LogTail(await loadFileSystem(task.files), await Checksum.load(), task.directory, Buffer.from(task.storeId));
    return { read: tail.read(task.position, task.durableLsn, task.bytesMax) };
  } catch (error) {
    return { error: toErrorData(error) };
  }
}
