/**
 * A batch under construction: its operations, encoded one behind the other as they will lie in the
 * record, in private memory that grows.
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
import { addExpiry } from '../table/expiry.js';
import { encodeKey } from '../table/key-codec.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from '../table/scratch.js';
import { WORD_COPY_MAX } from '../table/shard-reader.js';
import type { Core } from './core.js';

const START_BYTES = 4096;
/** A batch that has grown past this lets its memory go when it is used again: growing to a megabyte takes a millisecond, of new memory most of it. */
const KEPT_BYTES_MAX = 4 * 1024 * 1024;
/** The same for batches that are not needed most of the time. */
const TRIMMED_BYTES_MAX = 65_536;
const NO_WORDS = new Int32Array(0);
const NO_BYTES = Buffer.alloc(0);

export class EncodedBatch {
  words: Int32Array = NO_WORDS;
  bytes: Buffer = NO_BYTES;
  /** Words used. */
  length = 0;
  /** First word and key hash of each operation. */
  readonly starts: number[] = [];
  readonly hashes: number[] = [];
  /** Length of the longest key. */
  keyBytesMax = 0;

  /** Makes it empty, to be filled again with the memory that it has. */
  reset(): void {
    this.length = 0;
    this.keyBytesMax = 0;
    this.starts.length = 0;
    this.hashes.length = 0;
    this.#limit(KEPT_BYTES_MAX);
  }

  /** Lets go of its memory where it is much; it is empty. */
  trim(): void {
    this.#limit(TRIMMED_BYTES_MAX);
  }

  #limit(bytes: number): void {
    if (this.bytes.length <= bytes) return;
    this.words = NO_WORDS;
    this.bytes = NO_BYTES;
  }

  get count(): number {
    return this.starts.length;
  }

  /** @param expiresMs in ms since 1970, or 0 @throws TypeError, FlashVectorError FV_KEY, FV_VALUE */
  put(core: Core, key: unknown, value: unknown, expiresMs: number): void {
    core.codec.prepare(value);
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
    this.starts.push(at);
    this.hashes.push(scratch.keyHash);
    if (scratch.keyLength > this.keyBytesMax) this.keyBytesMax = scratch.keyLength;
    this.length = at + count;
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
    return ((index + 1 < this.starts.length ? this.starts[index + 1] : this.length) - this.starts[index]) * 4;
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

  /** Puts an operation into the scratch, as if it had just been encoded there. */
  load(index: number, scratch: Scratch): void {
    this.loadKey(index, scratch);
    this.loadValue(index, scratch);
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
