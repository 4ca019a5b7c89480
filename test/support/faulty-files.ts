/**
 * A file system that fails on demand: for the log thread of a store under test, or for code under
 * test in this thread. Counts operations on log segments only, so that opening stays out of the count.
 */

import { createFileSystem as createNodeFileSystem } from '../../src/platform/node-files.js';
import type { FileSystem, FileSystemSource, OpenFile } from '../../src/platform/files.js';
import { randomFrom } from './random.js';

export interface Faults {
  /** Fail the n-th write to a log segment, counting from 1, and every one after it. */
  failWrite?: number;
  /** Fail the n-th sync of a log segment, and every one after it. */
  failSync?: number;
  /** Fail the n-th creation of a segment, and every one after it. */
  failCreate?: number;
  failRename?: number;
  /** Fail the n-th read of a log segment or of a checkpoint's part, and every one after it. */
  failRead?: number;
  /** The same for the parts of checkpoints, and for the renaming of a manifest. */
  failPartWrite?: number;
  failPartSync?: number;
  failManifestRename?: number;
  failManifestRemove?: number;
  /** Path of a file that the first failure makes: while it is there nothing fails any more. */
  once?: string;
  failDirectorySync?: number;
  /** The system's code: EIO, ENOSPC, EACCES, …; `THREAD`: the thread ends instead, as one does that runs out of memory. */
  code?: string;
  /** Writes take only a random part of what they are given. */
  shortWrites?: number;
  /** Syncs and writes take at least so long, in ms. */
  delayMs?: number;
}

function failure(code: string, syscall: string): Error {
  return Object.assign(new Error(`${code}: injected, ${syscall}`), { code, syscall });
}

const napping = new Int32Array(new SharedArrayBuffer(4));

export function createFileSystem(config: unknown): FileSystem {
  const faults = config as Faults;
  const real = createNodeFileSystem();
  const code = faults.code ?? 'EIO';
  const random = randomFrom(faults.shortWrites ?? 1);
  const counts = {
    read: 0,
    write: 0,
    sync: 0,
    create: 0,
    rename: 0,
    directorySync: 0,
    partWrite: 0,
    partSync: 0,
    manifestRename: 0,
    manifestRemove: 0,
  };
  const step = (name: keyof typeof counts, limit: number | undefined): void => {
    counts[name]++;
    if (limit === undefined || counts[name] < limit) return;
    if (faults.once !== undefined) {
      if (real.exists(faults.once)) return;
      real.open(faults.once, 'create').close();
    }
    if (code === 'THREAD') process.exit(7);
    throw failure(code, name);
  };

  const wrapPart = (file: OpenFile): OpenFile => ({
    ...wrap(file),
    write: (from, offset, length, position) => {
      step('partWrite', faults.failPartWrite);
      return file.write(from, offset, length, position);
    },
    sync: () => {
      step('partSync', faults.failPartSync);
      file.sync();
    },
  });

  const wrap = (file: OpenFile): OpenFile => ({
    read: (into, offset, length, position) => {
      step('read', faults.failRead);
      return file.read(into, offset, length, position);
    },
    write: (from, offset, length, position) => {
      step('write', faults.failWrite);
      if (faults.delayMs !== undefined) Atomics.wait(napping, 0, 0, faults.delayMs);
      const part = faults.shortWrites === undefined ? length : 1 + Math.floor(random() * length);
      return file.write(from, offset, part, position);
    },
    sync: () => {
      step('sync', faults.failSync);
      if (faults.delayMs !== undefined) Atomics.wait(napping, 0, 0, faults.delayMs);
      file.sync();
    },
    truncate: (bytes) => file.truncate(bytes),
    size: () => file.size(),
    close: () => file.close(),
  });

  return {
    open: (path, mode) => {
      if (mode === 'create' && path.includes('.wal')) step('create', faults.failCreate);
      const file = real.open(path, mode);
      if (path.endsWith('.part')) return wrapPart(file);
      return path.includes('.wal') ? wrap(file) : file;
    },
    list: (directory) => real.list(directory),
    makeDirectory: (path) => real.makeDirectory(path),
    rename: (from, to) => {
      if (from.includes('.wal')) step('rename', faults.failRename);
      if (from.includes('.checkpoint')) step('manifestRename', faults.failManifestRename);
      real.rename(from, to);
    },
    remove: (path) => {
      if (path.endsWith('.checkpoint')) step('manifestRemove', faults.failManifestRemove);
      real.remove(path);
    },
    syncDirectory: (path) => {
      step('directorySync', faults.failDirectorySync);
      real.syncDirectory(path);
    },
    exists: (path) => real.exists(path),
  };
}

/** Where a store's log thread finds this file system. */
export function faultyFiles(faults: Faults): FileSystemSource {
  return { module: import.meta.url, config: faults };
}
