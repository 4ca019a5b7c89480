/**
 * Reads one segment whatever state it is in: every frame that verifies, and every stretch between them that does not. For
 * `verify`, `repair` and `inspect`; recovery has rules of its own (log-reader.ts).
 */

import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import { readFully, type FileSystem, type OpenFile } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import {
  FRAME_HEADER_BYTES,
  FRAME_MAGIC_BYTES,
  SEGMENT_HEADER_BYTES,
  decodeFrameHeader,
  decodeSegmentHeader,
  segmentName,
  segmentSeed,
  type FrameHeader,
  type SegmentHeader,
} from './format.js';
import { mayFollow } from './log-reader.js';

/** A stretch of a file that holds something, but nothing that verifies. */
interface BadStretch {
  offset: number;
  bytes: number;
  what: string;
}

export interface SegmentScan {
  file: string;
  number: number;
  size: number;
  header: SegmentHeader | undefined;
  frames: number;
  records: number;
  /** Of frames that verify; 0 when there are none. */
  firstLsn: number;
  lastLsn: number;
  /** Largest durable LSN that a frame tells of. */
  durableLsn: number;
  /** Where the last good frame ends. */
  end: number;
  bad: BadStretch[];
}

const READ_BYTES = 4 * 1024 * 1024;

class Source {
  #buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  #start = 0;
  #length = 0;

  constructor(
    readonly open: OpenFile,
    readonly file: string,
  ) {}

  at(offset: number, length: number): Buffer {
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length);
      this.#start = offset;
      try {
        this.#length = readFully(this.open, this.#buffer, this.#buffer.length, offset);
      } catch (error) {
        throw ioError('reading a log segment', this.file, error, offset);
      }
    }
    const from = offset - this.#start;
    return this.#buffer.subarray(from, Math.min(from + length, this.#length));
  }
}

/** Where the next bytes other than zero are, from `offset` on; `size` when there are none. */
function nextContent(source: Source, offset: number, size: number): number {
  for (let at = offset; at < size;) {
    const bytes = source.at(at, Math.min(READ_BYTES, size - at));
    if (bytes.length === 0) return size;
    for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return at + i;
    at += bytes.length;
  }
  return size;
}

function frameAt(source: Source, checksum: Checksum, seed: bigint, offset: number, size: number): FrameHeader | undefined {
  const head = source.at(offset, FRAME_HEADER_BYTES);
  if (head.length < FRAME_HEADER_BYTES) return undefined;
  const header = decodeFrameHeader(head, 0);
  if (header === undefined || offset + FRAME_HEADER_BYTES + header.payloadBytes > size) return undefined;
  const frame = source.at(offset, FRAME_HEADER_BYTES + header.payloadBytes);
  return frame.readBigUInt64LE(0) === checksum.of(frame.subarray(8), seed) ? header : undefined;
}

/** The next offset behind `offset` at which a frame verifies; `size` when there is none. */
function nextFrame(source: Source, checksum: Checksum, seed: bigint, offset: number, size: number, lastLsn: number): number {
  for (let start = offset + 8; start < size;) {
    const bytes = source.at(start, Math.min(READ_BYTES, size - start));
    for (let at = bytes.indexOf(FRAME_MAGIC_BYTES); at !== -1; at = bytes.indexOf(FRAME_MAGIC_BYTES, at + 1)) {
      const candidate = start + at - 8;
      if (candidate <= offset || (candidate & 7) !== 0) continue;
      const head = source.at(candidate, FRAME_HEADER_BYTES);
      const header = head.length < FRAME_HEADER_BYTES ? undefined : decodeFrameHeader(head, 0);
      // Cheap facts first: a value may be full of what looks like frames.
      const isFrame = header !== undefined && mayFollow(header, lastLsn) && frameAt(source, checksum, seed, candidate, size) !== undefined;
      if (isFrame) return candidate;
      // Looking at the candidate may have moved the window.
      const again = source.at(start, Math.min(READ_BYTES, size - start));
      if (again.length === 0) return size;
    }
    if (bytes.length < 16) return size;
    start += bytes.length - 8;
  }
  return size;
}

/**
 * @param storeId the store's, or `undefined` to believe the segment's own
 * @param onFrame payload valid during the call
 * @throws FlashVectorError FV_IO
 */
export function scanSegment(
  files: FileSystem,
  checksum: Checksum,
  directory: string,
  storeId: Buffer | undefined,
  number: number,
  onFrame: (header: FrameHeader, payload: Buffer, offset: number) => void,
): SegmentScan {
  const file = path.join(directory, segmentName(number));
  let open: OpenFile;
  try {
    open = files.open(file, 'read');
  } catch (error) {
    throw ioError('opening a log segment', file, error);
  }
  try {
    const size = open.size();
    const scan: SegmentScan = {
      file,
      number,
      size,
      header: undefined,
      frames: 0,
      records: 0,
      firstLsn: 0,
      lastLsn: 0,
      durableLsn: 0,
      end: 0,
      bad: [],
    };
    const source = new Source(open, file);
    try {
      scan.header = decodeSegmentHeader(checksum, source.at(0, SEGMENT_HEADER_BYTES), file);
      if (scan.header.number !== number) scan.bad.push({ offset: 40, bytes: 8, what: `it is in truth segment ${scan.header.number}` });
      if (scan.header.bytes !== size)
        scan.bad.push({
          offset: Math.min(size, scan.header.bytes),
          bytes: 0,
          what: `it has ${size} bytes instead of ${scan.header.bytes}`,
        });
      if (storeId !== undefined && !scan.header.storeId.equals(storeId))
        scan.bad.push({ offset: 24, bytes: 16, what: 'it belongs to another store' });
    } catch (error) {
      if (!(error instanceof FlashVectorError)) throw error;
      scan.bad.push({ offset: error.offset ?? 0, bytes: SEGMENT_HEADER_BYTES, what: error.message });
    }
    const id = scan.header?.storeId ?? storeId;
    scan.end = SEGMENT_HEADER_BYTES;
    if (id !== undefined) scanFrames(source, checksum, segmentSeed(checksum, id, scan.header?.number ?? number), scan, onFrame);
    return scan;
  } finally {
    open.close();
  }
}

function scanFrames(
  source: Source,
  checksum: Checksum,
  seed: bigint,
  scan: SegmentScan,
  onFrame: (header: FrameHeader, payload: Buffer, offset: number) => void,
): void {
  let offset = SEGMENT_HEADER_BYTES;
  while (offset < scan.size) {
    const header = frameAt(source, checksum, seed, offset, scan.size);
    if (header === undefined) {
      const content = nextContent(source, offset, scan.size);
      if (content === scan.size) return;
      const next = nextFrame(source, checksum, seed, offset, scan.size, Math.max(scan.lastLsn, (scan.header?.firstLsn ?? 1) - 1));
      scan.bad.push({
        offset,
        bytes: next - offset,
        what: next === scan.size ? 'no frame verifies from here on' : 'no frame verifies here',
      });
      offset = next;
      continue;
    }
    const payload = source.at(offset, FRAME_HEADER_BYTES + header.payloadBytes).subarray(FRAME_HEADER_BYTES);
    onFrame(header, payload, offset);
    scan.frames++;
    scan.records += header.records;
    if (scan.firstLsn === 0 && header.records > 0) scan.firstLsn = header.firstLsn;
    scan.lastLsn = Math.max(scan.lastLsn, header.lastLsn);
    scan.durableLsn = Math.max(scan.durableLsn, header.durableLsn);
    offset += FRAME_HEADER_BYTES + header.payloadBytes;
    scan.end = offset;
  }
}
