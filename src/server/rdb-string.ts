/**
 * The payload of DUMP and RESTORE: a string as Redis keeps it in its RDB files, the version of that format, and a checksum.
 *
 * Written without compression; read with. Format: rdb.c of Redis 7.0, version 10. Checksum: CRC-64 with Jones's polynomial, reflected. Compression: LZF.
 */

import { CommandError } from './protocol-error.js';
import { latin1 } from './values.js';

const VERSION = 10;
const TYPE_STRING = 0;
const FOOTER_BYTES = 10;
const STRING_BYTES_MAX = 512 * 1024 * 1024;
/** Kinds of encoded strings. */
const INT8 = 0xc0;
const INT16 = 0xc1;
const INT32 = 0xc2;
const LZF = 0xc3;

const BAD_CHECKSUM = 'ERR DUMP payload version or checksum are wrong';
const BAD_FORMAT = 'ERR Bad data format';

/** For each byte the high and the low half of its remainder. */
const CRC_HIGH = new Uint32Array(256);
const CRC_LOW = new Uint32Array(256);
for (let byte = 0; byte < 256; byte++) {
  let high = 0;
  let low = byte;
  for (let bit = 0; bit < 8; bit++) {
    const isOdd = (low & 1) !== 0;
    low = ((low >>> 1) | (high << 31)) >>> 0;
    high >>>= 1;
    if (isOdd) {
      high = (high ^ 0x95ac_9329) >>> 0;
      low = (low ^ 0xac4b_c9b5) >>> 0;
    }
  }
  CRC_HIGH[byte] = high;
  CRC_LOW[byte] = low;
}

/** Eight bytes, little endian. */
export function crc64(bytes: Uint8Array): Buffer {
  let high = 0;
  let low = 0;
  for (let i = 0; i < bytes.length; i++) {
    const at = (low ^ bytes[i]) & 0xff;
    low = (((low >>> 8) | (high << 24)) ^ CRC_LOW[at]) >>> 0;
    high = ((high >>> 8) ^ CRC_HIGH[at]) >>> 0;
  }
  const out = Buffer.alloc(8);
  out.writeUInt32LE(low, 0);
  out.writeUInt32LE(high, 4);
  return out;
}

/** The payload of a value. */
export function dumpString(value: Buffer): Buffer {
  const body = Buffer.concat([
    Buffer.from([TYPE_STRING]),
    encodeInteger(value) ?? Buffer.concat([encodeLength(value.length), value]),
    Buffer.from([VERSION, 0]),
  ]);
  return Buffer.concat([body, crc64(body)]);
}

/** Numbers that 32 bits hold, written as Redis writes them. */
function encodeInteger(value: Buffer): Buffer | undefined {
  if (value.length > 11 || !/^(?:0|-?[1-9]\d*)$/.test(latin1(value))) return undefined;
  const number = Number(latin1(value));
  if (number >= -128 && number <= 127) return Buffer.from([INT8, number & 0xff]);
  const out = Buffer.alloc(5);
  if (number >= -32_768 && number <= 32_767) {
    out[0] = INT16;
    out.writeInt16LE(number, 1);
    return out.subarray(0, 3);
  }
  if (number !== (number | 0)) return undefined;
  out[0] = INT32;
  out.writeInt32LE(number, 1);
  return out;
}

function encodeLength(length: number): Buffer {
  if (length < 64) return Buffer.from([length]);
  if (length < 16_384) return Buffer.from([0x40 | (length >>> 8), length & 0xff]);
  const out = Buffer.alloc(5);
  out[0] = 0x80;
  out.writeUInt32BE(length, 1);
  return out;
}

/** The value of a payload. @throws CommandError for one that is damaged, of a later version, or of another type */
export function restoreString(payload: Buffer): Buffer {
  const end = payload.length - FOOTER_BYTES;
  if (end < 1 || payload.readUInt16LE(end) > VERSION || !crc64(payload.subarray(0, end + 2)).equals(payload.subarray(end + 2)))
    throw new CommandError(BAD_CHECKSUM);
  if (payload[0] !== TYPE_STRING) throw new CommandError(BAD_FORMAT);
  const reader = new PayloadReader(payload.subarray(1, end));
  const value = reader.string();
  if (!reader.isAtEnd) throw new CommandError(BAD_FORMAT);
  return value;
}

class PayloadReader {
  #at = 0;

  constructor(readonly bytes: Buffer) {}

  get isAtEnd(): boolean {
    return this.#at === this.bytes.length;
  }

  string(): Buffer {
    const first = this.#take(1)[0];
    switch (first) {
      case INT8:
        return Buffer.from(String(this.#take(1).readInt8(0)));
      case INT16:
        return Buffer.from(String(this.#take(2).readInt16LE(0)));
      case INT32:
        return Buffer.from(String(this.#take(4).readInt32LE(0)));
      case LZF: {
        const packed = this.#length(this.#take(1)[0]);
        const length = this.#length(this.#take(1)[0]);
        return unpack(this.#take(packed), length);
      }
      default:
        return this.#take(this.#length(first));
    }
  }

  #length(first: number): number {
    const kind = first >>> 6;
    if (kind === 0) return first;
    if (kind === 1) return ((first & 0x3f) << 8) | this.#take(1)[0];
    if (first === 0x80) return this.#take(4).readUInt32BE(0);
    if (first === 0x81) return Number(this.#take(8).readBigUInt64BE(0));
    throw new CommandError(BAD_FORMAT);
  }

  #take(count: number): Buffer {
    if (count > this.bytes.length - this.#at) throw new CommandError(BAD_FORMAT);
    this.#at += count;
    return this.bytes.subarray(this.#at - count, this.#at);
  }
}

/** LZF: runs of bytes as they are, and references to what came before. */
function unpack(packed: Buffer, length: number): Buffer {
  if (length > STRING_BYTES_MAX) throw new CommandError(BAD_FORMAT);
  const out = Buffer.alloc(length);
  let to = 0;
  for (let at = 0; at < packed.length;) {
    const control = packed[at++];
    if (control < 32) {
      const count = control + 1;
      if (at + count > packed.length || to + count > length) throw new CommandError(BAD_FORMAT);
      packed.copy(out, to, at, at + count);
      at += count;
      to += count;
      continue;
    }
    let count = control >>> 5;
    if (count === 7) count += packed[at++] ?? NaN;
    const from = to - ((control & 0x1f) << 8) - (packed[at++] ?? NaN) - 1;
    count += 2;
    // What is missing makes a number that is none, and every comparison with it false.
    if (!(from >= 0 && to + count <= length)) throw new CommandError(BAD_FORMAT);
    for (let i = 0; i < count; i++) out[to + i] = out[from + i];
    to += count;
  }
  if (to !== length) throw new CommandError(BAD_FORMAT);
  return out;
}
