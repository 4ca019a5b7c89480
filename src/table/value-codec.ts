/**
 * Values: from what the user gives to tagged bytes, and back.
 *
 * Strings, byte arrays, numbers and constants have types of their own and skip msgpack. All else is
 * msgpackr with record structures that every thread of the store shares (structures.ts); the common case,
 * plain objects and arrays of known structure, is done without it, to the same bytes (object-encoder.ts,
 * object-decoder.ts).
 *
 * msgpackr only ever sees private memory: the scratch to decode from, a buffer of its own to encode into. So does our encoder; our decoder reads
 * from a region, too, where all strings are ASCII (`decodeInPlace`).
 */

import { Packr, REUSE_BUFFER_MODE, RESET_BUFFER_MODE } from 'msgpackr/pack';
import { byteCount, isByteArray, plainView } from '../base/byte-array.js';
import { FlashVectorError, describe } from '../base/errors.js';
import { OPERATION_HEADER_WORDS, VALUE_BYTES_MAX, wordsOf } from '../base/record.js';
import type { Memory } from '../memory/region.js';
import * as E from './entry.js';
import { findIllFormed, maybeIllFormed } from './ill-formed.js';
import { ObjectDecoder, UNKNOWN } from './object-decoder.js';
import { ObjectEncoder } from './object-encoder.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';
import type { StructureStore } from './structures.js';

/** What msgpackr's REUSE_BUFFER_MODE returns: its whole buffer, with the bounds of the encoded value. */
interface PackedBuffer extends Buffer {
  start: number;
  end: number;
}

/** Beside options, `unpack` takes the value's length: no object a call. Its types leave that out. */
interface LengthUnpackr {
  unpack(bytes: Buffer, length: number): unknown;
}

const REUSE = REUSE_BUFFER_MODE | RESET_BUFFER_MODE;
/** Up to here a loop over words beats `Buffer.copy`. */
const WORD_COPY_BYTES_MAX = 256;
/** Past this msgpackr's buffer is given back after the call, so that one large value does not stay. */
const PACK_BUFFER_BYTES_MAX = 1024 * 1024;

export class ValueCodec {
  readonly #packr: Packr;
  readonly #encoder: ObjectEncoder;
  readonly #decoder: ObjectDecoder;
  #packed: Buffer = Buffer.alloc(0);
  /** msgpackr's own buffer, as last seen, and a view of its words. */
  #target: Buffer | undefined;
  #targetWords: Int32Array = new Int32Array(0);
  /** Packs under way: more than one while a getter of a value writes. */
  #depth = 0;
  #packedStart = 0;
  #packedEnd = 0;
  #packedType = E.TYPE_MSGPACK;
  /** Whether the value prepared last is packed; of a byte array, which is not, only the type is noted. Set behind the value's getters, which may prepare others. */
  #isPacked = false;
  /** Structures were loaded since this was last taken back. */
  #hasLoaded = false;

