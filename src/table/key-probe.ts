/**
 * A key to look for, and how keys are ordered: by their bytes, a shorter key before its continuations.
 *
 * Keys lie as words everywhere (entries, separators, scratch), little endian and padded with zeros to 4 bytes, so they are compared a word
 * at a time; the first words that differ decide, bytes turned round. Equal words leave the lengths to decide.
 */

import { KEY_BYTES_MAX, OPERATION_HEADER_WORDS } from '../base/record.js';
import type { Scratch } from './scratch.js';

const START_BYTES = 256;

export class KeyProbe {
  words: Int32Array;
  bytes: Buffer;
  /** First word of the key in `words`, and its length in bytes. */
  readonly at: number;
  length = 0;

  private constructor(words: Int32Array, bytes: Buffer, at: number) {
    this.words = words;
    this.bytes = bytes;
    this.at = at;
  }

  /** A probe with memory of its own. */
  static own(): KeyProbe {
    const words = new Int32Array(START_BYTES / 4);
    return new KeyProbe(words, Buffer.from(words.buffer), 0);
  }

  /** A probe that is the key in the scratch, whatever it is; its `length` is to be set before each use. */
  static ofScratch(scratch: Scratch): KeyProbe {
    return new KeyProbe(scratch.words, scratch.bytes, OPERATION_HEADER_WORDS);
  }

  /** Copies a key's words. For probes with memory of their own. */
  setWords(words: Int32Array, at: number, length: number): void {
    const count = (length + 3) >>> 2;
    if (count > this.words.length) this.#grow(count);
    const own = this.words;
    for (let i = 0; i < count; i++) own[i] = words[at + i];
    this.length = length;
  }

  set(other: KeyProbe): void {
    this.setWords(other.words, other.at, other.length);
  }

  #grow(count: number): void {
    const words = new Int32Array(Math.min(Math.max(count, this.words.length * 2), (KEY_BYTES_MAX >>> 2) + 1));
    this.words = words;
    this.bytes = Buffer.from(words.buffer);
  }
}

/** A word's bytes as a number that orders as the bytes do. */
export function bytesTurned(word: number): number {
  return ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

/** Orders two keys. @returns less than, equal to, or more than 0 */
export function compareKeys(a: Int32Array, aAt: number, aLength: number, b: Int32Array, bAt: number, bLength: number): number {
  const count = ((aLength < bLength ? aLength : bLength) + 3) >>> 2;
  for (let i = 0; i < count; i++) {
    const x = a[aAt + i];
    const y = b[bAt + i];
    if (x !== y) return bytesTurned(x) < bytesTurned(y) ? -1 : 1;
  }
  return aLength - bLength;
}

/** Number of bytes at the beginning that two keys share. */
export function sharedBytes(a: Int32Array, aAt: number, aLength: number, b: Int32Array, bAt: number, bLength: number): number {
  const length = aLength < bLength ? aLength : bLength;
  const count = length >>> 2;
  let i = 0;
  while (i < count && a[aAt + i] === b[bAt + i]) i++;
  let shared = i * 4;
  if (shared < length) {
    // The lowest byte that differs; where none does, the padding is what is equal.
    const difference = a[aAt + i] ^ b[bAt + i];
    shared += difference === 0 ? 4 : (31 - Math.clz32(difference & -difference)) >>> 3;
  }
  return shared < length ? shared : length;
}
