/** Reads a part of a checkpoint, block by block, checking everything before it is believed. */

import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import { ENTRY_FLAGS_KNOWN, ENTRY_FLAGS_MASK, ENTRY_FLAGS_SHIFT, KEY_LENGTH_MASK, VALUE_BYTES_MAX, wordsOf } from '../base/record.js';
import { readFully, type FileSystem, type OpenFile } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import {
  BLOCK_HEADER_BYTES,
  ENTRY_HEADER_WORDS,
  PART_HEADER_BYTES,
  checkPartHeader,
  decodeBlockHeader,
  partName,
  partSeed,
  type BlockHeader,
  type PartIdentity,
  type PartSummary,
} from './format.js';

/** An entry as it lies in a block; offsets are into `payload`, in bytes and multiples of 4. The object is reused. */
interface StoredEntry {
  /** The payload as words. */
  words: Int32Array;
  /** Key length, value type and flags, as in word 0 of an operation. */
  meta: number;
  keyLength: number;
  valueLength: number;
  lsnLow: number;
  lsnHigh: number;
  keyStart: number;
  valueStart: number;
}

export interface PartVisitor {
  entry(entry: StoredEntry, payload: Buffer): void;
  /** After each block, whose payload is still there: bytes read so far. */
  progress(bytes: number): void;
}

const READ_BYTES = 256 * 1024;
/** An entry's key and value with their headers, and some more. */
const PAYLOAD_BYTES_MAX = VALUE_BYTES_MAX + 128 * 1024;

/** A payload is whole words. */
function isPayloadLength(bytes: number): boolean {
  return bytes <= PAYLOAD_BYTES_MAX && (bytes & 3) === 0;
}

class PartReader {
  #buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  #start = 0;
  #length = 0;

  constructor(
    readonly open: OpenFile,
    readonly file: string,
  ) {}

  /** Bytes at `offset`, fewer at the end of the file. Valid until the next call. */
  at(offset: number, length: number): Buffer {
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length);
      this.#start = offset;
      try {
        this.#length = readFully(this.open, this.#buffer, this.#buffer.length, offset);
      } catch (error) {
        throw ioError('reading a checkpoint part', this.file, error, offset);
      }
    }
    const from = offset - this.#start;
    return this.#buffer.subarray(from, Math.min(from + length, this.#length));
  }
}

/**
 * Reads a whole part and holds it against what the manifest says of it.
 * @throws FlashVectorError FV_CORRUPT with file and offset, FV_VERSION, FV_IO
 */
export function readPart(
  files: FileSystem,
  checksum: Checksum,
  directory: string,
  identity: PartIdentity,
  expected: PartSummary,
  visitor: PartVisitor,
): void {
  const file = path.join(directory, partName(identity.checkpoint, identity.part));
  const corrupt = (offset: number, what: string): FlashVectorError =>
    new FlashVectorError('FV_CORRUPT', `${file} is damaged at offset ${offset}: ${what}`, { file, offset });
  let open: OpenFile;
  try {
    if (!files.exists(file)) throw new FlashVectorError('FV_CORRUPT', `checkpoint part ${file} is missing`, { file, offset: 0 });
    open = files.open(file, 'read');
  } catch (error) {
    throw ioError('opening a checkpoint part', file, error);
  }
  try {
    const size = open.size();
    if (size !== expected.bytes) throw corrupt(Math.min(size, expected.bytes), `it has ${size} bytes instead of ${expected.bytes}`);
    const reader = new PartReader(open, file);
    checkPartHeader(checksum, reader.at(0, PART_HEADER_BYTES), identity, file);
    const seed = partSeed(checksum, identity);
    const sums: Buffer[] = [];
    let entries = 0;
    let offset = PART_HEADER_BYTES;
    for (;;) {
      const head = reader.at(offset, BLOCK_HEADER_BYTES);
      const header = head.length < BLOCK_HEADER_BYTES ? undefined : decodeBlockHeader(head, 0);
      if (header === undefined || header.index !== sums.length || !isPayloadLength(header.payloadBytes))
        throw corrupt(offset, `block ${sums.length} does not begin here`);
      const block = reader.at(offset, BLOCK_HEADER_BYTES + header.payloadBytes);
      if (block.length !== BLOCK_HEADER_BYTES + header.payloadBytes || header.checksum !== checksum.of(block.subarray(8), seed))
        throw corrupt(offset, `block ${header.index} fails its check`);
      sums.push(Buffer.from(block.subarray(0, 8)));
      visitEntries(block.subarray(BLOCK_HEADER_BYTES), header, visitor, (at, what) => corrupt(offset + BLOCK_HEADER_BYTES + at, what));
      entries += header.entries;
      offset += block.length;
      visitor.progress(offset);
      if (header.isLast) break;
    }
    if (offset !== size) throw corrupt(offset, `${size - offset} bytes follow the last block`);
    const whole = checksum.of(Buffer.concat(sums), seed);
    if (entries !== expected.entries || sums.length !== expected.blocks || whole !== expected.checksum)
      throw corrupt(0, 'it is not the part that the manifest describes');
  } finally {
    open.close();
  }
}

