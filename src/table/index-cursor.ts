/**
 * Reading the ordered index without its lock: where a range begins, and one leaf of references after the other.
 *
 * A leaf's references are copied in one validated read: the node's version is loaded, the node read, the version loaded again. On the way down a
 * child's version is loaded before its parent's is checked, so the child was in the tree at that version. A node in the tree
 * never changes, so an unchanged version means that every reference copied from it still leads to a live entry; a reader of an entry asks
 * `isCurrent` after it has copied the entry. When the leaf has been replaced meanwhile, the reader seeks again, behind the
 * last key that it has seen.
 *
 * After ATTEMPTS failures in a row the index's lock is taken for one leaf.
 */

import { assert } from '../base/errors.js';
import { KEY_LENGTH_MASK } from '../base/record.js';
import { fence, loadAcquire } from '../memory/fence.js';
import { REGION_INDEX_REPAIRS, REGION_INDEX_ROOT, type Region } from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import {
  FRAGMENT_SHIFT,
  LEAF_SLOTS,
  LEVELS_MAX,
  NODE_BYTES,
  NODE_PREFIX,
  NODE_VERSION,
  SHARD_MASK,
  SLOT_SEPARATOR,
  childFor,
  childWord,
  countOf,
  innerSlot,
  leafSlot,
  levelOf,
} from './index-node.js';
import { fragmentOf } from './key-fragment.js';
import { KeyProbe, compareKeys } from './key-probe.js';
import type { OrderedIndex } from './ordered-index.js';

const ATTEMPTS = 64;
/** Entries fetched ahead: as many as a processor has loads under way. */
export const AHEAD = 8;
const LINE_WORDS = 16;
const NODE_WORDS = NODE_BYTES / 4;

export class IndexCursor {
  /** The leaf's references from `next` on; `next` moves towards `count`, or towards -1 when reading backwards. */
  readonly units = new Int32Array(LEAF_SLOTS);
  readonly shardOf = new Uint8Array(LEAF_SLOTS);
  count = 0;
  next = 0;
  /** The separator behind the leaf in the direction of reading; means something while `hasFence`. */
  #fence = KeyProbe.own();
  /** Where the fence of the leaf that is sought is put: the fence itself may be what is sought for. */
  #nextFence = KeyProbe.own();
  #hasFence = false;
  #node = 0;
  #version = 0;
  #repairs = 0;
  /** Keeps the loads of `fetchAhead` from being optimized away. */
  fetched = 0;
  /** Seeks that had to be done again; read by the metrics. */
  retries = 0;

  constructor(
    readonly index: OrderedIndex,
    readonly reverse: boolean,
  ) {}

