/** The file system with its writes counted: how much of a file was ever written and not synced. For tasks that a test runs in its own thread. */

import type { FileSystem, FileSystemSource } from '../../src/platform/files.js';
import { createFileSystem as createReal } from '../../src/platform/node-files.js';

export const counted = { syncs: 0, unsynced: 0, unsyncedMost: 0 };

export function createFileSystem(): FileSystem {
  const files = createReal();
  const open = files.open.bind(files);
  files.open = (file, mode) => {
    const opened = open(file, mode);
    const write = opened.write.bind(opened);
    const sync = opened.sync.bind(opened);
    opened.write = (buffer, offset, length, position) => {
      counted.unsynced += length;
      counted.unsyncedMost = Math.max(counted.unsyncedMost, counted.unsynced);
      return write(buffer, offset, length, position);
    };
    opened.sync = () => {
      counted.unsynced = 0;
      counted.syncs++;
      sync();
    };
    return opened;
  };
  return files;
}

export function countedFiles(): FileSystemSource {
  return { module: import.meta.url, config: undefined };
}