  constructor(
    readonly scratch: Scratch,
    structures: StructureStore,
  ) {
    this.#encoder = new ObjectEncoder(structures);
    this.#decoder = new ObjectDecoder(scratch.read, structures);
    this.#packr = new Packr({
      copyBuffers: true,
      moreTypes: true,
      mapsAsObjects: false,
      useBigIntExtension: true,
      variableMapSize: true,
      maxSharedStructures: structures.countMax,
      getStructures: () => {
        this.#hasLoaded = true;
        return structures.load();
      },
      saveStructures: (all: unknown, isCompatible: (known: unknown) => boolean) => structures.save(all as string[][], isCompatible),
      shouldShareStructure: (keys: string[]) => structures.shouldShare(keys),
      writeFunction: (value: unknown) => {
        throw new FlashVectorError('FV_VALUE', `a value cannot hold ${describe(value)}`);
      },
    } as ConstructorParameters<typeof Packr>[0]);
  }

  /**
   * First step of encoding: packs what needs msgpack, outside the scratch. Getters of
   * the value may run here, and may use the store; so the key is put into the scratch after this, and nothing of the user's may run between this and `place`.
   * @throws FlashVectorError FV_VALUE for `undefined`, functions, symbols, cycles, and what is too large
   */
  prepare(value: unknown): void {
    // Small, so that it is inlined where values are strings and numbers.
    if (typeof value !== 'string' && typeof value !== 'number') this.#prepareOther(value);
  }

  #prepareOther(value: unknown): void {
    if (typeof value === 'boolean' || value === null) return;
    if (isByteArray(value)) {
      this.#packedType = Buffer.isBuffer(value) ? E.TYPE_BUFFER : E.TYPE_UINT8_ARRAY;
      this.#isPacked = false;
      return;
    }
    if (typeof value === 'object') {
      const length = this.#encoder.encode(value);
      if (length !== 0) {
        this.#packed = this.#encoder.bytes;
        this.#packedStart = 0;
        this.#packedEnd = length;
        this.#packedType = this.#encoder.isAscii ? E.TYPE_ASCII_MSGPACK : E.TYPE_MSGPACK;
        this.#isPacked = true;
        return;
      }
    }
    if (isUnstorable(value)) throw new FlashVectorError('FV_VALUE', `a value cannot be ${describe(value)}`);
    if (value === undefined) throw new FlashVectorError('FV_VALUE', 'a value cannot be undefined; use del to remove a key, or null');
    if (typeof value === 'function' || typeof value === 'symbol')
      throw new FlashVectorError('FV_VALUE', `a value cannot be ${describe(value)}`);
    this.#depth++;
    try {
      const buffer = this.#packr.pack(value, REUSE) as PackedBuffer;
      let packed: Buffer = buffer;
      // A pack that has saved a new structure returns a view of just the value instead of the whole buffer.
      let start = buffer.start ?? 0;
      let end = buffer.end ?? buffer.length;
      const bytes = buffer.subarray(start, end);
      if (maybeIllFormed(bytes)) {
        // To look closer is to run the value's getters once more, and what they write is packed into the same memory.
        packed = Buffer.from(bytes);
        start = 0;
        end = packed.length;
        refuseIllFormed(value);
      }
      this.#packed = packed;
      this.#packedStart = start;
      this.#packedEnd = end;
      this.#packedType = E.TYPE_MSGPACK;
      this.#isPacked = true;
    } catch (error) {
      throw packError(error, value);
    } finally {
      this.#depth--;
    }
    if (this.#packedEnd - this.#packedStart > VALUE_BYTES_MAX) throw tooLarge(this.#packedEnd - this.#packedStart);
  }

  /**
   * Second step: puts the prepared value into the scratch, behind the key that is there.
   * @throws FlashVectorError FV_VALUE for what is too large
   */
  place(value: unknown): void {
    this.scratch.valueBytes = null;
    if (typeof value === 'string') this.#encodeString(value);
    else if (typeof value === 'number') this.#encodeNumber(value);
    else if (value === null) this.#encodeConstant(E.TYPE_NULL);
    else if (value === true) this.#encodeConstant(E.TYPE_TRUE);
    else if (value === false) this.#encodeConstant(E.TYPE_FALSE);
    else if (this.#isPacked) this.#placePacked();
    else this.#encodeBytes(value as Uint8Array, this.#packedType);
  }

  #at(): number {
    return OPERATION_HEADER_WORDS + wordsOf(this.scratch.keyLength);
  }

  #encodeConstant(type: number): void {
    this.scratch.valueType = type;
    this.scratch.valueLength = 0;
  }

  #encodeNumber(value: number): void {
    const scratch = this.scratch;
    const at = this.#at();
    if ((value | 0) === value && !Object.is(value, -0)) {
      scratch.valueType = E.TYPE_INT32;
      scratch.valueLength = 4;
      scratch.words[at] = value;
    } else {
      scratch.valueType = E.TYPE_FLOAT64;
      scratch.valueLength = 8;
      scratch.floats.setFloat64(at * 4, value, true);
    }
  }

  #encodeString(value: string): void {
    const scratch = this.scratch;
    const characters = value.length;
    const at = this.#at();
    if (characters * 3 <= INLINE_VALUE_BYTES_MAX) {
      const start = at * 4;
      const length = scratch.bytes.utf8Write(value, start, INLINE_VALUE_BYTES_MAX);
      if (length === characters || isWellFormed(value)) {
        scratch.valueType = length === characters ? E.TYPE_ASCII : E.TYPE_UTF8;
        scratch.valueLength = length;
        const end = start + length;
        if ((end & 3) !== 0) scratch.bytes.fill(0, end, (end + 3) & ~3);
        return;
      }
    }
    const encoding = isWellFormed(value) ? 'utf8' : 'utf16le';
    if (Buffer.byteLength(value, encoding) > VALUE_BYTES_MAX) throw tooLarge(Buffer.byteLength(value, encoding));
    const bytes = Buffer.from(value, encoding);
    this.#encodeBytes(bytes, encoding === 'utf16le' ? E.TYPE_UTF16 : bytes.length === characters ? E.TYPE_ASCII : E.TYPE_UTF8);
  }

  #encodeBytes(value: Uint8Array, type: number): void {
    const scratch = this.scratch;
    const length = byteCount(value);
    if (length > VALUE_BYTES_MAX) throw tooLarge(length);
    scratch.valueType = type;
    scratch.valueLength = length;
    if (length > INLINE_VALUE_BYTES_MAX) {
      scratch.valueBytes = plainView(value, length);
      return;
    }
    const start = this.#at() * 4;
    scratch.bytes.set(value, start);
    if (byteCount(value) !== length) throw new FlashVectorError('FV_VALUE', 'a byte array grew while it was being encoded');
    const end = start + length;
    if ((end & 3) !== 0) scratch.bytes.fill(0, end, (end + 3) & ~3);
  }

  #placePacked(): void {
    const scratch = this.scratch;
    const packed = this.#packed;
    const from = this.#packedStart;
    const length = this.#packedEnd - from;
    scratch.valueType = this.#packedType;
    scratch.valueLength = length;
    if (length > INLINE_VALUE_BYTES_MAX) {
      scratch.valueBytes = packed.subarray(from, from + length);
      // Not while a getter's write is inside another pack: that one is still filling the buffer.
      if (packed.length > PACK_BUFFER_BYTES_MAX && this.#depth === 0) this.#packr.useBuffer(Buffer.allocUnsafeSlow(8192));
      return;
    }
    const at = this.#at();
    const isOurs = packed === this.#encoder.bytes;
    if (length <= WORD_COPY_BYTES_MAX && (isOurs || packed === this.#target)) {
      // msgpackr starts every value at a multiple of 8.
      const source = isOurs ? this.#encoder.words : this.#targetWords;
      const first = from >>> 2;
      const count = wordsOf(length);
      const words = scratch.words;
      for (let i = 0; i < count; i++) words[at + i] = source[first + i];
      if ((length & 3) !== 0) words[at + count - 1] &= (1 << ((length & 3) * 8)) - 1;
      return;
    }
    scratch.words[at + (length >>> 2)] = 0;
    packed.copy(scratch.bytes, at * 4, from, from + length);
    if (!isOurs && packed.byteOffset === 0 && packed.buffer.byteLength === packed.length) {
      this.#target = packed;
      this.#targetWords = new Int32Array(packed.buffer, 0, packed.length >>> 2);
    }
  }

  /**
   * Decodes msgpack of TYPE_ASCII_MSGPACK where it lies, in a region: of use only if the shard's version is the same afterwards.
   * @param from word at which it begins; all `length` bytes are in the region
   * @returns the value, or UNKNOWN when it has to be copied out and decoded by `decodeMsgpack`
   */
  decodeInPlace(region: Memory, from: number, length: number): unknown {
    return this.#decoder.decode(region, from, length, true);
  }

  /** Decodes msgpack. `bytes` is private memory, with the value at its start. */
  decodeMsgpack(bytes: Buffer, length: number, isAscii: boolean): unknown {
    const { read } = this.scratch;
    if (bytes === read.bytes) {
      const value = this.#decoder.decode(read, 0, length, isAscii);
      if (value !== UNKNOWN) return value;
    }
    const packr = this.#packr as LengthUnpackr;
    this.#hasLoaded = false;
    const value = packr.unpack(bytes, length);
    // Once it has loaded structures msgpackr goes on with a copy of the bytes that is no Buffer, and so are none of those in the value.
    return this.#hasLoaded ? packr.unpack(bytes, length) : value;
  }
}

