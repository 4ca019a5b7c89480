/**
 * Writes one part of a checkpoint: gathers entries into blocks, and streams a value that is too long for
 * a block. Its memory is one block, or the longest key, and a piece of a long value, whatever the data.
 *
 * The file is synced again and again, so that the log's own syncs never wait behind all of a checkpoint.
 */

import path from 'node:path';
import { assert, ioError } from '../base/errors.js';
import { KEY_BYTES_MAX } from '../base/record.js';
import { writeFully, type FileSystem, type OpenFile } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import {
  BLOCK_HEADER_BYTES,
  ENTRY_HEADER_WORDS,
  PART_HEADER_BYTES,
  encodeBlockHeader,
  encodePartHeader,
  partName,
  partSeed,
  type PartIdentity,
  type PartSummary,
} from './format.js';

/** Summing up a block and writing it is not to last longer than a stretch, either. */
const BLOCK_BYTES = 64 * 1024;
/** Room for the head of a long entry, with the longest key, whatever a block may hold. */
const HEAD_BYTES_MAX = KEY_BYTES_MAX + 1 + BLOCK_HEADER_BYTES + ENTRY_HEADER_WORDS * 4;
/** Bytes written between two syncs. */
const SYNC_EVERY_BYTES = 4 * 1024 * 1024;
/**
 * The same where others wait for the disk. A log's sync of 0.12 ms took 4.9 ms in one case of a hundred beside a file of 24 MiB that was synced every 4 MiB, and 0.73 ms
 * where every 256 KiB, which took 79 ms for all of the file instead of 54.
 */
export const SYNC_OFTEN_BYTES = 256 * 1024;
/** Pieces in which a long value is copied and written. */
const PIECE_BYTES = 256 * 1024;
/** Words of entries that are copied at a stretch: about 0.1 ms. */
const STRETCH_WORDS = 8 * 1024;
/** Longest stretch: in a new thread whose code is not compiled yet those words take 5 ms. */
const STRETCH_MS = 0.15;
/** The clock is looked at after so many entries; a power of two, less one. */
const LOOK_MASK = 7;

/** Where entries come from; implemented over a shard (table/capture.ts). */
export interface EntrySource {
  /**
   * Copies the next entry to word `at` of `into`.
   * @returns words copied; 0 at the end; minus the words needed when they pass `limit`: asked again, it gives the same entry
   */
  next(into: Int32Array, at: number, limit: number): number;
  /** Copies the head of the long entry that `next` has announced: header and key. @returns its words, or 0 when it is gone */
  openLong(into: Int32Array, at: number): number;
  /** Copies a piece of its value. @returns false when it has changed meanwhile: it is in the log then, and is left out here */
  readLong(offset: number, into: Buffer, at: number, length: number): boolean;
  /** Goes past the long entry. */
  closeLong(): void;
}

export class PartWriter {
  readonly #block = Buffer.from(new ArrayBuffer(Math.max(BLOCK_BYTES, (HEAD_BYTES_MAX + 3) & ~3)));
  readonly #words = new Int32Array(this.#block.buffer);
  /** Where pieces of long values are copied, once there is one. */
  #piece: Buffer | undefined;
  readonly #seed: bigint;
  readonly #path: string;
  readonly #file: OpenFile;
  #offset = 0;
  #unsynced = 0;
  #entries = 0;
  #blocks = 0;
  #blockEntries = 0;
  /** Words in use in the block, its header included. */
  #used = BLOCK_HEADER_BYTES / 4;
  readonly #checksums: Buffer[] = [];

