/**
 * The fast way back for values that begin with a shared structure or an array: decodes what
 * object-encoder.ts and msgpackr write, for each structure with a function of its own that makes the object in one
 * literal, and with one call into the runtime for all short strings of a value together. What it
 * does not know it leaves to msgpackr.
 *
 * The strings of a value of up to SHARED_TEXT_BYTES_MAX share their characters, and so do those of longer values that are no less than a SHARED_PART of it:
 * who keeps one of them keeps the value's bytes alive, which are that many or at most sixteen times what it has asked for.
 */

import type { Scratch } from './scratch.js';
import type { StructureStore } from './structures.js';

const SHARED_TEXT_BYTES_MAX = 256;
/** The same for long strings of long values: ten of 100 characters take 145 ns together, 435 ns each by itself. */
const LONG_TEXT_BYTES_MAX = 4096;
const SHARED_PART = 16;
const HIGH_BITS = 0x8080_8080 | 0;
/** Up to here looking at every byte beats leaving it to the runtime. */
const LOOP_BYTES_MAX = 48;
const FIRST_STRUCTURE = 0x40;
const STRUCTURES_MAX = 0x20;

/** The value is not one for this decoder. */
export const UNKNOWN = Symbol('unknown');

type ReadObject = () => unknown;

/** What a compiled reader needs of its decoder. */
interface Reader {
  next(): unknown;
}

/** @returns `undefined` where code must not be made from strings, or the structure needs msgpackr */
function compile(reader: Reader, names: readonly string[]): ReadObject | undefined {
  // In a literal this name would set the prototype.
  if (names.includes('__proto__')) return undefined;
  const fields = names.map((name) => `${JSON.stringify(name)}: reader.next()`).join(', ');
  try {
    // eslint-disable-next-line no-implied-eval, no-new-func -- names are quoted as JSON; a literal is what makes it fast
    return new Function('reader', `return () => ({ ${fields} })`)(reader) as ReadObject;
  } catch {
    return undefined;
  }
}

export class ObjectDecoder {
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #readers: (ReadObject | undefined)[] = [];
  #at = 0;
  #length = 0;
  #failed = false;
  /** All bytes of the value as Latin-1, once a string has asked for it. */
  #text = '';

  constructor(
    scratch: Scratch,
    readonly structures: StructureStore,
  ) {
    this.#bytes = scratch.readBytes;
    this.#words = scratch.readWords;
    this.#view = new DataView(scratch.readWords.buffer);
  }

  /** Decodes the `length` bytes at the start of the scratch's read buffer. @returns the value, or UNKNOWN */
  decode(length: number): unknown {
    const tag = this.#bytes[0];
    if (tag < FIRST_STRUCTURE || (tag >= FIRST_STRUCTURE + STRUCTURES_MAX && (tag & 0xf0) !== 0x90 && tag !== 0xdc)) return UNKNOWN;
    this.#at = 0;
    this.#length = length;
    this.#failed = false;
    this.#text = '';
    const value = this.next();
    return this.#failed || this.#at !== length ? UNKNOWN : value;
  }

  /** The value at the current place. Called by compiled readers. */
  next(): unknown {
    const bytes = this.#bytes;
    const tag = bytes[this.#at++];
    if (tag < 0x80) return tag < FIRST_STRUCTURE ? tag : this.#object(tag - FIRST_STRUCTURE);
    if (tag >= 0xe0) return tag - 0x100;
    if (tag >= 0xa0 && tag < 0xc0) return this.#string(tag & 0x1f);
    if (tag < 0xa0) return tag >= 0x90 ? this.#array(tag & 0xf) : this.#fail();
    const at = this.#at;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xcb:
        this.#at = at + 8;
        return this.#view.getFloat64(at);
      case 0xcc:
        this.#at = at + 1;
        return bytes[at];
      case 0xcd:
        this.#at = at + 2;
        return (bytes[at] << 8) | bytes[at + 1];
      case 0xce:
        this.#at = at + 4;
        return this.#view.getUint32(at);
      case 0xd0:
        this.#at = at + 1;
        return this.#view.getInt8(at);
      case 0xd1:
        this.#at = at + 2;
        return this.#view.getInt16(at);
      case 0xd2:
        this.#at = at + 4;
        return this.#view.getInt32(at);
      case 0xd4:
        this.#at = at + 2;
        return bytes[at] === 0 && bytes[at + 1] === 0 ? undefined : this.#fail();
      case 0xd9:
        this.#at = at + 1;
        return this.#string(bytes[at]);
      case 0xda:
        this.#at = at + 2;
        return this.#string((bytes[at] << 8) | bytes[at + 1]);
      case 0xdc:
        this.#at = at + 2;
        return this.#array((bytes[at] << 8) | bytes[at + 1]);
      default:
        return this.#fail();
    }
  }

  #fail(): undefined {
    this.#failed = true;
    // What is left to read is no more than has been read: nothing goes on from a place that is wrong.
    this.#at = this.#length;
    return undefined;
  }

  #object(number: number): unknown {
    const read = number < this.#readers.length ? this.#readers[number] : this.#learn(number);
    return read === undefined || this.#at > this.#length ? this.#fail() : read();
  }

  #learn(number: number): ReadObject | undefined {
    const all = this.structures.load();
    if (number >= all.length) return undefined;
    for (let i = this.#readers.length; i < all.length; i++) this.#readers.push(compile(this, all[i]));
    return this.#readers[number];
  }

  #array(length: number): unknown {
    if (length > this.#length - this.#at) return this.#fail();
    const array: unknown[] = [];
    for (let i = 0; i < length; i++) array.push(this.next());
    return array;
  }

  #string(length: number): unknown {
    const bytes = this.#bytes;
    const start = this.#at;
    const end = start + length;
    if (end > this.#length) return this.#fail();
    this.#at = end;
    if (length > LOOP_BYTES_MAX) {
      const shares = this.#length <= LONG_TEXT_BYTES_MAX && length * SHARED_PART >= this.#length;
      return shares && this.#isAscii(start, end) ? this.#slice(start, end) : bytes.utf8Slice(start, end);
    }
    let seen = 0;
    for (let i = start; i < end; i++) seen |= bytes[i];
    if (seen >= 0x80) return bytes.utf8Slice(start, end);
    if (this.#length > SHARED_TEXT_BYTES_MAX) return bytes.latin1Slice(start, end);
    return this.#slice(start, end);
  }

  #slice(start: number, end: number): string {
    if (this.#text === '') this.#text = this.#bytes.latin1Slice(0, this.#length);
    return this.#text.slice(start, end);
  }

  /** By words: the first and the last may hold bytes that do not belong, and are looked at by bytes. */
  #isAscii(start: number, end: number): boolean {
    const bytes = this.#bytes;
    const words = this.#words;
    const first = (start + 3) >>> 2;
    const last = end >>> 2;
    let seen = 0;
    let at = first;
    for (; at + 4 <= last; at += 4) seen |= words[at] | words[at + 1] | words[at + 2] | words[at + 3];
    for (; at < last; at++) seen |= words[at];
    let rest = 0;
    for (let i = start; i < first * 4; i++) rest |= bytes[i];
    for (let i = last * 4; i < end; i++) rest |= bytes[i];
    return (seen & HIGH_BITS) === 0 && rest < 0x80;
  }
}
