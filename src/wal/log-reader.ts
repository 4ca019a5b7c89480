/**
 * Reads a log from the segment that holds a given LSN to its end, and tells a torn tail from damage.
 * Segments before that one are what a checkpoint made superfluous; they are not looked at.
 *
 * A frame that fails its check ends the log. What it means depends on what lies behind it:
 *
 * - In a segment that is not the last: the next segment's header says which LSN it starts with, and all
 *   before that was durable when it was made. The good frames must reach that LSN exactly; what lies
 *   behind them was cut off by an earlier recovery.
 * - In the last segment: if any later frame that verifies says that the missing LSN had been durable,
 *   that is damage: FV_CORRUPT, and nothing is changed. Otherwise no sync covered the frame, nobody
 *   was told that it was safe, and it is cut off as a torn tail.
 *
 * The very last group before an unclean stop has nothing behind it that could speak for it: damage
 * to it looks like a torn tail. A clean close writes a frame that speaks for all before it.
 */

import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import { RECORD_HEADER_BYTES } from '../base/record.js';
import { readFully, type FileSystem, type OpenFile } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import {
  FRAME_CLEAN,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC_BYTES,
  SEGMENT_HEADER_BYTES,
  decodeFrameHeader,
  FORMAT_VERSION,
  decodeSegmentHeader,
  segmentName,
  segmentNumber,
  segmentSeed,
  type FrameHeader,
  type SegmentHeader,
} from './format.js';
import type { LogEnd } from './segment-writer.js';

export interface LogVisitor {
  frame(header: FrameHeader, payload: Buffer, file: string, payloadOffset: number): void;
  progress(bytesRead: number, bytesTotal: number): void;
}

export interface LogSummary {
  end: LogEnd;
  /** The log ends with a clean close. */
  clean: boolean;
  frames: number;
  records: number;
  /** Bytes of frames, of those that a replay needs. */
  bytes: number;
  /** Where a torn tail was cut off, if one was. */
  tornTail?: { file: string; offset: number };
}

interface SegmentFile {
  file: string;
  number: number;
  header: SegmentHeader;
  size: number;
}

/** A segment while it is read: one at a time, however long the log. */
interface Segment extends SegmentFile {
  open: OpenFile;
}

/** Reading ahead, in bytes; a longer frame makes its own window. */
const WINDOW_BYTES = 4 * 1024 * 1024;
const ZEROS = Buffer.alloc(WINDOW_BYTES);
const PROGRESS_BYTES = 16 * 1024 * 1024;
/** Bytes of supposed frames behind the end of the log whose checksums are looked at: some seconds of work. */
const TAIL_BYTES_MAX = 8 * 1024 * 1024 * 1024;

/** A part of a file in memory. */
class Window {
  #buffer = Buffer.alloc(WINDOW_BYTES);
  #start = 0;
  #length = 0;

  constructor(readonly segment: Segment) {}

  /** Bytes at `offset`, `length` of them or fewer at the end of the file. Valid until the next call. */
  at(offset: number, length: number): Buffer {
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length);
      this.#start = offset;
      const wanted = Math.min(this.#buffer.length, Math.max(0, this.segment.size - offset));
      try {
        this.#length = readFully(this.segment.open, this.#buffer, wanted, offset);
      } catch (error) {
        throw ioError('reading the log', this.segment.file, error, offset);
      }
    }
    const from = offset - this.#start;
    return this.#buffer.subarray(from, Math.min(from + length, this.#length));
  }
}

export class LogReader {
  #bytesRead = 0;
  #bytesTotal = 0;
  #bytesReported = 0;
  #startLsn = 1;
  #endLsn = Infinity;

  constructor(
    readonly files: FileSystem,
    readonly checksum: Checksum,
    readonly directory: string,
    readonly storeId: Buffer,
    readonly segmentBytes: number,
  ) {}

  /**
   * Reads the log from LSN `startLsn` on; frames that end before it are checked and not visited. Stops once a frame
   * has reached `endLsn`: what comes behind may be being written.
   * @throws FlashVectorError FV_CORRUPT with file, offset and LSNs; FV_VERSION; FV_IO
   */
  read(visitor: LogVisitor, startLsn = 1, endLsn = Infinity): LogSummary {
    this.#startLsn = startLsn;
    this.#endLsn = endLsn;
    const segments = this.#findSegments();
    const summary: LogSummary = {
      end: { segment: 1, offset: 0, segmentBytes: this.segmentBytes, lastLsn: segments.length === 0 ? 0 : segments[0].header.firstLsn - 1 },
      clean: true,
      frames: 0,
      records: 0,
      bytes: 0,
    };
    for (let i = 0; i < segments.length && summary.end.lastLsn < endLsn; i++) {
      const open = this.#open(segments[i].file);
      try {
        this.#readSegment({ ...segments[i], open }, segments[i + 1], summary, visitor);
      } finally {
        open.close();
      }
    }
    visitor.progress(this.#bytesTotal, this.#bytesTotal);
    return summary;
  }

  #findSegments(): SegmentFile[] {
    const segments: SegmentFile[] = [];
    let numbers: number[];
    try {
      numbers = this.files.list(this.directory).flatMap((name) => segmentNumber(name) ?? []);
    } catch (error) {
      throw ioError('listing the folder', this.directory, error);
    }
    // Backwards, until the segment that holds the first record to be read.
    for (let i = numbers.length - 1; i >= 0; i--) {
      const segment = this.#lookAt(numbers[i], segments.at(0));
      segments.unshift(segment);
      if (segment.header.firstLsn <= this.#startLsn) break;
    }
    const first = segments.at(0);
    if (first === undefined ? this.#startLsn > 1 : first.header.firstLsn > this.#startLsn) {
      throw this.#missing(first === undefined ? 1 : first.number - 1, first?.file);
    }
    this.#bytesTotal = segments.reduce((sum, segment) => sum + segment.size, 0);
    return segments;
  }

  #open(file: string): OpenFile {
    try {
      return this.files.open(file, 'read');
    } catch (error) {
      throw ioError('opening a log segment', file, error);
    }
  }

