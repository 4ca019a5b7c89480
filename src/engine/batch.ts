/**
 * A batch under construction: its operations, encoded one behind the other as they will lie in the
 * record, in private memory that grows; and found again by their keys.
 */

import { FlashVectorError } from '../base/errors.js';
import {
  ENTRY_FLAGS_MASK,
  ENTRY_FLAGS_SHIFT,
  KEY_LENGTH_MASK,
  OPERATION_DELETE,
  OPERATION_HEADER_WORDS,
  OPERATION_PUT,
  OPERATION_SHIFT,
  RECORD_BYTES_MAX,
  RECORD_HEADER_BYTES,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
  operationWords,
  wordsOf,
} from '../base/record.js';
import { ENTRY_HEADER_BYTES, IN_PLACE_BYTES_MAX } from '../table/entry.js';
import { addExpiry } from '../table/expiry.js';
import type { HashTable } from '../table/hash-table.js';
import { encodeKey, settledKey } from '../table/key-codec.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from '../table/scratch.js';
import { WORD_COPY_MAX } from '../table/entry-reader.js';
import type { Core } from './core.js';

const START_BYTES = 4096;
/** A batch that has grown past this lets its memory go when it is used again: growing to a megabyte takes a millisecond, of new memory most of it. */
const KEPT_BYTES_MAX = 4 * 1024 * 1024;
/** The same for batches that are not needed most of the time. */
const TRIMMED_BYTES_MAX = 65_536;
const NO_WORDS = new Int32Array(0);
const NO_BYTES = Buffer.alloc(0);
const START_OPERATIONS = 16;
/** Places for keys that are cleared for the next batch; where there are more they are made anew, so that a small batch does not pay for a large one. */
const CLEARED_PLACES_MAX = 1024;

export class EncodedBatch {
  words: Int32Array = NO_WORDS;
  bytes: Buffer = NO_BYTES;
  /** Words used. */
  length = 0;
  /** Operations. */
  count = 0;
  /** First word and key hash of each operation; longer than there are operations. */
  starts = new Int32Array(START_OPERATIONS);
  hashes = new Int32Array(START_OPERATIONS);
  /** Length of the longest key. */
  keyBytesMax = 0;
  /** Whether all operations are puts of entries that may be overwritten where they are. */
  hasOnlyShortPuts = true;
  /** The last operation of each key, its index and 1, by the hash of the key, in the next free place where that is taken; at least half is 0. */
  #byKey = NO_WORDS;
  /** Operations that are in `#byKey`. */
  #found = 0;

