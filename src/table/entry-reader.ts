/**
 * The value of an entry, copied out of memory that others change meanwhile.
 *
 * What is read may be torn, so it is bounds-checked, and copied to private memory, which msgpackr decodes only after the caller has found the shard's version
 * unchanged. Our own decoder takes any bytes, so it does its work before where all strings are ASCII.
 */

import { lsnFrom } from '../base/lsn.js';
import {
  ENTRY_FLAGS_SHIFT,
  ENTRY_FLAG_EXPIRES,
  EXPIRY_BYTES,
  KEY_LENGTH_MASK,
  OPERATION_HEADER_WORDS,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
  wordsOf,
} from '../base/record.js';
import type { Clock } from '../memory/clock.js';
import { copyOut } from '../memory/copy.js';
import { fence } from '../memory/fence.js';
import type { Region } from '../memory/region.js';
import * as E from './entry.js';
import type { IndexCursor } from './index-cursor.js';
import { UNKNOWN } from './object-decoder.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';
import type { ValueCodec } from './value-codec.js';

/** Above this a value's copy is worth a look at the version first: a torn length can be anything. */
const CHECKED_COPY_BYTES = 4096;
/** Up to here a loop over words beats `Buffer.copy` (25 words: 48 ns against 94 ns). */
export const WORD_COPY_MAX = 64;
/** Up to here ASCII msgpack is decoded where it lies, and whatever is torn is found out about afterwards; longer values are copied out first. */
const IN_PLACE_DECODE_BYTES_MAX = 4096;

/** Shorter strings lie in the cache lines of their entry's header and key most often. */
const NEAR_BYTES = 32;

/** A value captured as msgpack bytes, still to be decoded. */
export const PACKED = Symbol('packed');
/** What is there cannot be right: somebody changes it. */
export const TORN: unique symbol = Symbol('torn');
/** Nothing that a reader may see: absent, deleted, expired, or younger than the snapshot. */
export const INVISIBLE = Symbol('invisible');
export const EXPIRES_BIT = ENTRY_FLAG_EXPIRES << ENTRY_FLAGS_SHIFT;

export abstract class EntryReader {
  protected readonly control: Int32Array;
  /** LSN words of the entry last captured. */
  lsnLow = 0;
  lsnHigh = 0;
  /** Length in bytes of the value last captured. */
  valueLength = 0;
  /** When the entry last captured expires, in ms; 0 for never. */
  expiresMs = 0;
  /** Whose leaf leads to the entry being read, if it came from the index. */
  protected cursor: IndexCursor | undefined;
  #packedBytes: Buffer;
  #packedLength = 0;
  #packedIsAscii = false;

  /** @param versionWord that of the shard's version in the control region */
  /**
   * What was loaded to fetch the lines of a string into the cache while the call that makes it is on its way. What it is does not matter. A get of 100 bytes takes 0.88 of
   * the time where they are not in the cache, 0.95 where they are; objects, which are decoded word by word, gain nothing.
   */
  protected fetched = 0;

  protected constructor(
    readonly region: Region,
    readonly versionWord: number,
    readonly scratch: Scratch,
    readonly codec: ValueCodec,
    protected readonly clock: Clock,
  ) {
    this.control = region.control;
    this.#packedBytes = scratch.read.bytes;
  }