  /** @throws FlashVectorError FV_IO */
  constructor(
    files: FileSystem,
    readonly checksum: Checksum,
    directory: string,
    readonly identity: PartIdentity,
    readonly syncEveryBytes = SYNC_EVERY_BYTES,
    readonly now: () => number = () => performance.now(),
  ) {
    this.#seed = partSeed(checksum, identity);
    this.#path = path.join(directory, partName(identity.checkpoint, identity.part));
    try {
      this.#file = files.open(this.#path, 'create');
    } catch (error) {
      throw ioError('creating a checkpoint part', this.#path, error);
    }
    this.#write(encodePartHeader(checksum, identity), 0);
    this.#offset = PART_HEADER_BYTES;
  }

  get bytes(): number {
    return this.#offset;
  }

  get entries(): number {
    return this.#entries + this.#blockEntries;
  }

  /** Writes what the source gives, to its end. @param onStretch called after every stretch of work, of 0.1 to 0.2 ms; may rest, or throw to stop */
  add(source: EntrySource, onStretch: () => void): void {
    const limit = BLOCK_BYTES / 4;
    let stretchEnd = this.#used + STRETCH_WORDS;
    let startedMs = this.now();
    const end = (): void => {
      onStretch();
      stretchEnd = this.#used + STRETCH_WORDS;
      startedMs = this.now();
    };
    for (;;) {
      const words = source.next(this.#words, this.#used, limit);
      if (words > 0) {
        this.#used += words;
        this.#blockEntries++;
        if (this.#used >= stretchEnd || ((this.#blockEntries & LOOK_MASK) === 0 && this.now() - startedMs > STRETCH_MS)) end();
        continue;
      }
      if (words === 0) return;
      if (this.#blockEntries > 0) {
        this.#flush(false);
        end();
      }
      if (-words > limit - this.#used) {
        this.#addLong(source, onStretch);
        source.closeLong();
      }
    }
  }

  /** Writes the last block and syncs. @throws FlashVectorError FV_IO */
  finish(): PartSummary {
    if (this.#blockEntries > 0) this.#flush(false);
    this.#flush(true);
    try {
      // What a long entry that was given up has left behind.
      this.#file.truncate(this.#offset);
      this.#file.sync();
      this.#file.close();
    } catch (error) {
      throw ioError('finishing a checkpoint part', this.#path, error, this.#offset);
    }
    return {
      part: this.identity.part,
      bytes: this.#offset,
      entries: this.#entries,
      blocks: this.#blocks,
      checksum: this.checksum.of(Buffer.concat(this.#checksums), this.#seed),
    };
  }

  /** Lets go of the file after a failure. */
  abandon(): void {
    try {
      this.#file.close();
    } catch {
      // The failure that led here is the one to be told.
    }
  }

  #write(bytes: Buffer, position: number): void {
    try {
      writeFully(this.#file, bytes, position);
      this.#unsynced += bytes.length;
      if (this.#unsynced < this.syncEveryBytes) return;
      this.#file.sync();
      this.#unsynced = 0;
    } catch (error) {
      throw ioError('writing a checkpoint part', this.#path, error, position);
    }
  }

  #flush(isLast: boolean): void {
    const bytes = this.#used * 4;
    encodeBlockHeader(this.#block, 0, bytes - BLOCK_HEADER_BYTES, this.#blockEntries, this.#blocks, isLast);
    const block = this.#block.subarray(0, bytes);
    const sum = this.checksum.of(block.subarray(8), this.#seed);
    this.#block.writeBigUInt64LE(sum, 0);
    this.#write(block, this.#offset);
    this.#endBlock(bytes, this.#blockEntries);
  }

  #endBlock(bytes: number, entries: number): void {
    this.#checksums.push(Buffer.from(this.#block.subarray(0, 8)));
    this.#offset += bytes;
    this.#blocks++;
    this.#entries += entries;
    this.#blockEntries = 0;
    this.#used = BLOCK_HEADER_BYTES / 4;
  }

  /** A block of one long entry. Its header is written last: until then the file ends before it. */
  #addLong(source: EntrySource, onStretch: () => void): void {
    const start = BLOCK_HEADER_BYTES / 4;
    const headWords = source.openLong(this.#words, start);
    if (headWords === 0) return;
    const valueBytes = this.#words[start + 1] >>> 0;
    const padded = (valueBytes + 3) & ~3;
    assert(headWords >= ENTRY_HEADER_WORDS, 'the head of an entry holds its header');
    encodeBlockHeader(this.#block, 0, headWords * 4 + padded, 1, this.#blocks, false);
    const head = this.#block.subarray(0, BLOCK_HEADER_BYTES + headWords * 4);
    const hash = this.checksum.start(this.#seed);
    hash.update(head.subarray(8));
    this.#piece ??= Buffer.allocUnsafeSlow(PIECE_BYTES);
    const piece = this.#piece;
    let position = this.#offset + head.length;
    for (let at = 0; at < valueBytes; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, valueBytes - at);
      if (!source.readLong(at, piece, 0, length)) return;
      const end = (length + 3) & ~3;
      piece.fill(0, length, end);
      const part = piece.subarray(0, end);
      hash.update(part);
      this.#write(part, position);
      position += end;
      onStretch();
    }
    this.#block.writeBigUInt64LE(hash.digest(), 0);
    this.#write(head, this.#offset);
    this.#endBlock(head.length + padded, 1);
  }
}
