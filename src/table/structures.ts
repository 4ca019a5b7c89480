/**
 * The dictionary of record structures: which field names msgpackr's record numbers stand for.
 *
 * It lies in the control region, append-only, so that every thread numbers the same. A structure is
 * logged before the first value that uses it is, and it is in shared memory before that value can be
 * read. Written under the dictionary lock; read without: the count is stored after the structure.
 *
 * A shape of object is shared when it is met for the second time: maps with ever new keys would
 * otherwise use up the numbers.
 */

import { assert } from '../base/errors.js';
import { DURABILITY_MEMORY, KIND_STRUCTURE, RECORD_HEADER_WORDS } from '../base/record.js';
import type { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { acquire, release } from '../memory/lock.js';
import { findIllFormed } from './ill-formed.js';
import { ANY_EPOCH, NO_ROOM, type Ring } from '../memory/ring.js';

/** What the value codec needs of a dictionary. */
export interface StructureStore {
  readonly countMax: number;
  /** How many there are: it only grows, and what is there stays as it is. */
  readonly count: number;
  load(): string[][];
  /** @returns false when another thread was faster; the caller loads and tries again */
  save(all: string[][], isCompatible: (known: string[][]) => boolean): boolean;
  shouldShare(keys: string[]): boolean;
}

/** Longest list of field names that is shared, as JSON. The ring's headroom counts on it. */
const STRUCTURE_BYTES_MAX = 480;
/** Shapes remembered as met once. */
const SEEN_MAX = 512;

export class Dictionary implements StructureStore {
  readonly countMax = L.DICTIONARY_STRUCTURES_MAX;
  readonly #words: Int32Array;
  readonly #area: Buffer;
  readonly #seen = new Set<string>();

  /** @param ring where new structures are logged; without one nothing new is shared */
  constructor(
    readonly control: Control,
    readonly self: number,
    readonly ring: Ring | undefined,
  ) {
    this.#words = control.words;
    this.#area = Buffer.from(control.buffer, L.DICTIONARY_AREA_WORD * 4, L.DICTIONARY_AREA_BYTES);
  }

  get count(): number {
    return Atomics.load(this.#words, L.CONTROL_DICTIONARY_COUNT);
  }

  load(): string[][] {
    return this.texts().map((text) => JSON.parse(text) as string[]);
  }

  /** The structures as JSON, in the order of their numbers. */
  texts(): string[] {
    const texts: string[] = [];
    let at = 0;
    for (let count = this.count; texts.length < count;) {
      const length = this.#area.readInt32LE(at);
      texts.push(this.#area.toString('utf8', at + 4, at + 4 + length));
      at += 4 + length;
    }
    return texts;
  }

  shouldShare(keys: string[]): boolean {
    if (this.ring === undefined || this.count >= this.countMax) return false;
    const text = JSON.stringify(keys);
    if (text.length * 3 > STRUCTURE_BYTES_MAX && Buffer.byteLength(text) > STRUCTURE_BYTES_MAX) return false;
    if (this.#seen.has(text)) return true;
    // Left inside its value, where it is noticed and refused (ill-formed.ts).
    if (findIllFormed(keys) !== undefined) return false;
    if (this.#seen.size >= SEEN_MAX) this.#seen.clear();
    this.#seen.add(text);
    return false;
  }

  save(all: string[][], isCompatible: (known: string[][]) => boolean): boolean {
    acquire(this.#words, L.CONTROL_DICTIONARY_LOCK, L.CONTROL_DICTIONARY_WAITERS, this.self, 'dictionary');
    try {
      const known = this.load();
      if (!isCompatible(known)) return false;
      for (let number = known.length; number < all.length; number++) {
        const text = Buffer.from(JSON.stringify(all[number]));
        const ring = this.#log(number, text);
        this.append(number, text);
        // Only now: should this thread die before, its record says what is to be appended.
        ring.applied();
      }
      return true;
    } finally {
      release(this.#words, L.CONTROL_DICTIONARY_LOCK, L.CONTROL_DICTIONARY_WAITERS);
    }
  }

  /** Puts the count of bytes right after a thread has died while it held the lock. */
  repairLocked(): void {
    let used = 0;
    for (let i = this.count; i > 0; i--) used += 4 + this.#area.readInt32LE(used);
    this.#words[L.CONTROL_DICTIONARY_BYTES] = used;
  }

  /** Adds a structure; repeating one that is there does nothing. */
  append(number: number, text: Uint8Array): void {
    if (number < this.count) return;
    const used = this.#words[L.CONTROL_DICTIONARY_BYTES];
    assert(number === this.count && number < this.countMax, 'structures are numbered without gaps');
    assert(used + 4 + text.length <= L.DICTIONARY_AREA_BYTES, 'the dictionary area holds every structure');
    this.#area.writeInt32LE(text.length, used);
    this.#area.set(text, used + 4);
    this.#words[L.CONTROL_DICTIONARY_BYTES] = used + 4 + text.length;
    Atomics.store(this.#words, L.CONTROL_DICTIONARY_COUNT, number + 1);
  }

  #log(number: number, text: Uint8Array): Ring {
    const ring = this.ring;
    assert(ring !== undefined, 'structures are only shared where they can be logged');
    const bytes = (RECORD_HEADER_WORDS * 4 + 8 + text.length + 7) & ~7;
    const at = ring.reserve(bytes, 0, ANY_EPOCH);
    assert(at !== NO_ROOM, 'the ring keeps room for every structure');
    const body = ring.bodyAt(at);
    ring.words.fill(0, body, at + bytes / 4);
    ring.words[body] = number;
    ring.words[body + 1] = text.length;
    ring.bytes.set(text, (body + 2) * 4);
    ring.publish(at, KIND_STRUCTURE, DURABILITY_MEMORY);
    return ring;
  }
}
