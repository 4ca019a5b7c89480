/**
 * The fast way for plain objects and arrays whose structures are shared already (structures.ts): encodes
 * them into the very bytes that msgpackr makes, in half the time, for which one pass over the
 * fields suffices. Whatever it does not know (other classes, structures that are not shared, values past its
 * buffer) it leaves to msgpackr.
 *
 * The structure of an object is found by walking a tree of field names. Each node remembers the child
 * it went to last, so that objects of one shape cost one comparison of pointers a field.
 */

import type { StructureStore } from './structures.js';

const BUFFER_BYTES = 16_384;
/** Longest head of a value: a tag and four or eight bytes. */
const HEAD_BYTES_MAX = 9;
const DEPTH_MAX = 64;
/** Up to here a loop over characters beats a call into the runtime. */
const LOOP_CHARACTERS_MAX = 48;
/** Values in a row that were left to msgpackr, after which only one in RETRY_EVERY is tried. */
const MISSES_MAX = 8;
const RETRY_EVERY = 32;
/** msgpackr's number of the first shared structure. */
const FIRST_STRUCTURE = 0x40;

class Node {
  /** The field name met last here, and where it leads. At first a string, so that only strings are ever compared. */
  key = '';
  next: Node | undefined = undefined;
  readonly children = new Map<string, Node>();
  /** Number of the structure that ends here, or -1. */
  number = -1;

  follow(key: string): Node | undefined {
    const child = this.children.get(key);
    if (child !== undefined) {
      this.key = key;
      this.next = child;
    }
    return child;
  }

  grow(key: string): Node {
    let child = this.children.get(key);
    if (child === undefined) {
      child = new Node();
      this.children.set(key, child);
    }
    return child;
  }
}

// Called with `call` always; in a loop over an object's own names the compiler takes it away.
// eslint-disable-next-line typescript/unbound-method
const hasOwnProperty = Object.prototype.hasOwnProperty;

export class ObjectEncoder {
  /** The value encoded last lies at the start. */
  readonly words: Int32Array;
  readonly bytes: Buffer;
  /** Whether all characters of all strings of the value encoded last are below U+0080. */
  isAscii = true;
  readonly #view: DataView;
  #root = new Node();
  #known = 0;
  #at = 0;
  #busy = false;
  #misses = 0;

  constructor(readonly structures: StructureStore) {
    const buffer = new ArrayBuffer(BUFFER_BYTES);
    this.words = new Int32Array(buffer);
    this.bytes = Buffer.from(buffer);
    this.#view = new DataView(buffer);
  }

