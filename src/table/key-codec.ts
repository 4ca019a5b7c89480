/**
 * Keys: from what the user gives to bytes in the scratch, and their hash.
 *
 * A short ASCII string is packed into words and hashed in one pass, without making bytes first.
 * The hash runs over the key's words (UTF-8 bytes, zero-padded), so a string and a Uint8Array of the
 * same bytes are the same key. It is seeded per open, so that nobody can prepare keys that collide.
 */

import { byteCount, isByteArray } from '../base/byte-array.js';
import { FlashVectorError, describe } from '../base/errors.js';
import { ENTRY_FLAG_BINARY_KEY, ENTRY_FLAG_FOREIGN_KEY, KEY_BYTES_MAX, OPERATION_HEADER_WORDS } from '../base/record.js';
import { decodeOrderedKey, encodeOrderedKey } from './ordered-keys.js';
import type { Scratch } from './scratch.js';

const KEY_WORD = OPERATION_HEADER_WORDS;
const KEY_BYTE = KEY_WORD * 4;
/** Up to here a loop over characters beats a call into the runtime (80 ns for 18 characters). */
const PACKED_CHARACTERS_MAX = 24;
/** Multipliers of the mixing steps of MurmurHash3's finalizer. */
const MIX_1 = 0x85eb_ca6b | 0;
const MIX_2 = 0xc2b2_ae35 | 0;

function finish(hash: number): number {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, MIX_1);
  h ^= h >>> 13;
  h = Math.imul(h, MIX_2);
  return h ^ (h >>> 16);
}

/**
 * One step of the hash. Both multipliers are secret: what a difference in one word becomes, and which
 * difference in the next would undo it, cannot be known beforehand.
 */
function step(hash: number, word: number, secret1: number, secret2: number): number {
  const h = (hash + Math.imul(word, secret1)) | 0;
  return Math.imul((h << 15) | (h >>> 17), secret2);
}

/** Hash of the key that lies in the scratch. */
export function hashWords(scratch: Scratch, keyLength: number): number {
  const { words, secret1, secret2 } = scratch;
  let h = scratch.hashSeed ^ keyLength;
  const end = KEY_WORD + ((keyLength + 3) >>> 2);
  for (let i = KEY_WORD; i < end; i++) h = step(h, words[i], secret1, secret2);
  return finish(h);
}

/** A key that is bytes already, with its flags: what a sublevel makes. */
export class RawKey {
  readonly #bytes: Uint8Array;

  constructor(
    bytes: Uint8Array,
    readonly flags: number,
  ) {
    this.#bytes = bytes;
  }