  /** Whether the leaf is still as it was copied: then every reference of it led to a live entry until now. */
  isCurrent(): boolean {
    const { words } = this.index.region;
    return loadAcquire(words, this.#node + NODE_VERSION) === this.#version && words[REGION_INDEX_REPAIRS] === this.#repairs;
  }

  /**
   * Goes to the first key at or behind `probe` in the direction of reading, of all that were put before.
   * @param probe `undefined` for the edge of the index
   * @param inclusive whether the probe itself counts
   * @throws FlashVectorError FV_TIMEOUT when the index lock's holder is stuck; FV_MEMORY_FULL when the system has no memory for the index
   */
  seek(probe: KeyProbe | undefined, inclusive: boolean): void {
    this.index.settle();
    this.#seek(probe, inclusive);
  }

  #seek(probe: KeyProbe | undefined, inclusive: boolean): void {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (this.#trySeek(probe, inclusive)) return;
      this.retries++;
    }
    const { index } = this;
    index.lock();
    try {
      // The first time the views of shards that have grown may not reach what a leaf leads to. Under the lock nothing changes any more.
      const found = this.#trySeek(probe, inclusive) || this.#trySeek(probe, inclusive);
      assert(found, 'the index is whole while its lock is held');
    } finally {
      index.unlock();
    }
  }

  /**
   * Fetches the next entries into the cache, all at once: their memory lies anywhere, and a processor that waits for one load after the other
   * spends a third of a scan on it. What is loaded is not looked at; it may be anything.
   * @param from index of the first of them
   */
  fetchAhead(from: number): void {
    const { regions } = this.index;
    const step = this.reverse ? -1 : 1;
    let sum = 0;
    for (let i = from, left = AHEAD; left > 0 && i >= 0 && i < this.count; i += step, left--) {
      const { words } = regions[this.shardOf[i]];
      const entry = this.units[i] * 2;
      if (entry + 2 * LINE_WORDS < words.length) sum ^= words[entry] ^ words[entry + LINE_WORDS] ^ words[entry + 2 * LINE_WORDS];
    }
    this.fetched = sum;
  }

  /** Goes on to the leaf behind this one. Keys put since the range was begun may be missing: its snapshot does not see them. @returns false at the edge of the index */
  nextLeaf(): boolean {
    if (!this.#hasFence) return false;
    // Forwards the separator is the first possible key of the next leaf; backwards it belongs to the leaf that was read.
    this.#seek(this.#fence, !this.reverse);
    return true;
  }

  #trySeek(probe: KeyProbe | undefined, inclusive: boolean): boolean {
    const { region } = this.index;
    const { reverse } = this;
    const words = region.words;
    const repairs = words[REGION_INDEX_REPAIRS];
    const root = words[REGION_INDEX_ROOT];
    let node = root * 2;
    if (node + NODE_WORDS > words.length) return this.#refresh(region);
    let version = loadAcquire(words, node + NODE_VERSION);
    fence(region.control);
    if ((version & 1) !== 0 || words[REGION_INDEX_ROOT] !== root) return false;
    // Backwards and without the probe itself: the leaf with the last key below it.
    const strictly = reverse && !inclusive;
    let fenceOf = 0;
    for (let depth = 0; levelOf(words, node) !== 0; depth++) {
      const count = countOf(words, node);
      if (depth === LEVELS_MAX || count > LEAF_SLOTS) return false;
      const child = probe === undefined ? (reverse ? count : 0) : childFor(region, node, probe, strictly);
      const beside = reverse ? child - 1 : child;
      if (beside >= 0 && beside < count) fenceOf = words[innerSlot(node, beside) + SLOT_SEPARATOR] * 2;
      const pointer = childWord(node, child);
      const next = words[pointer] * 2;
      if (next <= 0 || next + NODE_WORDS > words.length) return this.#refresh(region);
      const nextVersion = loadAcquire(words, next + NODE_VERSION);
      fence(region.control);
      // The parent unchanged and its pointer too: the child was in the tree at this version.
      if ((nextVersion & 1) !== 0 || words[pointer] !== next >>> 1 || loadAcquire(words, node + NODE_VERSION) !== version) return false;
      node = next;
      version = nextVersion;
    }
    const count = countOf(words, node);
    if (count > LEAF_SLOTS) return false;
    for (let i = 0; i < count; i++) {
      const slot = leafSlot(node, i);
      this.units[i] = words[slot];
      this.shardOf[i] = words[slot + 1];
    }
    if (fenceOf !== 0) {
      const fenceLength = words[fenceOf];
      if (fenceLength <= 0 || fenceLength > KEY_LENGTH_MASK || fenceOf + 1 + ((fenceLength + 3) >>> 2) > words.length)
        return this.#refresh(region);
      this.#nextFence.setWords(words, fenceOf + 1, fenceLength);
    }
    let next = reverse ? count - 1 : 0;
    if (probe !== undefined && count !== 0) {
      next = this.#search(node, count, probe, inclusive);
      if (next === TORN) return this.#refresh(region);
    }
    this.#node = node;
    this.#version = version;
    this.#repairs = repairs;
    fence(region.control);
    if (!this.isCurrent()) return false;
    this.count = count;
    this.next = next;
    this.#hasFence = fenceOf !== 0;
    const before = this.#fence;
    this.#fence = this.#nextFence;
    this.#nextFence = before;
    return true;
  }

  #refresh(region: Region): false {
    region.refresh();
    for (const shard of this.index.regions) shard.refresh();
    return false;
  }

  /** Index of the first slot of the leaf to be read, or of none. */
  #search(node: number, count: number, probe: KeyProbe, inclusive: boolean): number {
    const words = this.index.region.words;
    const fragment = fragmentOf(probe.bytes, probe.at * 4, probe.length, words[node + NODE_PREFIX]);
    // Slots below `low` are below the probe; an equal one counts as below it where it is not to be read.
    const equalIsBelow = this.reverse ? inclusive : !inclusive;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = leafSlot(node, middle);
      const found = words[slot + 1] >>> FRAGMENT_SHIFT;
      let order = fragment - found;
      if (order === 0) {
        const region = this.index.regions[words[slot + 1] & SHARD_MASK];
        const entry = words[slot] * 2;
        if (region === undefined || entry <= 0 || entry + ENTRY_HEADER_WORDS > region.words.length) return TORN;
        const length = region.words[entry] & KEY_LENGTH_MASK;
        if (entry + ENTRY_HEADER_WORDS + ((length + 3) >>> 2) > region.words.length) return TORN;
        order = compareKeys(probe.words, probe.at, probe.length, region.words, entry + ENTRY_HEADER_WORDS, length);
      }
      if (order > 0 || (order === 0 && equalIsBelow)) low = middle + 1;
      else high = middle;
    }
    return this.reverse ? low - 1 : low;
  }
}

const TORN = -2;
