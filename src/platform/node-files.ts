/** The file system of the operating system, through `node:fs`. */

import fs from 'node:fs';
import path from 'node:path';
import type { FileSystem, FileSystemSource, OpenFile, OpenMode } from './files.js';

const { O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_NONBLOCK } = fs.constants;
/** Not blocking, so that a pipe in the place of a file cannot hold anybody up; to files it makes no difference. Windows has no such flag. */
const CALM = O_NONBLOCK ?? 0;
const FLAGS: Record<OpenMode, number> = { read: O_RDONLY | CALM, update: O_RDWR | CALM, create: O_RDWR | O_CREAT | O_TRUNC | CALM };

function openFile(file: string, mode: OpenMode): OpenFile {
  const fd = fs.openSync(file, FLAGS[mode], 0o644);
  if (fs.fstatSync(fd).isFile()) return new NodeFile(fd);
  fs.closeSync(fd);
  throw Object.assign(new Error(`EINVAL: not a file, open '${file}'`), { code: 'EINVAL' });
}

class NodeFile implements OpenFile {
  constructor(readonly fd: number) {}

  read(into: Uint8Array, offset: number, length: number, position: number): number {
    return fs.readSync(this.fd, into, offset, length, position);
  }

  write(from: Uint8Array, offset: number, length: number, position: number): number {
    return fs.writeSync(this.fd, from, offset, length, position);
  }

  sync(): void {
    fs.fdatasyncSync(this.fd);
  }

  truncate(bytes: number): void {
    fs.ftruncateSync(this.fd, bytes);
  }

  size(): number {
    return fs.fstatSync(this.fd).size;
  }

  close(): void {
    fs.closeSync(this.fd);
  }
}

/**
 * Makes a directory and those above it. Not by `recursive: true`: Node 20 then never returns where the
 * system answers ENOENT for ever, as /proc does.
 */
function makeDirectory(directory: string): void {
  try {
    fs.mkdirSync(directory);
    return;
  } catch (error) {
    const parent = path.dirname(directory);
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === directory || fs.existsSync(parent)) throw error;
    makeDirectory(parent);
  }
  fs.mkdirSync(directory);
}

export function createFileSystem(): FileSystem {
  return {
    open: openFile,
    list: (directory) => fs.readdirSync(directory).sort(),
    makeDirectory,
    rename: (from, to) => fs.renameSync(from, to),
    remove: (file) => fs.unlinkSync(file),
    syncDirectory: (directory) => {
      const fd = fs.openSync(directory, 'r');
      try {
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    },
    exists: (file) => fs.existsSync(file),
  };
}

/** How a worker is told to use this implementation. */
export const NODE_FILES: FileSystemSource = { module: import.meta.url, config: undefined };