  /** Makes it empty, to be filled again with the memory that it has. */
  reset(): void {
    this.length = 0;
    this.count = 0;
    this.keyBytesMax = 0;
    this.hasOnlyShortPuts = true;
    if (this.#byKey.length > CLEARED_PLACES_MAX) this.#byKey = NO_WORDS;
    else if (this.#found !== 0) this.#byKey.fill(0);
    this.#found = 0;
    this.#limit(KEPT_BYTES_MAX);
  }

  /** Lets go of its memory where it is much; it is empty. */
  trim(): void {
    this.#limit(TRIMMED_BYTES_MAX);
  }

  #limit(bytes: number): void {
    // Of short operations their places and hashes count, too.
    if (this.bytes.length <= bytes && this.starts.length * 16 <= bytes) return;
    this.words = NO_WORDS;
    this.bytes = NO_BYTES;
    this.starts = new Int32Array(START_OPERATIONS);
    this.hashes = new Int32Array(START_OPERATIONS);
    this.#byKey = NO_WORDS;
  }

  /** @param expiresMs in ms since 1970, or 0 @throws TypeError, FlashVectorError FV_KEY, FV_VALUE */
  put(core: Core, key: unknown, value: unknown, expiresMs: number): void {
    const settled = settledKey(core.scratch, key);
    core.codec.prepare(value);
    this.putPrepared(core, settled, value, expiresMs);
  }

  /** The same for a value that has been prepared just now. @param key a settled one */
  putPrepared(core: Core, key: unknown, value: unknown, expiresMs: number): void {
    encodeKey(core.scratch, key);
    core.codec.place(value);
    addExpiry(core.scratch, expiresMs);
    this.#append(core.scratch, OPERATION_PUT);
  }

  del(core: Core, key: unknown): void {
    core.encodeDelete(key);
    this.#append(core.scratch, OPERATION_DELETE);
  }

  /** Adds the deletion of the key that is in the scratch. */
  delEncoded({ scratch }: Core): void {
    scratch.valueType = 0;
    scratch.valueLength = 0;
    scratch.valueBytes = null;
    this.#append(scratch, OPERATION_DELETE);
  }

  #append(scratch: Scratch, type: number): void {
    const count = operationWords(scratch.keyLength, scratch.valueLength);
    const at = this.length;
    if ((at + count) * 4 + RECORD_HEADER_BYTES > RECORD_BYTES_MAX) {
      throw new FlashVectorError('FV_VALUE', `a batch has at most ${RECORD_BYTES_MAX} bytes; operation ${this.count} takes it past that`);
    }
    if (at + count > this.words.length) this.#grow((at + count) * 4);
    scratch.words[0] =
      scratch.keyLength | (scratch.valueType << VALUE_TYPE_SHIFT) | (scratch.keyFlags << ENTRY_FLAGS_SHIFT) | (type << OPERATION_SHIFT);
    scratch.words[1] = scratch.valueLength;
    const external = scratch.valueBytes;
    if (external === null && count <= WORD_COPY_MAX) {
      const { words } = this;
      const from = scratch.words;
      for (let i = 0; i < count; i++) words[at + i] = from[i];
    } else if (external === null) {
      scratch.bytes.copy(this.bytes, at * 4, 0, count * 4);
    } else {
      const value = (at + OPERATION_HEADER_WORDS + wordsOf(scratch.keyLength)) * 4;
      this.words[at + count - 1] = 0;
      scratch.bytes.copy(this.bytes, at * 4, 0, value - at * 4);
      this.bytes.set(external, value);
    }
    const index = this.count;
    if (index === this.starts.length) this.#growOperations();
    this.starts[index] = at;
    this.hashes[index] = scratch.keyHash;
    this.count = index + 1;
    if (scratch.keyLength > this.keyBytesMax) this.keyBytesMax = scratch.keyLength;
    if (type !== OPERATION_PUT || count * 4 + ENTRY_HEADER_BYTES > IN_PLACE_BYTES_MAX) this.hasOnlyShortPuts = false;
    this.length = at + count;
  }

