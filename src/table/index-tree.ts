/**
 * The tree of the ordered index, as its writers see it: a B+tree over all keys of the store. Everything here runs under the index's lock.
 *
 * Invariants, at every instruction while the lock is held, whoever dies:
 * 1. What changes the shape of the tree is one store of a child pointer (or of the root) that leads from a node to its changed copy. Before it the
 *    copy is complete; behind it nothing leads to the old node.
 * 2. The node that is going to be replaced gets an odd version before that store, so a reader that holds it finds out; the copy has an even one by then.
 * 3. One slot more or less in a leaf is a change in place, under an odd version; the leaf says before what is going to be done (LEAF_INTENT), and
 *    a repair takes an insertion back and finishes a removal.
 * 4. A node that the tree leads to has an odd version only during these: a repair makes it even again.
 * 5. A reference is removed or replaced here before its entry's block is freed. So whatever a leaf in the tree refers to can be read.
 *
 * Leaves know, by their fences (the separators around them), how many bytes their keys share, and keep fragments of what follows (key-fragment.ts); so most steps of a
 * search compare numbers and touch no key. A leaf that is the last of the tree and gets a key at its end is not cut in half: keys that come in order fill their leaves.
 *
 * Source: Comer, "The Ubiquitous B-Tree", ACM Computing Surveys 11(2), 1979; prefix B-trees: Bayer and Unterauer, ACM TODS 2(1), 1977;
 * replacing nodes instead of changing them: Rodeh, "B-trees, Shadowing, and Clones", ACM ToS 3(4), 2008.
 */

