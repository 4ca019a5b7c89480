/**
 * What a batch takes of the ordered index at most: reckoned from the leaves that its keys belong to (ordered-index.ts).
 *
 * A leaf is split when it is full, into two halves, and a half when half a leaf of keys has come to it. Behind the last key of the tree all but one key stay together instead, in a leaf
 * that takes one key more and is halved for the next: h halvings and p such splits take three keys, h - 1 half leaves and p - 1 leaves of keys at least, so one split, and one for each half leaf of keys
 * begun, are enough for that, too. A leaf that loses keys is merged with a neighbour when less than a quarter is left, into one that is three quarters full at most, and that may be split
 * although both had room. The separator of a split is no longer than the longest key of the leaf; of leaves that may be merged, which are not known, than the longest that was ever in the index.
 */

import { REGION_FREE_CHUNKS, REGION_INDEX_KEY_BYTES, type Region } from '../memory/region.js';
import { blocksFree, chunksFor, hasBlocks } from '../memory/slabs.js';
import { LEAF_SLOTS, MERGE_BELOW, NODES_PER_CHUNK, NODE_CLASS, countOf } from './index-node.js';
import { separatorBytes } from './separator.js';

/** Keys up to this length are short: their separators are reckoned as if all were as long as the longest of them. */
export const SHORT_KEY_BYTES = 500;
const HALF_LEAF = LEAF_SLOTS >>> 1;

/** Splits of the halves of leaves, once these have been split. */
export function furtherSplits(insertions: number): number {
  return Math.ceil(insertions / HALF_LEAF);
}

/** What comes to a leaf and leaves it, and its longest key as far as that is known. */
interface LeafChange {
  added: number;
  removed: number;
  longest: number;
}

export class BatchRoom {
  readonly #leaves = new Map<number, LeafChange>();
  insertions = 0;
  removals = 0;
  /** Splits of leaves. */
  splits = 0;
  /** Of these, such with short separators, and the longest key that one of them can come from. */
  #short = 0;
  #shortKeyBytes = 0;
  /** The others, the chunks that they take, and the longest key. */
  #long = 0;
  #longChunks = 0;
  #longKeyBytes = 0;

  /** @param longestIn looks for the length of the longest key of a leaf */
  constructor(
    readonly index: { readonly region: Region },
    readonly longestIn: (leaf: number) => number,
  ) {}

  /** @param leaf where the key is, or belongs */
  note(leaf: number, keyBytes: number, isAdded: boolean): void {
    let change = this.#leaves.get(leaf);
    if (change === undefined) {
      change = { added: 0, removed: 0, longest: 0 };
      this.#leaves.set(leaf, change);
    }
    if (!isAdded) {
      change.removed++;
      this.removals++;
      return;
    }
    change.added++;
    this.insertions++;
    if (keyBytes > change.longest) change.longest = keyBytes;
  }

  clear(): void {
    this.#leaves.clear();
    this.insertions = this.removals = this.splits = 0;
    this.#short = this.#shortKeyBytes = this.#long = this.#longChunks = this.#longKeyBytes = 0;
  }

  reckon(): void {
    const { words } = this.index.region;
    let longestAdded = 0;
    let again = 0;
    for (const [leaf, change] of this.#leaves) {
      const { added, removed, longest } = change;
      const count = countOf(words, leaf);
      if (longest > longestAdded) longestAdded = longest;
      again += count - removed <= MERGE_BELOW ? removed : Math.ceil(removed / MERGE_BELOW);
      if (added === 0 || count + added <= LEAF_SLOTS) continue;
      this.#add(1 + furtherSplits(added), longest, leaf);
    }
    if (this.removals === 0) return;
    // A leaf that was merged may take keys that were counted for two leaves with room, and be split more than once.
    const merged = Math.min(again + furtherSplits(this.insertions), this.insertions);
    this.#addLengths(merged, Math.max(longestAdded, words[REGION_INDEX_KEY_BYTES]));
  }

  #add(splits: number, longestAdded: number, leaf: number): void {
    const ever = this.index.region.words[REGION_INDEX_KEY_BYTES];
    // Most often no key is long, and none need be looked at.
    this.#addLengths(splits, Math.max(longestAdded, ever <= SHORT_KEY_BYTES ? ever : this.longestIn(leaf)));
  }

  #addLengths(splits: number, keyBytes: number): void {
    this.splits += splits;
    if (keyBytes <= SHORT_KEY_BYTES) {
      this.#short += splits;
      if (keyBytes > this.#shortKeyBytes) this.#shortKeyBytes = keyBytes;
      return;
    }
    this.#long += splits;
    this.#longChunks += chunksFor(separatorBytes(keyBytes), splits);
    if (keyBytes > this.#longKeyBytes) this.#longKeyBytes = keyBytes;
  }

  /** Chunks behind each other with which all separators can be made. */
  separatorChunks(): number {
    return this.#longChunks + (this.#short === 0 ? 0 : chunksFor(separatorBytes(this.#shortKeyBytes), this.#short));
  }

  /**
   * Whether all separators can be made of what is free anywhere, when so many nodes have been made of it before.
   * Long separators are many sizes of slab: but for a single one no is said.
   */
  hasSeparators(nodesMissing: number): boolean {
    const { region } = this.index;
    const missing = nodesMissing - blocksFree(region, NODE_CLASS);
    const chunks = region.words[REGION_FREE_CHUNKS] - (missing > 0 ? Math.ceil(missing / NODES_PER_CHUNK) : 0);
    if (chunks < 0) return false;
    if (this.#long === 0) return hasBlocks(region, separatorBytes(this.#shortKeyBytes), this.#short, this.removals, chunks, NODE_CLASS);
    return (
      this.#long === 1 && this.#short === 0 && hasBlocks(region, separatorBytes(this.#longKeyBytes), 1, this.removals, chunks, NODE_CLASS)
    );
  }
}
