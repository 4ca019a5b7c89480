/** Decoding a value from the bytes of a logged operation: what a shard does from its region, from private memory. */

import { ENTRY_FLAG_EXPIRES, EXPIRY_BYTES } from '../base/record.js';
import * as E from './entry.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';
import type { ValueCodec } from './value-codec.js';

/** When a stored value expires, in ms since 1970; 0 for never. */
export function storedExpiry(flags: number, bytes: Buffer, start: number): number {
  return (flags & ENTRY_FLAG_EXPIRES) === 0 ? 0 : bytes.readDoubleLE(start);
}

/**
 * @param flags ENTRY_FLAG_* of the operation
 * @param bytes private memory; the value is copied out of it
 * @param length of the value as it is stored, its expiry included
 */
export function decodeStored(
  codec: ValueCodec,
  scratch: Scratch,
  type: number,
  flags: number,
  bytes: Buffer,
  from: number,
  stored: number,
): unknown {
  const prefix = (flags & ENTRY_FLAG_EXPIRES) === 0 ? 0 : EXPIRY_BYTES;
  const start = from + prefix;
  const length = stored - prefix;
  const end = start + length;
  switch (type) {
    case E.TYPE_MSGPACK:
    case E.TYPE_ASCII_MSGPACK:
      if (length > INLINE_VALUE_BYTES_MAX) return codec.decodeMsgpack(Buffer.from(bytes.subarray(start, end)), length, false);
      bytes.copy(scratch.read.bytes, 0, start, end);
      return codec.decodeMsgpack(scratch.read.bytes, length, type === E.TYPE_ASCII_MSGPACK);
    case E.TYPE_ASCII:
      return bytes.latin1Slice(start, end);
    case E.TYPE_UTF8:
      return bytes.utf8Slice(start, end);
    case E.TYPE_UTF16:
      return bytes.ucs2Slice(start, end);
    case E.TYPE_UINT8_ARRAY:
      return Uint8Array.prototype.slice.call(new Uint8Array(bytes.buffer, bytes.byteOffset + start, length));
    case E.TYPE_BUFFER: {
      // `Buffer.from` would cut it from memory that it shares with others.
      const copy = Buffer.allocUnsafeSlow(length);
      bytes.copy(copy, 0, start, end);
      return copy;
    }
    case E.TYPE_INT32:
      return bytes.readInt32LE(start);
    case E.TYPE_FLOAT64:
      return bytes.readDoubleLE(start);
    case E.TYPE_NULL:
      return null;
    case E.TYPE_FALSE:
      return false;
    case E.TYPE_TRUE:
      return true;
    default:
      throw new Error(`a stored value has no type ${type}`);
  }
}