function visitEntries(payload: Buffer, header: BlockHeader, visitor: PartVisitor, corrupt: (at: number, what: string) => Error): void {
  // Blocks begin at whole words of the file, and so of the reader's buffer.
  const words = new Int32Array(payload.buffer, payload.byteOffset, payload.length >>> 2);
  const entry: StoredEntry = { words, meta: 0, keyLength: 0, valueLength: 0, lsnLow: 0, lsnHigh: 0, keyStart: 0, valueStart: 0 };
  let at = 0;
  for (let i = 0; i < header.entries; i++) {
    if (at + ENTRY_HEADER_WORDS * 4 > payload.length) throw corrupt(at, 'an entry lies past the end of its block');
    const word = at / 4;
    entry.meta = words[word];
    entry.keyLength = entry.meta & KEY_LENGTH_MASK;
    entry.valueLength = words[word + 1] >>> 0;
    entry.lsnLow = words[word + 2];
    entry.lsnHigh = words[word + 3];
    entry.keyStart = at + ENTRY_HEADER_WORDS * 4;
    entry.valueStart = entry.keyStart + wordsOf(entry.keyLength) * 4;
    at = entry.valueStart + wordsOf(entry.valueLength) * 4;
    const flags = (entry.meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    if (entry.keyLength === 0 || at > payload.length || entry.meta >>> 24 !== 0 || flags > ENTRY_FLAGS_KNOWN)
      throw corrupt(entry.keyStart - ENTRY_HEADER_WORDS * 4, 'an entry has wrong lengths');
    visitor.entry(entry, payload);
  }
  if (at !== payload.length) throw corrupt(at, 'a block has bytes behind its last entry');
}

export interface PartScan {
  file: string;
  blocks: number;
  entries: number;
  bad: { offset: number; bytes: number; what: string }[];
}

/**
 * Reads one part whatever state it is in: the entries of every block that verifies, and the stretches that do not.
 * For `verify`, `repair` and `inspect`.
 * @throws FlashVectorError FV_IO
 */
export function scanPart(
  files: FileSystem,
  checksum: Checksum,
  directory: string,
  identity: PartIdentity,
  visitor: { entry(entry: StoredEntry, payload: Buffer): void; block(header: BlockHeader, offset: number): void },
): PartScan {
  const file = path.join(directory, partName(identity.checkpoint, identity.part));
  const scan: PartScan = { file, blocks: 0, entries: 0, bad: [] };
  let open: OpenFile;
  try {
    open = files.open(file, 'read');
  } catch (error) {
    throw ioError('opening a checkpoint part', file, error);
  }
  try {
    const size = open.size();
    const reader = new PartReader(open, file);
    try {
      checkPartHeader(checksum, Buffer.from(reader.at(0, PART_HEADER_BYTES)), identity, file);
    } catch (error) {
      if (!(error instanceof FlashVectorError)) throw error;
      scan.bad.push({ offset: error.offset ?? 0, bytes: PART_HEADER_BYTES, what: error.message });
    }
    const seed = partSeed(checksum, identity);
    let offset = PART_HEADER_BYTES;
    let isComplete = false;
    while (offset < size && !isComplete) {
      const header = blockAt(reader, checksum, seed, offset, size);
      if (header === undefined) {
        let next = offset + 4;
        while (next < size && blockAt(reader, checksum, seed, next, size) === undefined) next += 4;
        scan.bad.push({ offset, bytes: next - offset, what: 'no block verifies here' });
        offset = next;
        continue;
      }
      visitor.block(header, offset);
      const end = offset + BLOCK_HEADER_BYTES + header.payloadBytes;
      const payload = reader.at(offset, end - offset).subarray(BLOCK_HEADER_BYTES);
      visitEntries(
        payload,
        header,
        { entry: (entry, bytes) => visitor.entry(entry, bytes), progress: () => undefined },
        (at, what) => new FlashVectorError('FV_CORRUPT', `${file}: ${what}`, { file, offset: offset + at }),
      );
      scan.blocks++;
      scan.entries += header.entries;
      isComplete = header.isLast;
      offset = end;
    }
    if (!isComplete) scan.bad.push({ offset: size, bytes: 0, what: 'the last block is missing' });
    return scan;
  } finally {
    open.close();
  }
}

function blockAt(reader: PartReader, checksum: Checksum, seed: bigint, offset: number, size: number): BlockHeader | undefined {
  const head = reader.at(offset, BLOCK_HEADER_BYTES);
  const header = head.length < BLOCK_HEADER_BYTES ? undefined : decodeBlockHeader(head, 0);
  if (header === undefined || !isPayloadLength(header.payloadBytes)) return undefined;
  const bytes = BLOCK_HEADER_BYTES + header.payloadBytes;
  if (offset + bytes > size) return undefined;
  return header.checksum === checksum.of(reader.at(offset, bytes).subarray(8), seed) ? header : undefined;
}
