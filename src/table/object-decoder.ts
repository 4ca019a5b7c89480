/**
 * The fast way back for values that begin with a shared structure or an array: decodes what
 * object-encoder.ts and msgpackr write, for each structure with a function of its own that makes the object in one
 * literal, and with one call into the runtime for all short strings of a value together. What it
 * does not know it leaves to msgpackr.
 *
 * The strings of a value of up to SHARED_TEXT_BYTES_MAX share their characters, and so do those of longer values that are no less than a SHARED_PART of it:
 * who keeps one of them keeps the value's bytes alive, which are that many or at most sixteen times what it has asked for.
 *
 * It reads from private memory, or from a region whose bytes others may change meanwhile: whatever they are, it ends, stays within the value, and
 * throws nothing; what it made is worth something only if the shard's version is the same afterwards.
 */

import type { Memory } from '../memory/region.js';
import type { StructureStore } from './structures.js';

const SHARED_TEXT_BYTES_MAX = 256;
/** The same for long strings of long values: ten of 100 characters take 145 ns together, 435 ns each by itself. */
const LONG_TEXT_BYTES_MAX = 4096;
const SHARED_PART = 16;
/** A part of a string that is shorter than this is made a copy by V8. */
const COPIED_BYTES_BELOW = 13;
const HIGH_BITS = 0x8080_8080 | 0;
/** Up to here looking at every byte beats leaving it to the runtime. */
const LOOP_BYTES_MAX = 48;
const FIRST_STRUCTURE = 0x40;
const STRUCTURES_MAX = 0x20;
/** Objects and arrays inside each other. Torn bytes may look like thousands, for which there would be no stack. */
const DEPTH_MAX = 64;

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
  #bytes: Buffer;
  #words: Int32Array;
  #view: DataView;
  readonly #readers: (ReadObject | undefined)[] = [];
  /** Where the value begins, in words and in bytes, which pass 2^31 in a large region. All other places count from there. */
  #from = 0;
  #base = 0;
  #at = 0;
  #length = 0;
  #depth = 0;
  #failed = false;
  #isAscii = false;
  /** All bytes of the value as Latin-1, once a string has asked for it. */
  #text = '';

  constructor(
    memory: Memory,
    readonly structures: StructureStore,
  ) {
    this.#bytes = memory.bytes;
    this.#words = memory.words;
    this.#view = memory.view;
  }

  /**
   * Decodes the `length` bytes at word `from`, all of which are there.
   * @param isAscii whether all characters of all strings are known to be below U+0080
   * @returns the value, or UNKNOWN
   */
  decode(memory: Memory, from: number, length: number, isAscii: boolean): unknown {
    const tag = memory.bytes[from * 4];
    if (tag < FIRST_STRUCTURE || (tag >= FIRST_STRUCTURE + STRUCTURES_MAX && (tag & 0xf0) !== 0x90 && tag !== 0xdc)) return UNKNOWN;
    this.#bytes = memory.bytes;
    this.#words = memory.words;
    this.#view = memory.view;
    this.#from = from;
    this.#base = from * 4;
    this.#at = 0;
    this.#length = length;
    this.#depth = 0;
    this.#failed = false;
    this.#isAscii = isAscii;
    this.#text = '';
    const value = this.next();
    return this.#failed || this.#at !== length ? UNKNOWN : value;
  }

  /** The value at the current place. Called by compiled readers. */
  next(): unknown {
    const at = this.#at;
    if (at >= this.#length) return this.#fail();
    const bytes = this.#bytes;
    const base = this.#base;
    const tag = bytes[base + at];
    this.#at = at + 1;
    if (tag < 0x80) return tag < FIRST_STRUCTURE ? tag : this.#object(tag - FIRST_STRUCTURE);
    if (tag >= 0xe0) return tag - 0x100;
    if (tag >= 0xa0 && tag < 0xc0) return this.#string(tag & 0x1f);
    if (tag < 0xa0) return tag >= 0x90 ? this.#array(tag & 0xf) : this.#fail();
    const from = base + at + 1;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xcb:
        return this.#skip(8) ? this.#view.getFloat64(from) : undefined;
      case 0xcc:
        return this.#skip(1) ? bytes[from] : undefined;
      case 0xcd:
        return this.#skip(2) ? (bytes[from] << 8) | bytes[from + 1] : undefined;
      case 0xce:
        return this.#skip(4) ? this.#view.getUint32(from) : undefined;
      case 0xd0:
        return this.#skip(1) ? this.#view.getInt8(from) : undefined;
      case 0xd1:
        return this.#skip(2) ? this.#view.getInt16(from) : undefined;
      case 0xd2:
        return this.#skip(4) ? this.#view.getInt32(from) : undefined;
      case 0xd4:
        return this.#skip(2) && bytes[from] === 0 && bytes[from + 1] === 0 ? undefined : this.#fail();
      case 0xd9:
        return this.#skip(1) ? this.#string(bytes[from]) : undefined;
      case 0xda:
        return this.#skip(2) ? this.#string((bytes[from] << 8) | bytes[from + 1]) : undefined;
      case 0xdc:
        return this.#skip(2) ? this.#array((bytes[from] << 8) | bytes[from + 1]) : undefined;
      default:
        return this.#fail();
    }
  }

  /** Goes on behind so many bytes. @returns whether the value has them; it is not one for this decoder otherwise */
  #skip(bytes: number): boolean {
    const at = this.#at + bytes;
    if (at > this.#length) this.#fail();
    else this.#at = at;
    return !this.#failed;
  }

  #fail(): undefined {
    this.#failed = true;
    // Nothing is left: whoever is at work on what this is a part of fails at the next value, too.
    this.#at = this.#length;
    return undefined;
  }

  #object(number: number): unknown {
    const read = number < this.#readers.length ? this.#readers[number] : this.#learn(number);
    if (read === undefined || this.#depth === DEPTH_MAX) return this.#fail();
    this.#depth++;
    const object = read();
    this.#depth--;
    return object;
  }

  #learn(number: number): ReadObject | undefined {
    const all = this.structures.load();
    if (number >= all.length) return undefined;
    for (let i = this.#readers.length; i < all.length; i++) this.#readers.push(compile(this, all[i]));
    return this.#readers[number];
  }

  #array(length: number): unknown {
    if (length > this.#length - this.#at || this.#depth === DEPTH_MAX) return this.#fail();
    this.#depth++;
    const array: unknown[] = [];
    for (let i = 0; i < length && !this.#failed; i++) array.push(this.next());
    this.#depth--;
    return array;
  }

  #string(length: number): unknown {
    const bytes = this.#bytes;
    const base = this.#base;
    const start = this.#at;
    const end = start + length;
    if (end > this.#length) return this.#fail();
    this.#at = end;
    if (this.#isAscii) {
      const shares = this.#length <= LONG_TEXT_BYTES_MAX && (length < COPIED_BYTES_BELOW || length * SHARED_PART >= this.#length);
      return shares || this.#length <= SHARED_TEXT_BYTES_MAX ? this.#slice(start, end) : bytes.latin1Slice(base + start, base + end);
    }
    if (length > LOOP_BYTES_MAX) {
      const shares = this.#length <= LONG_TEXT_BYTES_MAX && length * SHARED_PART >= this.#length;
      return shares && this.#holdsAscii(start, end) ? this.#slice(start, end) : bytes.utf8Slice(base + start, base + end);
    }
    let seen = 0;
    for (let i = base + start; i < base + end; i++) seen |= bytes[i];
    if (seen >= 0x80) return bytes.utf8Slice(base + start, base + end);
    if (this.#length > SHARED_TEXT_BYTES_MAX) return bytes.latin1Slice(base + start, base + end);
    return this.#slice(start, end);
  }

  #slice(start: number, end: number): string {
    if (this.#text === '') this.#text = this.#bytes.latin1Slice(this.#base, this.#base + this.#length);
    return this.#text.slice(start, end);
  }

  /** By words: the first and the last may hold bytes that do not belong, and are looked at by bytes. */
  #holdsAscii(start: number, end: number): boolean {
    const bytes = this.#bytes;
    const base = this.#base;
    const words = this.#words;
    const first = (start + 3) >>> 2;
    const last = end >>> 2;
    const until = this.#from + last;
    let seen = 0;
    let at = this.#from + first;
    for (; at + 4 <= until; at += 4) seen |= words[at] | words[at + 1] | words[at + 2] | words[at + 3];
    for (; at < until; at++) seen |= words[at];
    let rest = 0;
    for (let i = start; i < first * 4; i++) rest |= bytes[base + i];
    for (let i = last * 4; i < end; i++) rest |= bytes[base + i];
    return (seen & HIGH_BITS) === 0 && rest < 0x80;
  }
}