import { REGION_INDEX_KEY_BYTES, REGION_INDEX_NODES, REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { allocate } from '../memory/slabs.js';
import {
  FRAGMENT_SHIFT,
  INNER_SLOTS,
  INNER_SLOT_WORDS,
  INTENT_MOVED,
  LEAF_INTENT,
  LEAF_SLOTS,
  LEAF_SLOT_WORDS,
  MERGE_BELOW,
  NODE_BYTES,
  NODE_CLASS,
  NODE_FIRST_CHILD,
  NODE_HEADER_WORDS,
  NODE_PREFIX,
  SLOT_CHILD,
  SLOT_SEPARATOR,
  childWord,
  countOf,
  innerSlot,
  insertIntent,
  leafSlot,
  levelOf,
  removeIntent,
  setCount,
} from './index-node.js';
import { fragment4 } from './key-fragment.js';
import type { KeyProbe } from './key-probe.js';
import { IndexShrinker } from './index-shrink.js';
import { IndexWay, NO_FENCE } from './index-way.js';
import { InnerFiller } from './inner-filler.js';
import { LeafFiller } from './leaf-filler.js';
import { NodePool } from './node-pool.js';

/** Makes an empty index: one leaf without keys. @returns false when there is no memory */
export function createIndex(region: Region): boolean {
  const unit = allocate(region, NODE_BYTES, NODE_CLASS);
  if (unit === 0) return false;
  const words = region.words;
  words.fill(0, unit * 2, unit * 2 + NODE_HEADER_WORDS);
  words[REGION_INDEX_NODES] = 1;
  words[REGION_INDEX_ROOT] = unit;
  return true;
}

export class IndexTree {
  readonly #nodes: NodePool;
  readonly #leaves: LeafFiller;
  readonly #inner: InnerFiller;
  readonly #way: IndexWay;
  readonly #shrinker: IndexShrinker;

  /**
   * @param region the index's own
   * @param regions of the shards, in order: their keys are compared with
   */
  constructor(
    readonly region: Region,
    readonly regions: readonly Region[],
  ) {
    this.#nodes = new NodePool(region);
    this.#leaves = new LeafFiller(region, regions);
    this.#inner = new InnerFiller(region);
    this.#way = new IndexWay(region, this.#leaves);
    this.#shrinker = new IndexShrinker(region, this.#nodes, this.#leaves, this.#inner, this.#way);
  }

  // Changes -----------------------------------------------------------------------------------

  /** Adds a key that is absent, or leads the key to another block. Room must have been reserved. */
  setLocked(probe: KeyProbe, shard: number, unit: number): void {
    for (;;) {
      const leaf = this.#way.descend(probe, true);
      // A split on the way, or of the leaf: begin again, the way is another one.
      if (leaf === 0) {
        this.#splitInner(this.#way.full);
        continue;
      }
      const place = this.#way.placeIn(leaf, probe);
      if (place >= 0 && countOf(this.region.words, leaf) === LEAF_SLOTS) this.#splitLeaf(leaf, place === LEAF_SLOTS);
      else {
        this.#setAt(leaf, place, probe.length, shard, unit);
        return;
      }
    }
  }

  /** The same where no room has been reserved. @returns false when a node has to be split first: nothing has changed then */
  setWithoutSplitLocked(probe: KeyProbe, shard: number, unit: number): boolean {
    const leaf = this.#way.descend(probe, false);
    const place = this.#way.placeIn(leaf, probe);
    if (place >= 0 && countOf(this.region.words, leaf) === LEAF_SLOTS) return false;
    this.#setAt(leaf, place, probe.length, shard, unit);
    return true;
  }

  /** Bytes of the separator that the leaf takes which an absent key would split; 0 where it would split none. */
  separatorBytesLocked(probe: KeyProbe): number {
    const leaf = this.#way.descend(probe, false);
    const place = this.#way.placeIn(leaf, probe);
    if (place < 0 || countOf(this.region.words, leaf) < LEAF_SLOTS) return 0;
    return this.#leaves.separatorBytes(leaf, this.#cutOf(place === LEAF_SLOTS));
  }

  /** Word index of the leaf where a key is, or belongs. */
  leafLocked(probe: KeyProbe): number {
    return this.#way.descend(probe, false);
  }

  /** Length of the longest key of a leaf. */
  longestKeyLocked(leaf: number): number {
    return this.#leaves.longestKey(leaf);
  }

  /** @param place what `placeIn` has just found; there is a slot free where the key is absent */
  #setAt(leaf: number, place: number, keyBytes: number, shard: number, unit: number): void {
    if (place < 0) {
      this.#replaceSlot(leaf, -place - 1, unit);
      return;
    }
    const { words } = this.region;
    if (keyBytes > words[REGION_INDEX_KEY_BYTES]) words[REGION_INDEX_KEY_BYTES] = keyBytes;
    this.#insertSlot(leaf, place, unit, (this.#way.fragment << FRAGMENT_SHIFT) | shard);
  }

  /** Removes a key. @returns false when it is not there */
  removeLocked(probe: KeyProbe): boolean {
    const leaf = this.#way.descend(probe, false);
    const place = this.#way.placeIn(leaf, probe);
    if (place >= 0) return false;
    this.#removeSlot(leaf, -place - 1);
    return true;
  }

  /** The block that a key leads to. @returns its unit, or 0 */
  unitLocked(probe: KeyProbe): number {
    const leaf = this.#way.descend(probe, false);
    const place = this.#way.placeIn(leaf, probe);
    return place < 0 ? this.region.words[leafSlot(leaf, -place - 1)] : 0;
  }

  // Nodes -------------------------------------------------------------------------------------

  /** Leads a key to another block of its shard: one store, between two of the version. */
  #replaceSlot(leaf: number, index: number, unit: number): void {
    this.#nodes.odd(leaf);
    this.region.words[leafSlot(leaf, index)] = unit;
    this.#nodes.even(leaf);
  }

  #insertSlot(leaf: number, index: number, unit: number, fragmentAndShard: number): void {
    const words = this.region.words;
    const count = countOf(words, leaf);
    const slot = leafSlot(leaf, index);
    this.#nodes.odd(leaf);
    words[leaf + LEAF_INTENT] = insertIntent(index, count);
    if (index !== count) words.copyWithin(slot + LEAF_SLOT_WORDS, slot, leafSlot(leaf, count));
    words[leaf + LEAF_INTENT] |= INTENT_MOVED;
    words[slot] = unit;
    words[slot + 1] = fragmentAndShard;
    setCount(words, leaf, 0, count + 1);
    words[leaf + LEAF_INTENT] = 0;
    this.#nodes.even(leaf);
  }

  #removeSlot(leaf: number, index: number): void {
    const words = this.region.words;
    const count = countOf(words, leaf);
    if (count === 1 && this.#way.depth > 0) {
      this.#shrinker.removeLeaf(leaf);
      return;
    }
    const slot = leafSlot(leaf, index);
    this.#nodes.odd(leaf);
    words[leaf + LEAF_INTENT] = removeIntent(index, count);
    if (index !== count - 1) words.copyWithin(slot, slot + LEAF_SLOT_WORDS, leafSlot(leaf, count));
    words[leaf + LEAF_INTENT] |= INTENT_MOVED;
    setCount(words, leaf, 0, count - 1);
    words[leaf + LEAF_INTENT] = 0;
    this.#nodes.even(leaf);
    if (count - 1 < MERGE_BELOW && this.#way.depth > 0) this.#shrinker.mergeLeaf(leaf, count - 1);
  }

  // Splitting ---------------------------------------------------------------------------------

  /** Splits a full leaf. @param appending whether a key comes to its end: then what is there stays together if it is the tree's last leaf */
  #splitLeaf(leaf: number, appending: boolean): void {
    const depth = this.#way.depth;
    const low = this.#way.lowFence(depth);
    const high = this.#way.highFence(depth);
    const cut = this.#cutOf(appending);
    const separator = this.#leaves.separate(leaf, cut);
    const left = this.#nodes.take();
    const right = this.#nodes.take();
    this.#leaves.copy(left, leaf, 0, cut, this.#way.sharedByFences(low, separator));
    this.#leaves.copy(right, leaf, cut, LEAF_SLOTS, this.#way.sharedByFences(separator, high));
    this.#attachPair(depth, leaf, left, separator, right);
    this.region.words[REGION_INDEX_NODES]++;
  }

  /** Where the leaf of the way is to be split. */
  #cutOf(appending: boolean): number {
    // The last slot alone: a separator needs two keys to lie between, and both are here.
    return appending && this.#way.highFence(this.#way.depth) === NO_FENCE ? LEAF_SLOTS - 1 : LEAF_SLOTS >>> 1;
  }

  /** Splits a full inner node, which lies at the way's depth; the one above it is not full. */
  #splitInner(node: number): void {
    const left = this.#nodes.take();
    const right = this.#nodes.take();
    const words = this.region.words;
    const level = levelOf(words, node);
    // Where keys come in order the first part stays well filled.
    const cut = this.#way.highFence(this.#way.depth) === NO_FENCE ? INNER_SLOTS - 8 : INNER_SLOTS >>> 1;
    this.#inner.copy(left, node, level, 0, cut);
    this.#inner.copy(right, node, level, cut + 1, INNER_SLOTS);
    this.#attachPair(this.#way.depth, node, left, words[innerSlot(node, cut) + SLOT_SEPARATOR] * 2, right);
    words[REGION_INDEX_NODES]++;
  }

  /** Puts two nodes and the separator between them in the place of one at `depth`. */
  #attachPair(depth: number, old: number, left: number, separator: number, right: number): void {
    const parent = this.#nodes.take();
    const words = this.region.words;
    let replaced = old;
    let added = 0;
    if (depth === 0) {
      setCount(words, parent, levelOf(words, left) + 1, 1);
      words[parent + NODE_FIRST_CHILD] = left >>> 1;
      words[innerSlot(parent, 0) + SLOT_SEPARATOR] = separator >>> 1;
      words[innerSlot(parent, 0) + SLOT_CHILD] = right >>> 1;
      words[REGION_INDEX_NODES]++;
    } else {
      replaced = this.#way.path[depth - 1];
      const taken = this.#way.taken[depth - 1];
      const count = countOf(words, replaced);
      setCount(words, parent, levelOf(words, replaced), count + 1);
      words[parent + NODE_FIRST_CHILD] = words[replaced + NODE_FIRST_CHILD];
      const slot = innerSlot(parent, taken);
      added = slot;
      words.copyWithin(parent + NODE_HEADER_WORDS, replaced + NODE_HEADER_WORDS, innerSlot(replaced, taken));
      words[slot + SLOT_SEPARATOR] = separator >>> 1;
      words[slot + SLOT_CHILD] = right >>> 1;
      words.copyWithin(slot + INNER_SLOT_WORDS, innerSlot(replaced, taken), innerSlot(replaced, count));
      words[childWord(parent, taken)] = left >>> 1;
    }
    const shared = this.#inner.shared(parent);
    // Where separators share as many bytes as they did, what is known of the others is still right.
    if (added !== 0 && shared === words[replaced + NODE_PREFIX]) {
      words[parent + NODE_PREFIX] = shared;
      words[added] = fragment4(this.region.bytes, separator * 4 + 4, words[separator], shared);
    } else this.#inner.setFragments(parent, shared);
    this.#nodes.even(left);
    this.#nodes.even(right);
    if (replaced !== old) this.#nodes.odd(old);
    this.#nodes.swap(this.#way.pointerTo(depth === 0 ? 0 : depth - 1), replaced, parent);
    this.#nodes.give(old);
    if (replaced !== old) this.#nodes.give(replaced);
  }

  /**
   * Where there is no memory: merges leaves that fit into one, see IndexShrinker. Room for a removal must have been reserved.
   * @param wanted leaves to take away
   * @returns how many went
   */
  compactLocked(wanted: number): number {
    return this.#shrinker.compact(wanted);
  }

  /** Makes free nodes of chunks that are free, wherever they lie, until there are `most`. */
  makeNodesLocked(most: number): void {
    this.#nodes.refill(most, true);
  }
}
