/**
 * What all files of a store have in common: little-endian integers, and a first page that begins with
 * its checksum (xxhash64 over what follows), a magic number and a version.
 */

import { FlashVectorError } from '../base/errors.js';
import type { Checksum } from './checksum.js';

/** Reads an unsigned integer of 8 bytes, below 2^53. */
export function readCount(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

export function writeCount(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value >>> 0, at);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}

export interface PageKind {
  magic: bigint;
  /** What this build writes, and the oldest that it reads. */
  version: number;
  oldest: number;
  /** The page in messages: "segment header", "manifest". */
  what: string;
}

/** Fills in bytes 0 to 24 of a page whose other bytes are in place: checksum, magic number, version, length. */
export function sealPage(checksum: Checksum, page: Buffer, kind: PageKind): void {
  page.writeBigUInt64LE(kind.magic, 8);
  page.writeUInt32LE(kind.version, 16);
  page.writeUInt32LE(page.length, 20);
  page.writeBigUInt64LE(checksum.of(page.subarray(8), 0n), 0);
}

/**
 * Checks the first `bytes` bytes of a file. The checksum comes before the version: a version that is only damage
 * must not be believed.
 * @returns the version
 * @throws FlashVectorError FV_CORRUPT or FV_VERSION, with the file
 */
export function verifyPage(checksum: Checksum, page: Buffer, bytes: number, kind: PageKind, file: string): number {
  const { what, magic } = kind;
  if (page.length < bytes) {
    throw new FlashVectorError('FV_CORRUPT', `${file}: the ${what} is cut off after ${page.length} of ${bytes} bytes`, {
      file,
      offset: page.length,
    });
  }
  if (page.readBigUInt64LE(0) !== checksum.of(page.subarray(8, bytes), 0n) || page.readBigUInt64LE(8) !== magic) {
    throw new FlashVectorError('FV_CORRUPT', `${file}: the ${what} fails its check`, { file, offset: 0 });
  }
  const version = page.readUInt32LE(16);
  if (version < kind.oldest || version > kind.version) {
    const readable = kind.oldest === kind.version ? `version ${kind.version}` : `versions ${kind.oldest} to ${kind.version}`;
    throw new FlashVectorError('FV_VERSION', `${file} has format version ${version}; this build reads ${readable}`, { file, offset: 16 });
  }
  return version;
}
