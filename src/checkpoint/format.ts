/**
 * A checkpoint on disk: a manifest and its parts. `docs/format.md` has the byte diagrams.
 *
 * A part is a header and a sequence of blocks; the last block is empty and says so. A block holds
 * entries one behind the other:
 *
 *     word 0   as word 0 of an operation (base/record.ts), the top 8 bits zero
 *     word 1   value length in bytes
 *     word 2   LSN, low word; word 3, high word
 *     key bytes, padded with zeros to 4; value bytes, padded with zeros to 4
 *
 * Little endian. Checksums are xxhash64; those of blocks are seeded with store, checkpoint and part, and
 * a block carries its index, so that no block passes for another.
 */

import { FlashVectorError } from '../base/errors.js';
import type { Checksum } from '../platform/checksum.js';
import { readCount, sealPage, verifyPage, writeCount, type PageKind } from '../platform/page.js';

/** Version 3: values of type 11. */
const CHECKPOINT_VERSION = 3;
const CHECKPOINT_OLDEST = 1;

/** "FLSFVCKP" */
const PART_PAGE: PageKind = {
  magic: 0x504b_4356_4653_4c46n,
  version: CHECKPOINT_VERSION,
  oldest: CHECKPOINT_OLDEST,
  what: 'checkpoint part header',
};
/** "FLSFVMAN" */
const MANIFEST_PAGE: PageKind = { magic: 0x4e41_4d56_4653_4c46n, version: CHECKPOINT_VERSION, oldest: CHECKPOINT_OLDEST, what: 'manifest' };

export const PART_HEADER_BYTES = 64;
export const BLOCK_HEADER_BYTES = 32;
const BLOCK_MAGIC = 0x4b4c_4256; // "VBLK"
/** The block that ends a part. */
const BLOCK_LAST = 1;
export const ENTRY_HEADER_WORDS = 4;

const MANIFEST_HEADER_BYTES = 96;
const MANIFEST_PART_BYTES = 32;

/** Where a block's checksum comes from. */
export interface PartIdentity {
  storeId: Buffer;
  checkpoint: number;
  part: number;
}

export interface PartSummary {
  part: number;
  bytes: number;
  entries: number;
  blocks: number;
  /** xxhash64 over the checksums of all blocks, in their order, seeded as they are. */
  checksum: bigint;
}

export interface Manifest {
  storeId: Buffer;
  number: number;
  /** Everything below had been applied when the checkpoint began: the log is replayed from here. */
  startLsn: number;
  /** Nothing in the checkpoint is younger. The log was durable up to here before this manifest was written. */
  endLsn: number;
  createdMs: number;
  entries: number;
  parts: PartSummary[];
  /** The record structures, as JSON arrays of field names, in the order of their numbers. */
  structures: Buffer[];
}

export interface BlockHeader {
  checksum: bigint;
  payloadBytes: number;
  entries: number;
  index: number;
  isLast: boolean;
}

function digits(number: number): string {
  return String(number).padStart(12, '0');
}

export function manifestName(number: number): string {
  return `${digits(number)}.checkpoint`;
}

export function partName(checkpoint: number, part: number): string {
  return `${digits(checkpoint)}-${String(part).padStart(3, '0')}.part`;
}

/** Number of the checkpoint whose manifest has this name. */
export function manifestNumber(name: string): number | undefined {
  return /^\d{12}\.checkpoint$/.test(name) ? Number(name.slice(0, 12)) : undefined;
}

/** Number of the checkpoint whose part has this name. */
export function partCheckpoint(name: string): number | undefined {
  return /^\d{12}-\d{3}\.part$/.test(name) ? Number(name.slice(0, 12)) : undefined;
}

export function partSeed(checksum: Checksum, { storeId, checkpoint, part }: PartIdentity): bigint {
  const source = Buffer.alloc(32);
  storeId.copy(source, 0);
  writeCount(source, checkpoint, 16);
  writeCount(source, part, 24);
  return checksum.of(source, 0n);
}

export function encodePartHeader(checksum: Checksum, identity: PartIdentity): Buffer {
  const page = Buffer.alloc(PART_HEADER_BYTES);
  identity.storeId.copy(page, 24);
  writeCount(page, identity.checkpoint, 40);
  page.writeUInt32LE(identity.part, 48);
  sealPage(checksum, page, PART_PAGE);
  return page;
}

/** @throws FlashVectorError FV_CORRUPT, FV_VERSION when the page is not the header of this very part */
export function checkPartHeader(checksum: Checksum, page: Buffer, identity: PartIdentity, file: string): void {
  verifyPage(checksum, page, PART_HEADER_BYTES, PART_PAGE, file);
  // Checksum, magic number, version and length have been checked.
  const from = 24;
  if (page.subarray(from).equals(encodePartHeader(checksum, identity).subarray(from))) return;
  const isOurs = page.subarray(24, 40).equals(identity.storeId);
  const is = isOurs ? `is part ${page.readUInt32LE(48)} of checkpoint ${readCount(page, 40)}` : 'belongs to another store';
  throw new FlashVectorError('FV_CORRUPT', `${file} ${is}`, { file, offset: isOurs ? 40 : 24 });
}

