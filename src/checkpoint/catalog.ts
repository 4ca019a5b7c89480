/**
 * The checkpoints of a folder: finding them, publishing one, removing one.
 *
 * Publishing: the parts are synced; the manifest is written under a temporary name, synced, renamed; the directory is
 * synced. So a manifest that can be seen has all its parts. Removing goes the other way round:
 * the manifest first, then the directory is synced, then the parts; parts without a manifest are
 * what an interrupted checkpoint or removal has left, and are swept away at the next chance.
 */

import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import { readFully, writeFully, type FileSystem } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import { decodeManifest, encodeManifest, manifestName, manifestNumber, partCheckpoint, type Manifest } from './format.js';

/** Far more than 256 parts and 32 structures take. */
const MANIFEST_BYTES_MAX = 1024 * 1024;

/** Numbers of the checkpoints that have a manifest, newest first. System errors pass through. */
export function checkpointNumbers(files: FileSystem, directory: string): number[] {
  const numbers: number[] = [];
  for (const name of files.list(directory)) {
    const number = manifestNumber(name);
    if (number !== undefined) numbers.push(number);
  }
  return numbers.sort((a, b) => b - a);
}

/** @throws FlashVectorError FV_CORRUPT, FV_VERSION, FV_IO */
export function readManifest(files: FileSystem, checksum: Checksum, directory: string, storeId: Buffer, number: number): Manifest {
  const file = path.join(directory, manifestName(number));
  let page: Buffer;
  try {
    const open = files.open(file, 'read');
    try {
      const size = open.size();
      if (size > MANIFEST_BYTES_MAX)
        throw new FlashVectorError('FV_CORRUPT', `${file} has ${size} bytes: that is no manifest`, { file, offset: MANIFEST_BYTES_MAX });
      page = Buffer.alloc(size);
      page = page.subarray(0, readFully(open, page, page.length, 0));
    } finally {
      open.close();
    }
  } catch (error) {
    throw ioError('reading a manifest', file, error);
  }
  return decodeManifest(checksum, page, storeId, number, file);
}

/** Makes a checkpoint, whose parts are on disk, count. @throws FlashVectorError FV_IO */
export function publishManifest(files: FileSystem, checksum: Checksum, directory: string, manifest: Manifest): void {
  const target = path.join(directory, manifestName(manifest.number));
  const temporary = `${target}.tmp`;
  try {
    const open = files.open(temporary, 'create');
    try {
      writeFully(open, encodeManifest(checksum, manifest), 0);
      open.sync();
    } finally {
      open.close();
    }
    // The names of the parts, before the name that stands for them.
    files.syncDirectory(directory);
    files.rename(temporary, target);
    files.syncDirectory(directory);
  } catch (error) {
    throw ioError('publishing a checkpoint', target, error);
  }
}

function attempt<Result>(action: string, file: string, run: () => Result): Result {
  try {
    return run();
  } catch (error) {
    throw ioError(action, file, error);
  }
}

/**
 * Removes every checkpoint whose number `keeps` refuses: its manifest, durably, then its parts.
 * @throws FlashVectorError FV_IO
 */
export function removeCheckpoints(files: FileSystem, directory: string, keeps: (number: number) => boolean): void {
  const names = attempt('listing the folder', directory, () => files.list(directory));
  let removed = false;
  for (const name of names) {
    const number = manifestNumber(name);
    if (number === undefined || keeps(number)) continue;
    const file = path.join(directory, name);
    attempt('removing a manifest', file, () => files.remove(file));
    removed = true;
  }
  if (removed) attempt('removing a manifest', directory, () => files.syncDirectory(directory));
  removeDebris(files, directory);
}

/** Removes parts without a manifest, and manifests that never got their name. @throws FlashVectorError FV_IO */
export function removeDebris(files: FileSystem, directory: string): void {
  const names = attempt('listing the folder', directory, () => files.list(directory));
  const published = new Set(names.map((name) => manifestNumber(name)));
  for (const name of names) {
    const isPart = partCheckpoint(name) !== undefined && !published.has(partCheckpoint(name));
    if (!isPart && (!name.endsWith('.tmp') || manifestNumber(name.slice(0, -4)) === undefined)) continue;
    const file = path.join(directory, name);
    attempt('removing what an interrupted checkpoint left', file, () => files.remove(file));
  }
}