  /** Whether an entry has a value and it has not expired; TORN when its words cannot be right. @param nowMs 0 for this moment */
  protected isVisible(entry: number, nowMs: number): boolean | typeof TORN {
    const words = this.region.words;
    const meta = words[entry];
    this.lsnLow = words[entry + E.ENTRY_LSN_LOW];
    this.lsnHigh = words[entry + E.ENTRY_LSN_HIGH];
    if (((meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK) === E.TYPE_TOMBSTONE) return false;
    if ((meta & EXPIRES_BIT) === 0) return true;
    const at = entry + E.ENTRY_HEADER_WORDS + wordsOf(meta & KEY_LENGTH_MASK);
    if (at + 2 > words.length) return TORN;
    return floatOf(words[at], words[at + 1]) > (nowMs === 0 ? this.clock.now() : nowMs);
  }

  /**
   * Private memory with `length` bytes of the region at its start. V8's UTF-8 decoder, which reads its input twice, runs past its ends when the bytes change
   * meanwhile; only Latin-1 and UTF-16 may be read from a region.
   */
  protected copyForDecoding(start: number, length: number): Buffer {
    if (length > INLINE_VALUE_BYTES_MAX) return copyOf(this.region.bytes, start, length);
    const { bytes } = this.scratch.read;
    copyOut(this.region.bytes, start, bytes, 0, length);
    return bytes;
  }

  protected decode(): unknown {
    const bytes = this.#packedBytes;
    // Lets go of a large copy.
    this.#packedBytes = this.scratch.read.bytes;
    return this.codec.decodeMsgpack(bytes, this.#packedLength, this.#packedIsAscii);
  }

  /**
   * Copies the value of an entry out of shared memory.
   * @param nowMs moment at which it must not have expired; 0 for this one
   * @returns the value; PACKED when its bytes are in the scratch; INVISIBLE; TORN when they cannot be right
   */
  protected capture(entry: number, version: number, nowMs: number): unknown {
    const words = this.region.words;
    const meta = words[entry];
    let length = words[entry + E.ENTRY_VALUE_LENGTH];
    this.lsnLow = words[entry + E.ENTRY_LSN_LOW];
    this.lsnHigh = words[entry + E.ENTRY_LSN_HIGH];
    this.valueLength = length;
    this.expiresMs = 0;
    let at = entry + E.ENTRY_HEADER_WORDS + wordsOf(meta & 0xffff);
    if (length < 0 || at + wordsOf(length) > words.length) return TORN;
    if ((meta & EXPIRES_BIT) !== 0) {
      if (length < EXPIRY_BYTES) return TORN;
      this.expiresMs = floatOf(words[at], words[at + 1]);
      if (this.expiresMs <= (nowMs === 0 ? this.clock.now() : nowMs)) return INVISIBLE;
      at += EXPIRY_BYTES / 4;
      length -= EXPIRY_BYTES;
    }
    if (length > CHECKED_COPY_BYTES) {
      fence(this.control);
      if (Atomics.load(this.control, this.versionWord) !== version) return TORN;
      if (this.cursor !== undefined && !this.cursor.isCurrent()) return TORN;
    }
    const start = at * 4;
    const type = (meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK;
    switch (type) {
      case E.TYPE_MSGPACK:
      case E.TYPE_ASCII_MSGPACK: {
        const isAscii = type === E.TYPE_ASCII_MSGPACK;
        if (isAscii && length <= IN_PLACE_DECODE_BYTES_MAX) {
          const value = this.codec.decodeInPlace(this.region, at, length);
          if (value !== UNKNOWN) return value;
        }
        this.#packedLength = length;
        this.#packedIsAscii = isAscii;
        // An attempt that failed may have left a buffer of its own here.
        this.#packedBytes = this.scratch.read.bytes;
        const count = wordsOf(length);
        if (count > WORD_COPY_MAX) {
          this.#packedBytes = this.copyForDecoding(start, length);
          return PACKED;
        }
        const into = this.scratch.read.words;
        for (let i = 0; i < count; i++) into[i] = words[at + i];
        return PACKED;
      }
      case E.TYPE_ASCII:
        if (length > NEAR_BYTES) this.fetched = words[at + (length >>> 3)] ^ words[at + (length >>> 2) - 1];
        return this.region.bytes.latin1Slice(start, start + length);
      case E.TYPE_UTF8:
        return this.copyForDecoding(start, length).utf8Slice(0, length);
      case E.TYPE_UTF16:
        return this.region.bytes.ucs2Slice(start, start + length);
      case E.TYPE_UINT8_ARRAY: {
        const copy = copyOf(this.region.bytes, start, length);
        return new Uint8Array(copy.buffer, 0, length);
      }
      case E.TYPE_BUFFER:
        return copyOf(this.region.bytes, start, length);
      case E.TYPE_INT32:
        return words[at];
      case E.TYPE_FLOAT64:
        return floatOf(words[at], words[at + 1]);
      case E.TYPE_NULL:
        return null;
      case E.TYPE_FALSE:
        return false;
      case E.TYPE_TRUE:
        return true;
      case E.TYPE_TOMBSTONE:
        return INVISIBLE;
      default:
        return TORN;
    }
  }

  // Under the shard's lock --------------------------------------------------------------------

  /** Puts the value of an entry that `locate` found into the scratch, behind its key, without its expiry. */
  loadValueLocked(entry: number): void {
    const { scratch, region } = this;
    const { words, bytes } = region;
    const meta = words[entry];
    const prefix = (meta & EXPIRES_BIT) === 0 ? 0 : EXPIRY_BYTES;
    const length = words[entry + E.ENTRY_VALUE_LENGTH] - prefix;
    const start = (entry + E.ENTRY_HEADER_WORDS + wordsOf(meta & KEY_LENGTH_MASK)) * 4 + prefix;
    scratch.valueType = (meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK;
    scratch.valueLength = length;
    if (length > INLINE_VALUE_BYTES_MAX) {
      scratch.valueBytes = copyOf(bytes, start, length);
      return;
    }
    scratch.valueBytes = null;
    copyOut(bytes, start, scratch.bytes, (OPERATION_HEADER_WORDS + wordsOf(scratch.keyLength)) * 4, wordsOf(length) * 4);
  }

  /** Expiry of an entry that `locate` found, in ms; 0 for never. */
  expiryLocked(entry: number): number {
    const words = this.region.words;
    if ((words[entry] & EXPIRES_BIT) === 0) return 0;
    const at = entry + E.ENTRY_HEADER_WORDS + wordsOf(words[entry] & KEY_LENGTH_MASK);
    return floatOf(words[at], words[at + 1]);
  }

  lsnLocked(entry: number): number {
    return lsnFrom(this.region.words[entry + E.ENTRY_LSN_LOW], this.region.words[entry + E.ENTRY_LSN_HIGH]);
  }
}

/** A Buffer of its own with bytes of a region. */
function copyOf(bytes: Buffer, start: number, length: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(length);
  copyOut(bytes, start, copy, 0, length);
  return copy;
}

const floatWords = new Int32Array(2);
const floatValue = new Float64Array(floatWords.buffer);

function floatOf(low: number, high: number): number {
  floatWords[0] = low;
  floatWords[1] = high;
  return floatValue[0];
}