  /**
   * Runs getters of the value, which may use the store, and passes on what they throw.
   * @returns length of the encoded value in bytes, or 0 when msgpackr has to do it
   */
  encode(value: object): number {
    if (this.#busy) return 0;
    if (this.#misses >= MISSES_MAX && (++this.#misses & (RETRY_EVERY - 1)) !== 0) return 0;
    this.#busy = true;
    this.isAscii = true;
    this.#at = 0;
    try {
      if (this.#write(value, 0)) {
        this.#misses = 0;
        return this.#at;
      }
    } finally {
      this.#busy = false;
    }
    this.#misses++;
    if (this.structures.count !== this.#known) this.#learn();
    return 0;
  }

  #learn(): void {
    const all = this.structures.load();
    for (let number = this.#known; number < all.length; number++) {
      let node = this.#root;
      for (const name of all[number]) node = node.grow(name);
      // msgpackr stores a field of this name under another.
      if (!all[number].includes('__proto__')) node.number = number;
    }
    this.#known = all.length;
    this.#misses = 0;
  }

  #write(value: object, depth: number): boolean {
    if (depth > DEPTH_MAX || this.#at > BUFFER_BYTES - HEAD_BYTES_MAX) return false;
    const constructor: unknown = value.constructor;
    if (constructor === Object) return this.#writeObject(value as Record<string, unknown>, depth);
    return constructor === Array && this.#writeArray(value as unknown[], depth);
  }

  #writeObject(object: Record<string, unknown>, depth: number): boolean {
    const bytes = this.bytes;
    const head = this.#at;
    let at = head + 1;
    let node = this.#root;
    for (const key in object) {
      if (!hasOwnProperty.call(object, key)) continue;
      let next = node.key === key ? node.next : undefined;
      if (next === undefined) {
        next = node.follow(key);
        if (next === undefined) return false;
      }
      node = next;
      if (at > BUFFER_BYTES - HEAD_BYTES_MAX) return false;
      const value = object[key];
      if (typeof value === 'string') {
        const length = value.length;
        if (length > LOOP_CHARACTERS_MAX || at + length > BUFFER_BYTES - HEAD_BYTES_MAX) {
          at = this.#longString(value, at);
          if (at === 0) return false;
        } else {
          let to = length < 32 ? at + 1 : at + 2;
          let seen = 0;
          for (let i = 0; i < length; i++) {
            const character = value.charCodeAt(i);
            seen |= character;
            bytes[to++] = character;
          }
          if (seen < 0x80) {
            if (length < 32) {
              bytes[at] = 0xa0 | length;
            } else {
              bytes[at] = 0xd9;
              bytes[at + 1] = length;
            }
            at = to;
          } else {
            at = this.#longString(value, at);
            if (at === 0) return false;
          }
        }
      } else if (typeof value === 'number') {
        if ((value & 0x3f) === value) bytes[at++] = value;
        else at = this.#number(value, at);
      } else if (typeof value === 'boolean') {
        bytes[at++] = value ? 0xc3 : 0xc2;
      } else if (value === null) {
        bytes[at++] = 0xc0;
      } else {
        this.#at = at;
        if (!this.#rare(value, depth)) return false;
        at = this.#at;
      }
    }
    if (node.number < 0) return false;
    bytes[head] = FIRST_STRUCTURE + node.number;
    this.#at = at;
    return true;
  }

  #writeArray(array: unknown[], depth: number): boolean {
    const bytes = this.bytes;
    const length = array.length;
    if (length < 16) {
      bytes[this.#at++] = 0x90 | length;
    } else if (length < BUFFER_BYTES) {
      bytes[this.#at] = 0xdc;
      bytes[this.#at + 1] = length >>> 8;
      bytes[this.#at + 2] = length;
      this.#at += 3;
    } else {
      return false;
    }
    for (let i = 0; i < length; i++) {
      const value = array[i];
      const at = this.#at;
      if (at > BUFFER_BYTES - HEAD_BYTES_MAX) return false;
      if (typeof value === 'string') {
        this.#at = this.#longString(value, at);
        if (this.#at === 0) return false;
      } else if (typeof value === 'number') {
        this.#at = this.#number(value, at);
      } else if (value === null || typeof value === 'boolean') {
        bytes[this.#at++] = value === null ? 0xc0 : value ? 0xc3 : 0xc2;
      } else if (!this.#rare(value, depth)) {
        return false;
      }
    }
    return true;
  }

  #rare(value: unknown, depth: number): boolean {
    if (typeof value === 'object') return this.#write(value as object, depth + 1);
    if (value !== undefined) return false;
    const bytes = this.bytes;
    const at = this.#at;
    bytes[at] = 0xd4;
    bytes[at + 1] = 0;
    bytes[at + 2] = 0;
    this.#at = at + 3;
    return true;
  }

  /** @returns where the next value goes, or 0 when the string is not for us */
  #longString(value: string, at: number): number {
    const length = value.length;
    const bytes = this.bytes;
    // Room for three bytes a character, so that nothing is cut.
    if (at + 3 + length * 3 > BUFFER_BYTES) return 0;
    const head = length < 0x20 ? 1 : length < 0x100 ? 2 : 3;
    const written = bytes.utf8Write(value, at + head, BUFFER_BYTES - at - head);
    // msgpackr keeps lone surrogates, where UTF-8 cannot.
    if (written !== length) {
      if (!(value as string & { isWellFormed(): boolean }).isWellFormed()) return 0;
      this.isAscii = false;
    }
    const wanted = written < 0x20 ? 1 : written < 0x100 ? 2 : 3;
    if (wanted !== head) bytes.copyWithin(at + wanted, at + head, at + head + written);
    if (wanted === 1) {
      bytes[at] = 0xa0 | written;
    } else if (wanted === 2) {
      bytes[at] = 0xd9;
      bytes[at + 1] = written;
    } else {
      bytes[at] = 0xda;
      bytes[at + 1] = written >>> 8;
      bytes[at + 2] = written;
    }
    return at + wanted + written;
  }

  #number(value: number, at: number): number {
    const bytes = this.bytes;
    if (value >>> 0 === value) {
      if (value < 0x40) {
        bytes[at] = value;
        return at + 1;
      }
      if (value < 0x100) {
        bytes[at] = 0xcc;
        bytes[at + 1] = value;
        return at + 2;
      }
      if (value < 0x1_0000) {
        bytes[at] = 0xcd;
        bytes[at + 1] = value >>> 8;
        bytes[at + 2] = value;
        return at + 3;
      }
      bytes[at] = 0xce;
      this.#view.setUint32(at + 1, value);
      return at + 5;
    }
    if ((value | 0) === value) {
      if (value >= -0x20) {
        bytes[at] = value;
        return at + 1;
      }
      if (value >= -0x80) {
        bytes[at] = 0xd0;
        bytes[at + 1] = value;
        return at + 2;
      }
      if (value >= -0x8000) {
        bytes[at] = 0xd1;
        this.#view.setInt16(at + 1, value);
        return at + 3;
      }
      bytes[at] = 0xd2;
      this.#view.setInt32(at + 1, value);
      return at + 5;
    }
    bytes[at] = 0xcb;
    this.#view.setFloat64(at + 1, value);
    return at + 9;
  }
}