/** Fills in a block header but for its checksum, which covers bytes 8 to the block's end. */
export function encodeBlockHeader(into: Buffer, at: number, payloadBytes: number, entries: number, index: number, isLast: boolean): void {
  into.writeUInt32LE(BLOCK_MAGIC, at + 8);
  into.writeUInt32LE(isLast ? BLOCK_LAST : 0, at + 12);
  into.writeUInt32LE(payloadBytes, at + 16);
  into.writeUInt32LE(entries, at + 20);
  into.writeUInt32LE(index, at + 24);
  into.writeUInt32LE(0, at + 28);
}

/** @returns `undefined` where there cannot be a block header; says nothing of the checksum */
export function decodeBlockHeader(bytes: Buffer, at: number): BlockHeader | undefined {
  if (bytes.readUInt32LE(at + 8) !== BLOCK_MAGIC || bytes.readUInt32LE(at + 28) !== 0) return undefined;
  const flags = bytes.readUInt32LE(at + 12);
  if ((flags & ~BLOCK_LAST) !== 0) return undefined;
  return {
    checksum: bytes.readBigUInt64LE(at),
    payloadBytes: bytes.readUInt32LE(at + 16),
    entries: bytes.readUInt32LE(at + 20),
    index: bytes.readUInt32LE(at + 24),
    isLast: flags === BLOCK_LAST,
  };
}

export function encodeManifest(checksum: Checksum, manifest: Manifest): Buffer {
  const { parts, structures } = manifest;
  const bytes = structures.reduce((sum, text) => sum + 4 + text.length, MANIFEST_HEADER_BYTES + parts.length * MANIFEST_PART_BYTES);
  const page = Buffer.alloc(bytes);
  manifest.storeId.copy(page, 24);
  writeCount(page, manifest.number, 40);
  writeCount(page, manifest.startLsn, 48);
  writeCount(page, manifest.endLsn, 56);
  writeCount(page, manifest.createdMs, 64);
  writeCount(page, manifest.entries, 72);
  page.writeUInt32LE(parts.length, 80);
  page.writeUInt32LE(structures.length, 84);
  let at = MANIFEST_HEADER_BYTES;
  for (const part of parts) {
    writeCount(page, part.bytes, at);
    writeCount(page, part.entries, at + 8);
    page.writeBigUInt64LE(part.checksum, at + 16);
    page.writeUInt32LE(part.blocks, at + 24);
    page.writeUInt32LE(part.part, at + 28);
    at += MANIFEST_PART_BYTES;
  }
  for (const text of structures) {
    page.writeUInt32LE(text.length, at);
    text.copy(page, at + 4);
    at += 4 + text.length;
  }
  sealPage(checksum, page, MANIFEST_PAGE);
  return page;
}

/** @throws FlashVectorError FV_CORRUPT, FV_VERSION */
export function decodeManifest(checksum: Checksum, page: Buffer, storeId: Buffer, number: number, file: string): Manifest {
  // The checksum covers the whole file, so a wrong length fails it, too.
  verifyPage(checksum, page, Math.max(page.length, MANIFEST_HEADER_BYTES), MANIFEST_PAGE, file);
  if (!page.subarray(24, 40).equals(storeId)) {
    throw new FlashVectorError('FV_CORRUPT', `${file} belongs to another store`, { file, offset: 24 });
  }
  const manifest: Manifest = {
    storeId: Buffer.from(page.subarray(24, 40)),
    number: readCount(page, 40),
    startLsn: readCount(page, 48),
    endLsn: readCount(page, 56),
    createdMs: readCount(page, 64),
    entries: readCount(page, 72),
    parts: [],
    structures: [],
  };
  if (manifest.number !== number) {
    throw new FlashVectorError('FV_CORRUPT', `${file} is in truth checkpoint ${manifest.number}`, { file, offset: 40 });
  }
  let at = MANIFEST_HEADER_BYTES;
  for (let i = page.readUInt32LE(80); i > 0; i--) {
    manifest.parts.push({
      bytes: readCount(page, at),
      entries: readCount(page, at + 8),
      checksum: page.readBigUInt64LE(at + 16),
      blocks: page.readUInt32LE(at + 24),
      part: page.readUInt32LE(at + 28),
    });
    at += MANIFEST_PART_BYTES;
  }
  for (let i = page.readUInt32LE(84); i > 0; i--) {
    const length = page.readUInt32LE(at);
    manifest.structures.push(Buffer.from(page.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return manifest;
}