function isWellFormed(value: string): boolean {
  return (value as string & { isWellFormed(): boolean }).isWellFormed();
}

/** Objects that msgpackr would store as `{}`. Plain objects and arrays, nearly all values, are told apart first. */
function isUnstorable(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || value.constructor === Object || Array.isArray(value)) return false;
  return (
    value instanceof Promise ||
    value instanceof WeakMap ||
    value instanceof WeakSet ||
    value instanceof WeakRef ||
    value instanceof SharedArrayBuffer
  );
}

function refuseIllFormed(value: unknown): void {
  const text = findIllFormed(value);
  if (text === undefined) return;
  throw new FlashVectorError(
    'FV_VALUE',
    `a string inside a value must be well-formed Unicode; this one has a lone surrogate: ${describe(text)}`,
  );
}

function tooLarge(length: number): FlashVectorError {
  return new FlashVectorError('FV_VALUE', `a value has at most ${VALUE_BYTES_MAX} bytes; this one has ${length}`);
}

function packError(error: unknown, value: unknown): Error {
  if (error instanceof FlashVectorError) return error;
  if (error instanceof RangeError && error.message.includes('call stack')) {
    return new FlashVectorError('FV_VALUE', `a value cannot hold itself or be nested this deep: ${describe(value)}`, { cause: error });
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new FlashVectorError('FV_VALUE', `${describe(value)} cannot be encoded: ${reason}`, { cause: error });
}
