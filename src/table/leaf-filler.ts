/**
 * Filling leaves of the ordered index: from slots of other leaves, or from references and the keys that they lead to.
 * Under the index's lock, so what a leaf in the tree refers to is there.
 */

import { KEY_LENGTH_MASK } from '../base/record.js';
import type { Region } from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import {
  FRAGMENT_SHIFT,
  LEAF_INTENT,
  LEAF_SLOTS,
  NODE_HEADER_WORDS,
  NODE_PREFIX,
  SHARD_MASK,
  countOf,
  leafSlot,
  setCount,
} from './index-node.js';
import { fragmentOf, prefixFor, sharedOf } from './key-fragment.js';
import { sharedBytes } from './key-probe.js';
import { separatorBytes, storeSeparator } from './separator.js';

/** A leaf is crowded when more than one in 16 of its fragments is like the one before. */
const CROWDED_SHIFT = 4;

export class LeafFiller {
  /** Slots of a leaf under construction: units, shards. */
  readonly #units = new Int32Array(2 * LEAF_SLOTS + 1);
  readonly #shardOf = new Uint8Array(2 * LEAF_SLOTS + 1);

  constructor(
    readonly region: Region,
    readonly regions: readonly Region[],
  ) {}

  /** The words of a shard's region, reaching past the entry's key. Under the index's lock what a leaf refers to is there. */
  entryWords(shard: number, entry: number): Int32Array {
    const region = this.regions[shard];
    if (
      entry + ENTRY_HEADER_WORDS > region.words.length ||
      entry + ENTRY_HEADER_WORDS + (((region.words[entry] & KEY_LENGTH_MASK) + 3) >>> 2) > region.words.length
    )
      region.refresh();
    return region.words;
  }

  /** Fills a node with the slots collected in `#units` and `#shardOf`, from `from` to `to`. */
  fill(node: number, from: number, to: number, shared: number): void {
    setCount(this.region.words, node, 0, to - from);
    this.region.words[node + LEAF_INTENT] = 0;
    const prefix = this.#prefixOf(from, to, shared);
    this.region.words[node + NODE_PREFIX] = prefix;
    for (let i = from; i < to; i++) {
      const entry = this.#units[i] * 2;
      const shard = this.#shardOf[i];
      const length = this.entryWords(shard, entry)[entry] & KEY_LENGTH_MASK;
      const fragment = fragmentOf(this.regions[shard].bytes, (entry + ENTRY_HEADER_WORDS) * 4, length, prefix);
      const slot = leafSlot(node, i - from);
      this.region.words[slot] = this.#units[i];
      this.region.words[slot + 1] = (fragment << FRAGMENT_SHIFT) | shard;
    }
  }

  /** What the first, the middle and the last key are like, the others most often are, too. */
  #prefixOf(from: number, to: number, shared: number): number {
    for (const i of [from, (from + to) >>> 1, to - 1]) {
      if (i < from || i >= to) return shared;
      const entry = this.#units[i] * 2;
      const shard = this.#shardOf[i];
      const length = this.entryWords(shard, entry)[entry] & KEY_LENGTH_MASK;
      if (prefixFor(this.regions[shard].bytes, (entry + ENTRY_HEADER_WORDS) * 4, length, shared) === shared) return shared;
    }
    const entry = this.#units[from] * 2;
    const { bytes } = this.regions[this.#shardOf[from]];
    return prefixFor(bytes, (entry + ENTRY_HEADER_WORDS) * 4, this.regions[this.#shardOf[from]].words[entry] & KEY_LENGTH_MASK, shared);
  }

  /**
   * Fills a node with slots of another leaf. Where that one's fragments still tell its keys apart it takes them over, and looks at no key, although
   * the keys may share more bytes by now: what a leaf takes for shared may be less.
   * @param shared bytes that all keys of the new leaf share
   */
  copy(node: number, leaf: number, from: number, to: number, shared: number): void {
    const words = this.region.words;
    const prefix = words[leaf + NODE_PREFIX];
    if (sharedOf(prefix) === shared || (sharedOf(prefix) < shared && !this.#isCrowded(leaf, from, to))) {
      setCount(words, node, 0, to - from);
      words[node + NODE_PREFIX] = prefix;
      words[node + LEAF_INTENT] = 0;
      words.copyWithin(node + NODE_HEADER_WORDS, leafSlot(leaf, from), leafSlot(leaf, to));
      return;
    }
    this.collect(leaf, 0);
    this.fill(node, from, to, shared);
  }

  /** Whether many of a leaf's keys have the fragment of the one before. */
  #isCrowded(leaf: number, from: number, to: number): boolean {
    const words = this.region.words;
    let equal = 0;
    let last = -1;
    for (let i = from; i < to; i++) {
      const fragment = words[leafSlot(leaf, i) + 1] >>> FRAGMENT_SHIFT;
      if (fragment === last) equal++;
      last = fragment;
    }
    return equal > (to - from) >>> CROWDED_SHIFT;
  }

  /** Collects a leaf's references behind those collected already. @returns how many there are then */
  collect(leaf: number, already: number): number {
    const words = this.region.words;
    const count = countOf(words, leaf);
    for (let i = 0; i < count; i++) {
      this.#units[already + i] = words[leafSlot(leaf, i)];
      this.#shardOf[already + i] = words[leafSlot(leaf, i) + 1] & SHARD_MASK;
    }
    return already + count;
  }

  /** Makes the shortest separator between two keys that follow each other in a leaf. @returns word index of its block */
  separate(leaf: number, index: number): number {
    const shared = this.#sharedBefore(leaf, index);
    const words = this.region.words;
    const shard = words[leafSlot(leaf, index) + 1] & SHARD_MASK;
    const entry = words[leafSlot(leaf, index)] * 2;
    return storeSeparator(this.region, this.entryWords(shard, entry), entry + ENTRY_HEADER_WORDS, shared + 1);
  }

  /** Length of the longest key of a leaf. */
  longestKey(leaf: number): number {
    const words = this.region.words;
    let longest = 0;
    for (let i = 0; i < countOf(words, leaf); i++) {
      const entry = words[leafSlot(leaf, i)] * 2;
      const length = this.entryWords(words[leafSlot(leaf, i) + 1] & SHARD_MASK, entry)[entry] & KEY_LENGTH_MASK;
      if (length > longest) longest = length;
    }
    return longest;
  }

  /** Bytes of the block of such a separator. */
  separatorBytes(leaf: number, index: number): number {
    return separatorBytes(this.#sharedBefore(leaf, index) + 1);
  }

  /** How many bytes a key of a leaf and the one before it share. */
  #sharedBefore(leaf: number, index: number): number {
    const words = this.region.words;
    const shardA = words[leafSlot(leaf, index - 1) + 1] & SHARD_MASK;
    const shardB = words[leafSlot(leaf, index) + 1] & SHARD_MASK;
    const entryA = words[leafSlot(leaf, index - 1)] * 2;
    const entryB = words[leafSlot(leaf, index)] * 2;
    const a = this.entryWords(shardA, entryA);
    const b = this.entryWords(shardB, entryB);
    const keyA = entryA + ENTRY_HEADER_WORDS;
    const keyB = entryB + ENTRY_HEADER_WORDS;
    return sharedBytes(a, keyA, a[entryA] & KEY_LENGTH_MASK, b, keyB, b[entryB] & KEY_LENGTH_MASK);
  }
}
