/**
 * Reading the log while it is written: what the change feed is made of.
 *
 * Whoever reads keeps a position, and takes frames from there on as long as they hold nothing past the LSN up to which the log is durable. Nothing is
 * locked and nobody is told: a segment may be given up between two reads, and even under one. Then its name is gone, or what lies
 * there fails its check, because a frame's checksum is seeded with its segment's number; and the log that is left begins behind the position.
 */

import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import type { Checksum } from '../platform/checksum.js';
import { readFully, type FileSystem, type OpenFile } from '../platform/files.js';
import {
  FRAME_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
  decodeFrameHeader,
  decodeSegmentHeader,
  segmentName,
  segmentNumber,
  segmentSeed,
} from './format.js';

/** Where a reader of the log stands. */
export interface TailPosition {
  /** The next record to be read. */
  lsn: number;
  /** The segment that it is in, and where the frame that holds it begins; segment 0 when that has to be found out. */
  segment: number;
  offset: number;
}

/** Frames' payloads, one behind the other. */
export interface TailRead {
  payloads: { bytes: Uint8Array; records: number; firstLsn: number; file: string; offset: number }[];
  position: TailPosition;
}

/** The next frame is not durable yet as a whole. */
const LATER = -1;

export class LogTail {
  constructor(
    readonly files: FileSystem,
    readonly checksum: Checksum,
    readonly directory: string,
    readonly storeId: Buffer,
  ) {}

  /**
   * Reads frames from a position on, at least one if there is one.
   * @param durableLsn nothing past it is read
   * @param bytesMax stops behind the frame that takes it past so many bytes
   * @throws FlashVectorError FV_ABORTED with `lsn`, the oldest there is, when the log does not reach back so far; FV_CORRUPT; FV_IO
   */
  read(from: TailPosition, durableLsn: number, bytesMax: number): TailRead {
    const result: TailRead = { payloads: [], position: { ...from } };
    const { position } = result;
    let bytes = 0;
    while (bytes < bytesMax && position.lsn <= durableLsn) {
      if (position.segment === 0) this.#find(position);
      const before = position.segment;
      const found = this.#readSegment(result, durableLsn, bytesMax - bytes);
      if (found === LATER) break;
      if (found === undefined) {
        // Given up meanwhile: what is left of the log says whether the record is still there.
        position.segment = 0;
        continue;
      }
      bytes += found;
      if (found > 0) continue;
      // Its frames end here: the record is in a later segment, or nowhere.
      this.#find(position);
      if (position.segment === before) {
        const file = path.join(this.directory, segmentName(before));
        throw new FlashVectorError('FV_CORRUPT', `${file} does not hold LSN ${position.lsn}, which was durable`, {
          file,
          offset: position.offset,
          lsn: position.lsn,
        });
      }
    }
    return result;
  }

  /** Finds the segment of the next record: the last one that begins at or before it. */
  #find(position: TailPosition): void {
    for (let attempt = 0; ; attempt++) {
      const numbers = this.#list();
      let oldest = 0;
      for (let i = numbers.length - 1; i >= 0; i--) {
        const firstLsn = this.#firstLsn(numbers[i]);
        if (firstLsn === undefined) break;
        oldest = firstLsn;
        if (firstLsn > position.lsn) continue;
        position.segment = numbers[i];
        position.offset = SEGMENT_HEADER_BYTES;
        return;
      }
      // A segment that was given up while it was looked for: once more, with what is left.
      if (attempt > 0 && oldest !== 0) throw tooOld(position.lsn, oldest);
      if (attempt > 10) throw new FlashVectorError('FV_IO', `there is no log in ${this.directory}`, { file: this.directory });
    }
  }

  #list(): number[] {
    try {
      return this.files.list(this.directory).flatMap((name) => segmentNumber(name) ?? []);
    } catch (error) {
      throw ioError('listing the folder', this.directory, error);
    }
  }

  /** `undefined` when the segment is not there any more. */
  #firstLsn(number: number): number | undefined {
    const file = path.join(this.directory, segmentName(number));
    const open = this.#open(file);
    if (open === undefined) return undefined;
    try {
      const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
      const header = decodeSegmentHeader(this.checksum, page.subarray(0, readFully(open, page, page.length, 0)), file);
      return header.number === number ? header.firstLsn : undefined;
    } catch (error) {
      if (error instanceof FlashVectorError && error.code === 'FV_CORRUPT' && !this.files.exists(file)) return undefined;
      throw error instanceof FlashVectorError ? error : ioError('reading a segment header', file, error, 0);
    } finally {
      open.close();
    }
  }

  #open(file: string): OpenFile | undefined {
    try {
      return this.files.open(file, 'read');
    } catch (error) {
      if (!this.files.exists(file)) return undefined;
      throw ioError('opening a log segment', file, error);
    }
  }

  /** @returns bytes read, 0 when no further frame of the segment verifies, LATER, or `undefined` when the segment is gone */
  #readSegment(result: TailRead, durableLsn: number, bytesMax: number): number | undefined {
    const { position } = result;
    const file = path.join(this.directory, segmentName(position.segment));
    const open = this.#open(file);
    if (open === undefined) return undefined;
    const seed = segmentSeed(this.checksum, this.storeId, position.segment);
    let bytes = 0;
    try {
      const size = open.size();
      const head = Buffer.alloc(FRAME_HEADER_BYTES);
      while (bytes < bytesMax && position.lsn <= durableLsn && position.offset + FRAME_HEADER_BYTES <= size) {
        readFully(open, head, FRAME_HEADER_BYTES, position.offset);
        const header = decodeFrameHeader(head, 0);
        if (header === undefined || position.offset + FRAME_HEADER_BYTES + header.payloadBytes > size) break;
        const frame = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + header.payloadBytes);
        readFully(open, frame, frame.length, position.offset);
        if (frame.readBigUInt64LE(0) !== this.checksum.of(frame.subarray(8), seed)) break;
        // Its records are not all durable yet.
        if (header.lastLsn > durableLsn) return bytes === 0 ? LATER : bytes;
        if (header.records > 0 && header.lastLsn >= position.lsn) {
          result.payloads.push({
            bytes: frame.subarray(FRAME_HEADER_BYTES),
            records: header.records,
            firstLsn: header.firstLsn,
            file,
            offset: position.offset + FRAME_HEADER_BYTES,
          });
          position.lsn = header.lastLsn + 1;
        }
        position.offset += frame.length;
        bytes += frame.length;
      }
      return bytes;
    } catch (error) {
      if (!this.files.exists(file)) return undefined;
      throw error instanceof FlashVectorError ? error : ioError('reading the log', file, error, position.offset);
    } finally {
      open.close();
    }
  }
}

function tooOld(wanted: number, oldest: number): FlashVectorError {
  return new FlashVectorError(
    'FV_ABORTED',
    `the log does not reach back to LSN ${wanted} any more; the oldest change available is LSN ${oldest}`,
    {
      lsn: oldest,
    },
  );
}
