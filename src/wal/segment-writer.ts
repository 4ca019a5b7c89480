/**
 * Writes frames to segments. Used by the log thread only.
 *
 * A segment is born, from a spare one or anew, under a temporary name: header written, file set to its full size, first part
 * filled with zeros, synced, renamed, directory synced. So a segment that can be seen is whole, and
 * all LSNs below its header's first one are durable (the segment before is synced first).
 *
 * Blocks are allocated ahead, by writing zeros, while frames are small: `fdatasync` over allocated blocks took
 * 80-88 µs where one that had to allocate took 139-167 µs. Large frames pay for their own blocks.
 *
 * Invariant: after an error the writer is never used again; `group-commit.ts` sees to it.
 */

import path from 'node:path';
import { assert, ioError } from '../base/errors.js';
import { writeFully, type FileSystem, type OpenFile } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import {
  FRAME_CLEAN,
  FRAME_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
  encodeFrameHeader,
  encodeSegmentHeader,
  segmentName,
  segmentSeed,
} from './format.js';
import { takeSpare } from './spare-segments.js';

/** Blocks allocated at a time, and at birth. */
const ALLOCATE_BYTES = 1024 * 1024;
/** Frames up to this size are copied behind their header and written with it. */
const SINGLE_WRITE_BYTES_MAX = 64 * 1024;
/** Frames from this size on allocate their own blocks. */
const LARGE_FRAME_BYTES = 256 * 1024;

const ZEROS = Buffer.alloc(ALLOCATE_BYTES);

/** Where a log goes on: behind a clean end, or in a segment that does not exist yet. */
export interface LogEnd {
  segment: number;
  /** Offset behind the last frame; 0 when the segment is to be made. */
  offset: number;
  /** Size of the segment's file. */
  segmentBytes: number;
  lastLsn: number;
}

export interface SegmentWriterSettings {
  directory: string;
  storeId: Buffer;
  segmentBytes: number;
}

export class SegmentWriter {
  readonly #single = Buffer.alloc(FRAME_HEADER_BYTES + SINGLE_WRITE_BYTES_MAX);
  #file: OpenFile | undefined;
  #path = '';
  #number: number;
  #seed = 0n;
  #offset = 0;
  #size = 0;
  /** Up to here the file's blocks are allocated. */
  #allocated = 0;
  #segmentsMade = 0;

