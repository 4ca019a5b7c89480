/**
 * Between RESP's bytes and the store's keys and values.
 *
 * What comes through RESP is stored as a string where it is UTF-8, as bytes otherwise. What is read is the string's bytes, the bytes, or, of any
 * other value that the library has put, its JSON.
 */

import { isUtf8 } from 'node:buffer';

const ASCII_LOOP_MAX = 128;

/** A key or value as the library is to see it: a string, or bytes where they are not UTF-8. The bytes are the caller's still. */
export function fromBytes(bytes: Buffer): string | Buffer {
  const { length } = bytes;
  if (length <= ASCII_LOOP_MAX) {
    let all = 0;
    for (let i = 0; i < length; i++) all |= bytes[i];
    if (all < 0x80) return bytes.latin1Slice(0, length);
  }
  return isUtf8(bytes) ? bytes.utf8Slice(0, length) : bytes;
}

/** Bytes as a string of as many characters. */
export function latin1(bytes: Buffer): string {
  return bytes.latin1Slice(0, bytes.length);
}

/** The text of a value that is neither string nor bytes. */
export function textOf(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  return JSON.stringify(value, jsonReplacer) ?? 'null';
}

/** The bytes that RESP shows of a value. */
export function toBytes(value: unknown): Buffer {
  if (typeof value === 'string') return Buffer.from(value);
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return Buffer.from(textOf(value));
}

/** How JSON shows what it does not know: big integers as digits, maps as objects, sets as arrays, bytes in base64. */
export function jsonReplacer(this: unknown, key: string, value: unknown): unknown {
  // `toJSON` of a Buffer has been called already.
  const raw = (this as Record<string, unknown>)[key];
  if (raw instanceof Uint8Array) return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('base64');
  if (ArrayBuffer.isView(raw) && !(raw instanceof DataView)) return [...(raw as unknown as Iterable<number | bigint>)].map(Number);
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Map) return Object.fromEntries([...value].map(([name, item]) => [String(name), item as unknown]));
  if (value instanceof Set) return [...(value as Set<unknown>)];
  return value;
}