  /** As `instanceof`, which would ask a proxy. */
  static is(key: unknown): key is RawKey {
    return typeof key === 'object' && key !== null && #bytes in key;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }
}

/**
 * A key that can be put into the scratch without running anything of the user's, as the elements of an array may: to be had before a value is prepared.
 * @throws as `encodeKey`
 */
export function settledKey(scratch: Scratch, key: unknown): unknown {
  if (typeof key === 'string' || !scratch.hasOrderedKeys || RawKey.is(key)) return key;
  return new RawKey(encodeOrderedKey(key), 0);
}

/**
 * Puts a key into the scratch.
 * @param key a string or bytes; where the store's keys are ordered, see ordered-keys.ts
 * @throws TypeError when it is neither a string nor a Uint8Array
 * @throws FlashVectorError FV_KEY when it is empty, too long, or a string with a lone surrogate
 */
export function encodeKey(scratch: Scratch, key: unknown): void {
  if (typeof key !== 'string' || scratch.hasOrderedKeys) {
    encodeOtherKey(scratch, key);
    return;
  }
  const length = key.length;
  if (length <= PACKED_CHARACTERS_MAX && length !== 0) {
    const { words, secret1, secret2 } = scratch;
    let h = scratch.hashSeed ^ length;
    let at = KEY_WORD;
    let i = 0;
    let seen = 0;
    for (; i + 4 <= length; i += 4) {
      const a = key.charCodeAt(i);
      const b = key.charCodeAt(i + 1);
      const c = key.charCodeAt(i + 2);
      const d = key.charCodeAt(i + 3);
      seen |= a | b | c | d;
      const word = a | (b << 8) | (c << 16) | (d << 24);
      words[at++] = word;
      h = step(h, word, secret1, secret2);
    }
    if (i < length) {
      let word = 0;
      for (let shift = 0; i < length; i++, shift += 8) {
        const a = key.charCodeAt(i);
        seen |= a;
        word |= a << shift;
      }
      words[at] = word;
      h = step(h, word, secret1, secret2);
    }
    if (seen < 0x80) {
      scratch.keyLength = length;
      scratch.keyFlags = 0;
      scratch.keyHash = finish(h);
      return;
    }
  }
  encodeLongKey(scratch, key);
}

function encodeLongKey(scratch: Scratch, key: string): void {
  if (key.length === 0) throw new FlashVectorError('FV_KEY', 'a key has at least 1 byte; this one is the empty string');
  const length = key.length > KEY_BYTES_MAX ? Buffer.byteLength(key) : scratch.bytes.utf8Write(key, KEY_BYTE, KEY_BYTES_MAX + 1);
  if (length > KEY_BYTES_MAX || (length > KEY_BYTES_MAX - 3 && Buffer.byteLength(key) > KEY_BYTES_MAX)) {
    throw new FlashVectorError(
      'FV_KEY',
      `a key has at most ${KEY_BYTES_MAX} bytes; this one has ${Buffer.byteLength(key)}: ${describe(key)}`,
    );
  }
  if (length !== key.length && !isWellFormed(key)) {
    throw new FlashVectorError(
      'FV_KEY',
      `a key that is a string must be well-formed Unicode; this one has a lone surrogate: ${describe(key)}`,
    );
  }
  finishKey(scratch, length, 0);
}

function isWellFormed(key: string): boolean {
  return (key as string & { isWellFormed(): boolean }).isWellFormed();
}

function encodeOtherKey(scratch: Scratch, key: unknown): void {
  if (RawKey.is(key)) encodeBytes(scratch, key.bytes, key.flags);
  else if (scratch.hasOrderedKeys) encodeBytes(scratch, encodeOrderedKey(key), 0);
  else if (isByteArray(key)) encodeBytes(scratch, key, ENTRY_FLAG_BINARY_KEY);
  else throw new TypeError(`a key must be a string or a Uint8Array, not ${describe(key)}`);
}

function encodeBytes(scratch: Scratch, key: Uint8Array, flags: number): void {
  const length = byteCount(key);
  if (length === 0) throw new FlashVectorError('FV_KEY', 'a key has at least 1 byte; this one is an empty Uint8Array');
  if (length > KEY_BYTES_MAX) throw new FlashVectorError('FV_KEY', `a key has at most ${KEY_BYTES_MAX} bytes; this one has ${length}`);
  scratch.bytes.set(key, KEY_BYTE);
  finishKey(scratch, length, flags);
}

function finishKey(scratch: Scratch, length: number, flags: number): void {
  scratch.bytes.fill(0, KEY_BYTE + length, (KEY_BYTE + length + 3) & ~3);
  scratch.keyLength = length;
  scratch.keyFlags = flags;
  scratch.keyHash = hashWords(scratch, length);
}

/** A key of the given bytes, as the user sees it. The bytes are copied. @param isOrdered whether the store's keys are in the encoding `ordered` */
export function decodeKey(bytes: Buffer, start: number, end: number, flags: number, isOrdered: boolean): string | Uint8Array {
  const isForeign = (flags & ENTRY_FLAG_FOREIGN_KEY) !== 0;
  // Typed as what keys are without that encoding; `open` and `attach` say otherwise where it is used.
  if (isOrdered && !isForeign) return decodeOrderedKey(bytes.subarray(start, end)) as string;
  if ((flags & ENTRY_FLAG_BINARY_KEY) === 0 && !isForeign) return bytes.utf8Slice(start, end);
  return Uint8Array.prototype.slice.call(new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start));
}