  constructor(
    readonly files: FileSystem,
    readonly checksum: Checksum,
    readonly settings: SegmentWriterSettings,
    end: LogEnd,
  ) {
    this.#number = end.segment;
    if (end.offset === 0) {
      // What recovery kept of the segment before may still be in the system's cache only, and the
      // new segment's header will say that it is durable.
      if (end.segment > 1) this.#syncExisting(end.segment - 1);
      this.#make(end.segment, end.lastLsn + 1, settings.segmentBytes);
      return;
    }
    this.#path = path.join(settings.directory, segmentName(end.segment));
    this.#seed = segmentSeed(checksum, settings.storeId, end.segment);
    this.#offset = end.offset;
    this.#size = end.segmentBytes;
    this.#allocated = end.offset;
    this.#attempt('opening a log segment', () => {
      this.#file = files.open(this.#path, 'update');
    });
  }

  #syncExisting(number: number): void {
    this.#path = path.join(this.settings.directory, segmentName(number));
    this.#attempt('syncing the log', () => {
      const file = this.files.open(this.#path, 'update');
      try {
        file.sync();
      } finally {
        file.close();
      }
    });
  }

  /** Segments made since the start. */
  get segmentsMade(): number {
    return this.#segmentsMade;
  }

  /**
   * Writes one frame; not durable until `sync`. A frame that does not fit starts a new segment.
   * @param payload records, one behind the other; borrowed until the call returns
   * @returns bytes written
   * @throws FlashVectorError FV_IO with file and offset
   */
  writeFrame(payload: Uint8Array, records: number, firstLsn: number, lastLsn: number, durableLsn: number, flags = 0): number {
    const bytes = FRAME_HEADER_BYTES + payload.length;
    let durable = durableLsn;
    if (this.#offset + bytes > this.#size) {
      this.#rotate(firstLsn, bytes);
      durable = firstLsn - 1;
    }
    const header = this.#single;
    encodeFrameHeader(header, { flags, payloadBytes: payload.length, records, firstLsn, lastLsn, durableLsn: durable, term: 0 });
    if (bytes < LARGE_FRAME_BYTES) this.#allocate(this.#offset + bytes);
    const file = this.#openFile();
    if (payload.length <= SINGLE_WRITE_BYTES_MAX) {
      header.set(payload, FRAME_HEADER_BYTES);
      const frame = header.subarray(0, bytes);
      header.writeBigUInt64LE(this.checksum.of(frame.subarray(8), this.#seed), 0);
      this.#attempt('writing the log', () => writeFully(file, frame, this.#offset));
    } else {
      const head = header.subarray(0, FRAME_HEADER_BYTES);
      header.writeBigUInt64LE(this.checksum.ofParts([head.subarray(8), payload], this.#seed), 0);
      this.#attempt('writing the log', () => {
        writeFully(file, head, this.#offset);
        writeFully(file, payload, this.#offset + FRAME_HEADER_BYTES);
      });
    }
    this.#offset += bytes;
    if (this.#allocated < this.#offset) this.#allocated = this.#offset;
    return bytes;
  }

  /** Makes every frame written so far durable. @throws FlashVectorError FV_IO */
  sync(): void {
    const file = this.#openFile();
    this.#attempt('syncing the log', () => file.sync());
  }

  /** Begins a new segment, unless nothing is in this one. @throws FlashVectorError FV_IO */
  rotate(firstLsn: number): void {
    if (this.#offset > SEGMENT_HEADER_BYTES) this.#rotate(firstLsn, 0);
  }

  /** Writes the frame that says: all before is durable, and the store was closed in order. */
  writeCleanEnd(lastLsn: number): void {
    this.writeFrame(new Uint8Array(0), 0, lastLsn + 1, lastLsn, lastLsn, FRAME_CLEAN);
    this.sync();
  }

  close(): void {
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined) this.#attempt('closing a log segment', () => file.close());
  }

  /** Lets go of the file after a failure. */
  abandon(): void {
    try {
      this.#file?.close();
    } catch {
      // The failure that led here is the one to be told.
    }
    this.#file = undefined;
  }

  #openFile(): OpenFile {
    assert(this.#file !== undefined, 'the log writer is open');
    return this.#file;
  }

  #attempt(action: string, run: () => void): void {
    try {
      run();
    } catch (error) {
      throw ioError(action, this.#path, error, this.#offset);
    }
  }

  #allocate(end: number): void {
    if (end <= this.#allocated) return;
    const file = this.#openFile();
    const until = Math.min(this.#size, Math.max(end, this.#allocated + ALLOCATE_BYTES));
    this.#attempt('allocating log space', () => {
      for (let at = this.#allocated; at < until; at += ZEROS.length) {
        writeFully(file, ZEROS.subarray(0, Math.min(ZEROS.length, until - at)), at);
      }
    });
    this.#allocated = until;
  }

  #rotate(firstLsn: number, frameBytes: number): void {
    this.sync();
    this.close();
    this.#make(this.#number + 1, firstLsn, Math.max(this.settings.segmentBytes, SEGMENT_HEADER_BYTES + frameBytes));
  }

  #make(number: number, firstLsn: number, bytes: number): void {
    const { directory, storeId } = this.settings;
    const target = path.join(directory, segmentName(number));
    const temporary = `${target}.tmp`;
    this.#path = temporary;
    this.#offset = 0;
    let recycled = false;
    this.#attempt('making a log segment', () => {
      recycled = takeSpare(this.files, directory, bytes, temporary, bytes === this.settings.segmentBytes);
      const file = this.files.open(temporary, recycled ? 'update' : 'create');
      this.#file = file;
      if (!recycled) file.truncate(bytes);
      writeFully(file, encodeSegmentHeader(this.checksum, { storeId, number, firstLsn, bytes }), 0);
      if (!recycled) writeFully(file, ZEROS.subarray(0, Math.min(bytes, ALLOCATE_BYTES) - SEGMENT_HEADER_BYTES), SEGMENT_HEADER_BYTES);
      file.sync();
      this.files.rename(temporary, target);
      this.files.syncDirectory(directory);
    });
    this.#path = target;
    this.#number = number;
    this.#seed = segmentSeed(this.checksum, storeId, number);
    this.#offset = SEGMENT_HEADER_BYTES;
    this.#size = bytes;
    this.#allocated = recycled ? bytes : Math.min(bytes, ALLOCATE_BYTES);
    this.#segmentsMade++;
  }
}