  #missing(number: number, after: string | undefined): FlashVectorError {
    const file = path.join(this.directory, segmentName(Math.max(1, number)));
    const what = after === undefined ? 'there is no log at all' : `the next one there is ${path.basename(after)}`;
    return new FlashVectorError('FV_CORRUPT', `log segment ${file} is missing; ${what}`, { file, offset: 0, lsn: this.#startLsn });
  }

  /** Reads a segment's header and closes it again. */
  #lookAt(number: number, after: SegmentFile | undefined): SegmentFile {
    const file = path.join(this.directory, segmentName(number));
    if (after !== undefined && number !== after.number - 1) throw this.#missing(after.number - 1, after.file);
    const open = this.#open(file);
    try {
      const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
      const length = readFully(open, page, SEGMENT_HEADER_BYTES, 0);
      const header = decodeSegmentHeader(this.checksum, page.subarray(0, length), file);
      const size = open.size();
      if (!header.storeId.equals(this.storeId)) {
        throw new FlashVectorError('FV_CORRUPT', `${file} belongs to another store`, { file, offset: 24 });
      }
      if (header.number !== number) {
        throw new FlashVectorError('FV_CORRUPT', `${file} is in truth segment ${header.number}`, { file, offset: 40 });
      }
      if (size !== header.bytes) {
        throw new FlashVectorError('FV_CORRUPT', `${file} has ${size} bytes instead of ${header.bytes}`, {
          file,
          offset: Math.min(size, header.bytes),
        });
      }
      return { file, number, header, size };
    } catch (error) {
      throw error instanceof FlashVectorError ? error : ioError('reading the log', file, error, 0);
    } finally {
      open.close();
    }
  }

  #readSegment(segment: Segment, next: SegmentFile | undefined, summary: LogSummary, visitor: LogVisitor): void {
    const expectedFirst = summary.end.lastLsn + 1;
    if (segment.header.firstLsn !== expectedFirst) {
      throw new FlashVectorError(
        'FV_CORRUPT',
        `${segment.file} starts with LSN ${segment.header.firstLsn}, but the log before it ends with ${summary.end.lastLsn}`,
        {
          file: segment.file,
          offset: 48,
          lsn: expectedFirst,
          lsnLast: segment.header.firstLsn - 1,
        },
      );
    }
    const seed = segmentSeed(this.checksum, this.storeId, segment.number);
    const window = new Window(segment);
    let offset = SEGMENT_HEADER_BYTES;
    let clean = false;
    for (;;) {
      const header = this.#frameAt(window, offset, seed);
      if (header === undefined) break;
      const file = segment.file;
      const first = summary.end.lastLsn + 1;
      if (header.firstLsn !== first || header.lastLsn !== header.firstLsn + header.records - 1) {
        throw new FlashVectorError(
          'FV_CORRUPT',
          `${file}: the frame at ${offset} holds LSN ${header.firstLsn} to ${header.lastLsn} where ${first} was due`,
          { file, offset, lsn: first },
        );
      }
      const payload = window.at(offset, FRAME_HEADER_BYTES + header.payloadBytes).subarray(FRAME_HEADER_BYTES);
      if (header.lastLsn >= this.#startLsn) {
        summary.bytes += FRAME_HEADER_BYTES + payload.length;
        visitor.frame(header, payload, file, offset + FRAME_HEADER_BYTES);
      }
      clean = (header.flags & FRAME_CLEAN) !== 0;
      summary.frames++;
      summary.records += header.records;
      summary.end.lastLsn = header.lastLsn;
      offset += FRAME_HEADER_BYTES + header.payloadBytes;
      this.#report(offset, visitor);
      if (summary.end.lastLsn >= this.#endLsn) return;
    }
    this.#bytesRead += segment.size;
    if (next !== undefined) {
      this.#checkReach(segment, offset, summary.end.lastLsn, next);
      return;
    }
    const empty = isEmptyFrom(window, offset);
    const followed = !empty && this.#checkTail(segment, window, offset, seed, summary.end.lastLsn);
    // Behind a closing frame may lie what a recycled segment held before; that never verifies. Where a frame of this
    // segment verifies there, the log went on behind the closing frame and was torn.
    summary.clean = clean && !followed;
    // Records of this build do not go into a segment that says it is older.
    if (clean && empty && segment.header.version === FORMAT_VERSION) {
      summary.end = { segment: segment.number, offset, segmentBytes: segment.size, lastLsn: summary.end.lastLsn };
      return;
    }
    // A new segment even behind a closing frame: what lies there, torn or of an earlier life, is never written among.
    summary.end = { segment: segment.number + 1, offset: 0, segmentBytes: this.segmentBytes, lastLsn: summary.end.lastLsn };
    if (!summary.clean && !empty) summary.tornTail = { file: segment.file, offset };
  }