  #growOperations(): void {
    const starts = new Int32Array(this.starts.length * 2);
    starts.set(this.starts);
    this.starts = starts;
    const hashes = new Int32Array(this.hashes.length * 2);
    hashes.set(this.hashes);
    this.hashes = hashes;
  }

  #grow(bytes: number): void {
    const buffer = new ArrayBuffer(Math.max(START_BYTES, bytes, Math.min(this.bytes.length * 2, RECORD_BYTES_MAX)));
    const grown = Buffer.from(buffer);
    this.bytes.copy(grown, 0, 0, this.length * 4);
    this.words = new Int32Array(buffer, 0, buffer.byteLength >>> 2);
    this.bytes = grown;
  }

  typeOf(index: number): number {
    return this.words[this.starts[index]] >>> OPERATION_SHIFT;
  }

  /** Bytes of an operation: its header, key and value. */
  bytesOf(index: number): number {
    return ((index + 1 < this.count ? this.starts[index + 1] : this.length) - this.starts[index]) * 4;
  }

  /** The last operation on the key in the scratch, or -1. */
  find({ keyHash, keyLength, words }: Scratch): number {
    if (this.count === 0) return -1;
    if (this.#found !== this.count) this.#findRest();
    return this.#byKey[this.#placeOf(keyHash, keyLength, words, OPERATION_HEADER_WORDS)] - 1;
  }

  /** The last operation of each key, in the order in which they were added. */
  latest(): Int32Array {
    if (this.#found !== this.count) this.#findRest();
    return this.#byKey
      .filter((place) => place !== 0)
      .sort()
      .map((place) => place - 1);
  }

  #findRest(): void {
    if (this.count * 2 > this.#byKey.length) {
      let size = START_OPERATIONS * 2;
      while (size < this.count * 2) size *= 2;
      this.#byKey = new Int32Array(size);
      this.#found = 0;
    }
    const { words, starts, hashes } = this;
    for (; this.#found < this.count; this.#found++) {
      const at = starts[this.#found];
      const place = this.#placeOf(hashes[this.#found], words[at] & KEY_LENGTH_MASK, words, at + OPERATION_HEADER_WORDS);
      this.#byKey[place] = this.#found + 1;
    }
  }

  /** Place in `#byKey` of the last operation on the key at word `key` of `words`, or a free one. */
  #placeOf(hash: number, keyLength: number, words: Int32Array, key: number): number {
    const byKey = this.#byKey;
    const mask = byKey.length - 1;
    let place = hash & mask;
    while (byKey[place] !== 0 && !this.#hasKey(byKey[place] - 1, hash, keyLength, words, key)) place = (place + 1) & mask;
    return place;
  }

  #hasKey(index: number, hash: number, keyLength: number, words: Int32Array, key: number): boolean {
    const at = this.starts[index];
    const own = this.words;
    if (this.hashes[index] !== hash || (own[at] & KEY_LENGTH_MASK) !== keyLength) return false;
    for (let i = wordsOf(keyLength) - 1; i >= 0; i--) if (own[at + OPERATION_HEADER_WORDS + i] !== words[key + i]) return false;
    return true;
  }

  /** Bytes of the entry that a put makes. */
  entryBytesOf(index: number): number {
    return this.bytesOf(index) - OPERATION_HEADER_WORDS * 4 + ENTRY_HEADER_BYTES;
  }

  /** Puts the key of an operation into the scratch, and what kind of value it has and how long that is. */
  loadKey(index: number, scratch: Scratch): void {
    const at = this.starts[index];
    const meta = this.words[at];
    scratch.keyLength = meta & KEY_LENGTH_MASK;
    scratch.keyHash = this.hashes[index];
    scratch.keyFlags = (meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    scratch.valueType = (meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK;
    scratch.valueLength = this.words[at + 1];
    scratch.valueBytes = null;
    this.#copy(at, scratch, 0, OPERATION_HEADER_WORDS + wordsOf(scratch.keyLength));
  }

  /** Puts the value of an operation behind its key, which `loadKey` has just put into the scratch. A long one stays where it is. */
  loadValue(index: number, scratch: Scratch): void {
    const at = this.starts[index];
    const value = OPERATION_HEADER_WORDS + wordsOf(scratch.keyLength);
    if (scratch.valueLength <= INLINE_VALUE_BYTES_MAX) this.#copy(at, scratch, value, value + wordsOf(scratch.valueLength));
    else scratch.valueBytes = this.bytes.subarray((at + value) * 4, (at + value) * 4 + scratch.valueLength);
  }

  /** Looks up the key of an operation; see `HashTable.locate`. */
  locate(index: number, table: HashTable): number {
    const at = this.starts[index];
    return table.locateKey(this.hashes[index], this.words[at] & KEY_LENGTH_MASK, this.words, at + OPERATION_HEADER_WORDS);
  }

  /** Copies words `from` to `to` of the operation at `at` to the same place in the scratch. */
  #copy(at: number, scratch: Scratch, from: number, to: number): void {
    if (to - from > WORD_COPY_MAX) {
      this.bytes.copy(scratch.bytes, from * 4, (at + from) * 4, (at + to) * 4);
      return;
    }
    const { words } = this;
    const into = scratch.words;
    for (let i = from; i < to; i++) into[i] = words[at + i];
  }
}
