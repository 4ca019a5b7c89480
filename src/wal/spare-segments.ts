/**
 * Segments that are no longer needed, kept for their blocks: a recycled segment needs no allocation, so
 * every sync of it costs what a sync over preallocated blocks costs.
 *
 * A spare is named after the segment that it was, with the ending `.free`. What it holds never verifies
 * again: the seed of a frame's checksum contains the number of its segment.
 */

import path from 'node:path';
import { ioError } from '../base/errors.js';
import { readFully, type FileSystem } from '../platform/files.js';
import { SEGMENT_HEADER_BYTES, numberIn, segmentName } from './format.js';

const SPARE = /^\d{12}\.free$/;

function spareName(number: number): string {
  return segmentName(number).replace(/\.wal$/, '.free');
}

/** Size of a spare, and which segment it was by its own account. */
function look(files: FileSystem, file: string): { size: number; number: number } {
  const open = files.open(file, 'read');
  try {
    const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
    const length = readFully(open, page, page.length, 0);
    return { size: open.size(), number: length === page.length ? numberIn(page) : 0 };
  } finally {
    open.close();
  }
}

function spareNames(files: FileSystem, directory: string): string[] {
  return files.list(directory).filter((name) => SPARE.test(name));
}

/**
 * Gives a segment up, whose records a checkpoint holds: it becomes a spare, or is removed.
 * @param spareBytesMax what all spares together may take, but for the first: a burst of writing must not keep its disk space for ever
 * @throws FlashVectorError FV_IO
 */
export function retireSegment(files: FileSystem, directory: string, number: number, spareBytesMax: number): void {
  const file = path.join(directory, segmentName(number));
  try {
    const spares = spareNames(files, directory);
    const bytes = spares.reduce((sum, name) => sum + look(files, path.join(directory, name)).size, look(files, file).size);
    if (spares.length === 0 || bytes <= spareBytesMax) files.rename(file, path.join(directory, spareName(number)));
    else files.remove(file);
    files.syncDirectory(directory);
  } catch (error) {
    throw ioError('retiring a log segment', file, error);
  }
}

/**
 * Takes a spare of exactly `bytes` and renames it to `target`. System errors pass through.
 * @param isUsual whether this is the size that segments have as a rule: spares of another one are removed on the way
 * @returns whether there was one
 */
export function takeSpare(files: FileSystem, directory: string, bytes: number, target: string, isUsual: boolean): boolean {
  for (const name of spareNames(files, directory)) {
    const file = path.join(directory, name);
    const { size, number } = look(files, file);
    // A power cut between two renames may leave a file with two names, where the medium does not keep them in order:
    // what says that it is another segment may be in use as that one.
    if (name !== spareName(number)) {
      files.remove(file);
      continue;
    }
    if (size !== bytes) {
      if (isUsual) files.remove(file);
      continue;
    }
    files.rename(file, target);
    return true;
  }
  return false;
}