  #report(offset: number, visitor: LogVisitor): void {
    if (this.#bytesRead + offset - this.#bytesReported < PROGRESS_BYTES) return;
    this.#bytesReported = this.#bytesRead + offset;
    visitor.progress(this.#bytesReported, this.#bytesTotal);
  }

  /** The header of the frame at `offset`, if there is one that verifies. */
  #frameAt(window: Window, offset: number, seed: bigint): FrameHeader | undefined {
    const head = window.at(offset, FRAME_HEADER_BYTES);
    if (head.length < FRAME_HEADER_BYTES) return undefined;
    const header = decodeFrameHeader(head, 0);
    if (header === undefined || offset + FRAME_HEADER_BYTES + header.payloadBytes > window.segment.size) return undefined;
    const frame = window.at(offset, FRAME_HEADER_BYTES + header.payloadBytes);
    if (frame.readBigUInt64LE(0) !== this.checksum.of(frame.subarray(8), seed)) return undefined;
    return header;
  }

  /** A segment that is not the last must reach up to the next one's first LSN. */
  #checkReach(segment: Segment, offset: number, lastLsn: number, next: SegmentFile): void {
    if (next.header.firstLsn === lastLsn + 1) return;
    throw damage(segment.file, offset, lastLsn + 1, next.header.firstLsn - 1);
  }

  /**
   * Looks behind the end of the last segment for a frame that says the missing one had been durable.
   * @returns whether any frame of this segment verifies there
   */
  #checkTail(segment: Segment, window: Window, end: number, seed: bigint, lastLsn: number): boolean {
    let found = false;
    // A value may be full of what looks like frames, each as long as the rest of the segment: what is cheap to tell comes
    // first, and there is an end to checking sums. Past it the tail counts as followed: a new segment, nothing lost.
    let budget = TAIL_BYTES_MAX;
    const step = WINDOW_BYTES - FRAME_HEADER_BYTES;
    for (let start = end + 8; start + FRAME_HEADER_BYTES <= segment.size; start += step) {
      for (const offset of magicsIn(window.at(start, WINDOW_BYTES), start)) {
        const candidate = decodeFrameHeader(window.at(offset, FRAME_HEADER_BYTES), 0);
        if (candidate === undefined || !mayFollow(candidate, lastLsn)) continue;
        budget -= candidate.payloadBytes;
        if (budget < 0) return true;
        const header = this.#frameAt(window, offset, seed);
        if (header === undefined) continue;
        found = true;
        if (header.durableLsn > lastLsn) throw damage(segment.file, end, lastLsn + 1, header.durableLsn);
      }
    }
    return found;
  }
}

/** Whether a frame with this header can come behind the record `lastLsn`, as far as the header itself can tell. */
export function mayFollow(header: FrameHeader, lastLsn: number): boolean {
  return (
    header.firstLsn > lastLsn &&
    header.lastLsn === header.firstLsn + header.records - 1 &&
    header.durableLsn < header.firstLsn &&
    header.payloadBytes >= header.records * RECORD_HEADER_BYTES &&
    header.term === 0
  );
}

/** Whether nothing was ever written from `start` on. */
function isEmptyFrom(window: Window, start: number): boolean {
  for (let at = start; at < window.segment.size; at += WINDOW_BYTES) {
    const bytes = window.at(at, WINDOW_BYTES);
    if (!bytes.equals(ZEROS.subarray(0, bytes.length))) return false;
  }
  return true;
}

/** Offsets in the file at which a frame may start, in a part of it that starts at `start`. */
function magicsIn(bytes: Buffer, start: number): number[] {
  const found: number[] = [];
  for (let at = bytes.indexOf(FRAME_MAGIC_BYTES, 8); at !== -1; at = bytes.indexOf(FRAME_MAGIC_BYTES, at + 1)) {
    if (((start + at) & 7) === 0) found.push(start + at - 8);
  }
  return found;
}

function damage(file: string, offset: number, lsn: number, lsnLast: number): FlashVectorError {
  return new FlashVectorError(
    'FV_CORRUPT',
    `${file} is damaged at offset ${offset}: LSN ${lsn} to ${lsnLast} had been durable and cannot be read; nothing was changed`,
    {
      file,
      offset,
      lsn,
      lsnLast,
    },
  );
}
