/**
 * The scratch of one thread: private memory in which an operation is put together before it is
 * copied to the ring and the table, and into which a value is copied before it is decoded.
 *
 * `operation` has the layout of an operation (base/record.ts): two header words, the key, the value.
 * Values up to INLINE_VALUE_BYTES_MAX are encoded right behind the key; longer ones stay where they
 * are and `valueBytes` points to them.
 */

import { EXPIRY_BYTES, KEY_BYTES_MAX, OPERATION_HEADER_WORDS } from '../base/record.js';
import type { Memory } from '../memory/region.js';

export const INLINE_VALUE_BYTES_MAX = 65_536;

/** And room for a moment of expiry while it is put before the value. */
const OPERATION_BYTES = OPERATION_HEADER_WORDS * 4 + KEY_BYTES_MAX + 1 + INLINE_VALUE_BYTES_MAX + EXPIRY_BYTES;

export class Scratch {
  /** The operation under construction. */
  readonly words: Int32Array;
  readonly bytes: Buffer;
  readonly floats: DataView;
  /** What was last copied out of shared memory to be decoded. */
  readonly read: Memory;

  /** Set by the key codec: length in bytes, hash, and ENTRY_FLAG_BINARY_KEY or 0. */
  keyLength = 0;
  keyHash = 0;
  keyFlags = 0;
  /** Set by the value codec. */
  valueType = 0;
  valueLength = 0;
  /** Where the value's bytes are when they are not in `words`. Borrowed until the call returns. */
  valueBytes: Uint8Array | null = null;

  /** Secrets of the key hash: any number, and two odd ones. */
  readonly hashSeed: number;
  readonly secret1: number;
  readonly secret2: number;

  /** @param hasOrderedKeys whether keys that the user gives are encoded in order of their values (ordered-keys.ts) */
  constructor(
    hashSeed: number,
    readonly hasOrderedKeys = false,
  ) {
    this.hashSeed = hashSeed;
    this.secret1 = Math.imul(hashSeed ^ 0x2545_f491, 0x9e37_79b1) | 1;
    this.secret2 = Math.imul(hashSeed ^ 0x6c07_8965, 0x85eb_ca6b) | 1;
    const operation = new ArrayBuffer(OPERATION_BYTES);
    this.words = new Int32Array(operation);
    this.bytes = Buffer.from(operation);
    this.floats = new DataView(operation);
    const read = new ArrayBuffer(INLINE_VALUE_BYTES_MAX);
    this.read = { words: new Int32Array(read), bytes: Buffer.from(read), view: new DataView(read) };
  }
}
