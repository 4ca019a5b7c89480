/**
 * Files as the engine sees them: a small synchronous interface that tests replace with one that
 * fails, tears and forgets. Implementations throw the system's errors as they come.
 *
 * Only `platform/` imports `node:fs`.
 */

export interface OpenFile {
  /** Reads up to `length` bytes at `position`. @returns how many; 0 at the end of the file */
  read(into: Uint8Array, offset: number, length: number, position: number): number;
  /** Writes up to `length` bytes at `position`. @returns how many; may be fewer than asked */
  write(from: Uint8Array, offset: number, length: number, position: number): number;
  /** Makes the file's data durable, and of its metadata what is needed to read it back (fdatasync). */
  sync(): void;
  /** Sets the file's size; what is added reads as zeros and may take no space on disk. */
  truncate(bytes: number): void;
  size(): number;
  close(): void;
}

export type OpenMode = 'read' | 'update' | 'create';

export interface FileSystem {
  /** `create` makes a new file or empties the one that is there; `update` reads and writes an existing one. */
  open(path: string, mode: OpenMode): OpenFile;
  /** Names in a directory, sorted. */
  list(directory: string): string[];
  makeDirectory(path: string): void;
  rename(from: string, to: string): void;
  remove(path: string): void;
  /** Makes the names in a directory durable. */
  syncDirectory(path: string): void;
  exists(path: string): boolean;
}

/** Where a worker finds the implementation to use: a module that exports `createFileSystem(config)`. */
export interface FileSystemSource {
  module: string;
  config: unknown;
}

export interface FileSystemModule {
  createFileSystem(config: unknown): FileSystem;
}

/** Writes all of `bytes` at `position`, however often the system takes only part of it. */
export function writeFully(file: OpenFile, bytes: Uint8Array, position: number): void {
  let done = 0;
  while (done < bytes.length) {
    const length = Math.min(bytes.length - done, WRITE_BYTES_MAX);
    const written = file.write(bytes, done, length, position + done);
    if (written <= 0) throw new Error(`a write of ${length} bytes wrote ${written}`);
    done += written;
  }
}

/** Reads `length` bytes at `position` unless the file ends before. @returns how many */
export function readFully(file: OpenFile, into: Uint8Array, length: number, position: number): number {
  let done = 0;
  while (done < length) {
    const read = file.read(into, done, Math.min(length - done, WRITE_BYTES_MAX), position + done);
    if (read <= 0) break;
    done += read;
  }
  return done;
}

/** Node refuses transfers of 2 GiB and more. */
const WRITE_BYTES_MAX = 256 * 1024 * 1024;
