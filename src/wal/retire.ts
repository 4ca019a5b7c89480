/** Giving up the segments that a checkpoint has made superfluous. */

import path from 'node:path';
import { ioError } from '../base/errors.js';
import { readFully, type FileSystem } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import { SEGMENT_HEADER_BYTES, decodeSegmentHeader, segmentName, segmentNumber } from './format.js';
import { retireSegment } from './spare-segments.js';

function firstLsnOf(files: FileSystem, checksum: Checksum, file: string): number {
  try {
    const open = files.open(file, 'read');
    try {
      const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
      return decodeSegmentHeader(checksum, page.subarray(0, readFully(open, page, page.length, 0)), file).firstLsn;
    } finally {
      open.close();
    }
  } catch (error) {
    throw ioError('reading a segment header', file, error);
  }
}

/**
 * Retires the segments that hold no record from `lsn` on, the oldest first, so that at every moment the rest
 * is one unbroken run. The last segment always stays.
 * @param spareBytesMax see retireSegment
 * @returns how many
 * @throws FlashVectorError FV_IO, FV_CORRUPT
 */
export function retireSegments(files: FileSystem, checksum: Checksum, directory: string, lsn: number, spareBytesMax: number): number {
  let numbers: number[];
  try {
    numbers = files.list(directory).flatMap((name) => segmentNumber(name) ?? []);
  } catch (error) {
    throw ioError('listing the folder', directory, error);
  }
  // Segments above the newest one that starts at or below `lsn` are needed, and so is that one.
  let needed = numbers.length - 1;
  while (needed > 0 && firstLsnOf(files, checksum, path.join(directory, segmentName(numbers[needed]))) > lsn) needed--;
  for (let i = 0; i < needed; i++) retireSegment(files, directory, numbers[i], spareBytesMax);
  return Math.max(0, needed);
}
