/**
 * The log on disk: segment headers, frame headers, the identity file. `docs/format.md` has the byte
 * diagrams and a worked example; `test/golden` holds both to each other.
 *
 * All integers are little endian. A checksum is xxhash64 and stands first, over all that follows it.
 */

import { FlashVectorError } from '../base/errors.js';
import type { Checksum } from '../platform/checksum.js';
import { readCount as readLsn, sealPage, verifyPage, writeCount as writeLsn, type PageKind } from '../platform/page.js';

/** Version 3: values of type 11, msgpack whose strings are ASCII (docs/format.md has the history). */
export const FORMAT_VERSION = 3;
const FORMAT_OLDEST = 1;
/** The identity file is as it was. */
const IDENTITY_VERSION = 1;

// Segment header: one page, so that no frame ever shares a page with it.
export const SEGMENT_HEADER_BYTES = 4096;
/** "FLSFVWAL" */
const SEGMENT_PAGE: PageKind = { magic: 0x4c41_5756_4653_4c46n, version: FORMAT_VERSION, oldest: FORMAT_OLDEST, what: 'segment header' };
// Frame header.
export const FRAME_HEADER_BYTES = 64;
const FRAME_MAGIC = 0x4d52_4656; // "VFRM"
/** The magic number as it lies on disk, 8 bytes into a frame. */
export const FRAME_MAGIC_BYTES = Buffer.from('VFRM', 'latin1');
/** Everything before this frame is durable and the store was closed in order. */
export const FRAME_CLEAN = 1;
// Identity file.
export const IDENTITY_NAME = 'store.fv';
const IDENTITY_BYTES = 64;
/** "FLASTVID" */
const IDENTITY_PAGE: PageKind = {
  magic: 0x4449_5654_5341_4c46n,
  version: IDENTITY_VERSION,
  oldest: IDENTITY_VERSION,
  what: 'identity file',
};

export interface SegmentHeader {
  /** FORMAT_VERSION of the build that made the segment. */
  version: number;
  storeId: Buffer;
  /** Number of the segment, from 1. */
  number: number;
  /** LSN of the first record that the segment can hold; all before it are durable. */
  firstLsn: number;
  /** Size of the file in bytes; it never changes. */
  bytes: number;
}

export interface FrameHeader {
  flags: number;
  payloadBytes: number;
  records: number;
  firstLsn: number;
  lastLsn: number;
  /** LSN up to which the log was durable when the frame was written. */
  durableLsn: number;
  term: number;
}

export function segmentName(number: number): string {
  return `${String(number).padStart(12, '0')}.wal`;
}

/** Number of the segment with this name, or `undefined` for any other name. */
export function segmentNumber(name: string): number | undefined {
  return /^\d{12}\.wal$/.test(name) ? Number(name.slice(0, 12)) : undefined;
}

/** Seed of a segment's frame checksums: what another segment or store wrote never verifies. */
export function segmentSeed(checksum: Checksum, storeId: Buffer, number: number): bigint {
  const source = Buffer.alloc(24);
  storeId.copy(source, 0);
  source.writeBigUInt64LE(BigInt(number), 16);
  return checksum.of(source, 0n);
}

export function encodeSegmentHeader(checksum: Checksum, header: Omit<SegmentHeader, 'version'>): Buffer {
  const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
  header.storeId.copy(page, 24);
  writeLsn(page, header.number, 40);
  writeLsn(page, header.firstLsn, 48);
  writeLsn(page, header.bytes, 56);
  sealPage(checksum, page, SEGMENT_PAGE);
  return page;
}

/** The number in a segment header that nobody has checked. */
export function numberIn(page: Buffer): number {
  return readLsn(page, 40);
}

/** @throws FlashVectorError FV_CORRUPT or FV_VERSION, with the file */
export function decodeSegmentHeader(checksum: Checksum, page: Buffer, file: string): SegmentHeader {
  const version = verifyPage(checksum, page, SEGMENT_HEADER_BYTES, SEGMENT_PAGE, file);
  return {
    version,
    storeId: Buffer.from(page.subarray(24, 40)),
    number: readLsn(page, 40),
    firstLsn: readLsn(page, 48),
    bytes: readLsn(page, 56),
  };
}

export function encodeIdentity(checksum: Checksum, storeId: Buffer, createdMs: number): Buffer {
  const page = Buffer.alloc(IDENTITY_BYTES);
  storeId.copy(page, 24);
  writeLsn(page, createdMs, 40);
  sealPage(checksum, page, IDENTITY_PAGE);
  return page;
}

/** @returns the store's id @throws FlashVectorError FV_CORRUPT or FV_VERSION */
export function decodeIdentity(checksum: Checksum, page: Buffer, file: string): Buffer {
  verifyPage(checksum, page, IDENTITY_BYTES, IDENTITY_PAGE, file);
  if (page.length !== IDENTITY_BYTES) {
    throw new FlashVectorError('FV_CORRUPT', `${file} has ${page.length} bytes instead of ${IDENTITY_BYTES}`, {
      file,
      offset: IDENTITY_BYTES,
    });
  }
  return Buffer.from(page.subarray(24, 40));
}

/** Fills in a frame header but for its checksum, which covers bytes 8 to the frame's end. */
export function encodeFrameHeader(into: Buffer, header: FrameHeader): void {
  into.writeUInt32LE(FRAME_MAGIC, 8);
  into.writeUInt32LE(header.flags, 12);
  into.writeUInt32LE(header.payloadBytes, 16);
  into.writeUInt32LE(header.records, 20);
  writeLsn(into, header.firstLsn, 24);
  writeLsn(into, header.lastLsn, 32);
  writeLsn(into, header.durableLsn, 40);
  writeLsn(into, header.term, 48);
  into.writeUInt32LE(0, 56);
  into.writeUInt32LE(0, 60);
}

/** Reads a frame header at `at`. @returns `undefined` where there cannot be one; says nothing of the checksum */
export function decodeFrameHeader(bytes: Buffer, at: number): FrameHeader | undefined {
  if (bytes.readUInt32LE(at + 8) !== FRAME_MAGIC) return undefined;
  const header: FrameHeader = {
    flags: bytes.readUInt32LE(at + 12),
    payloadBytes: bytes.readUInt32LE(at + 16),
    records: bytes.readUInt32LE(at + 20),
    firstLsn: readLsn(bytes, at + 24),
    lastLsn: readLsn(bytes, at + 32),
    durableLsn: readLsn(bytes, at + 40),
    term: readLsn(bytes, at + 48),
  };
  if ((header.payloadBytes & 7) !== 0) return undefined;
  return header;
}
