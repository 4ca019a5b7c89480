/** The file system of the operating system, through `node:fs`. */

import fs from 'node:fs';
import type { FileSystem, FileSystemSource, OpenFile, OpenMode } from './files.js';

const FLAGS: Record<OpenMode, string> = { read: 'r', update: 'r+', create: 'w+' };

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

export function createFileSystem(): FileSystem {
  return {
    open: (path, mode) => new NodeFile(fs.openSync(path, FLAGS[mode], 0o644)),
    list: (directory) => fs.readdirSync(directory).sort(),
    makeDirectory: (path) => {
      fs.mkdirSync(path, { recursive: true });
    },
    rename: (from, to) => fs.renameSync(from, to),
    remove: (path) => fs.unlinkSync(path),
    syncDirectory: (path) => {
      const fd = fs.openSync(path, 'r');
      try {
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    },
    exists: (path) => fs.existsSync(path),
  };
}

/** How a worker is told to use this implementation. */
export const NODE_FILES: FileSystemSource = { module: import.meta.url, config: undefined };
