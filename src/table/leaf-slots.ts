/**
 * The slots of one leaf, or two, copied out and brought into the order of their keys.
 *
 * A leaf's slots are sorted but for the last few, its tail (see index-node.ts). The tail is sorted by insertion and merged from behind, so the
 * slots below its lowest key are not moved. Keys are looked at only where the fragments do not decide.
 */

import { KEY_LENGTH_MASK } from '../base/record.js';
import type { Region } from '../memory/region.js';
import { ENTRY_HEADER_WORDS } from './entry.js';
import { FRAGMENT_SHIFT, LEAF_SLOTS, LEAF_TAIL_MAX, SHARD_MASK, leafSlot } from './index-node.js';
import { compareKeys } from './key-probe.js';

export class LeafSlots {
  /** Both words of each slot: the entry's unit; shard and fragment. */
  readonly units = new Int32Array(2 * LEAF_SLOTS);
  readonly heads = new Int32Array(2 * LEAF_SLOTS);
  readonly #tailUnits = new Int32Array(LEAF_TAIL_MAX);
  readonly #tailHeads = new Int32Array(LEAF_TAIL_MAX);
  #torn = false;

  /** @param regions of the shards */
  constructor(readonly regions: readonly Region[]) {}

  /** Copies the slots of a leaf as they lie. @param to index of the first one here */
  load(words: Int32Array, leaf: number, count: number, to: number): void {
    const { units, heads } = this;
    for (let i = 0, slot = leafSlot(leaf, 0); i < count; i++, slot += 2) {
      units[to + i] = words[slot];
      heads[to + i] = words[slot + 1];
    }
  }

  /**
   * Sorts the slots from `from` on, of which the last `tail` are not in order yet. Those of one leaf: their fragments are of the same place in the key.
   * @returns false when a reference led out of its region: it was read torn, or the region has grown
   */
  sort(from: number, count: number, tail: number): boolean {
    const { units, heads } = this;
    const tailUnits = this.#tailUnits;
    const tailHeads = this.#tailHeads;
    this.#torn = false;
    const first = from + count - tail;
    for (let i = 0; i < tail; i++) {
      const unit = units[first + i];
      const head = heads[first + i];
      let at = i;
      while (at > 0 && this.#isBelow(unit, head, tailUnits[at - 1], tailHeads[at - 1])) {
        tailUnits[at] = tailUnits[at - 1];
        tailHeads[at] = tailHeads[at - 1];
        at--;
      }
      tailUnits[at] = unit;
      tailHeads[at] = head;
    }
    let low = first - 1;
    let high = tail - 1;
    for (let to = from + count - 1; high >= 0; to--) {
      if (low >= from && this.#isBelow(tailUnits[high], tailHeads[high], units[low], heads[low])) {
        units[to] = units[low];
        heads[to] = heads[low--];
      } else {
        units[to] = tailUnits[high];
        heads[to] = tailHeads[high--];
      }
    }
    return !this.#torn;
  }

  #isBelow(unit: number, head: number, otherUnit: number, otherHead: number): boolean {
    const fragment = head >>> FRAGMENT_SHIFT;
    const otherFragment = otherHead >>> FRAGMENT_SHIFT;
    if (fragment !== otherFragment) return fragment < otherFragment;
    return this.#isKeyBelow(unit, head & SHARD_MASK, otherUnit, otherHead & SHARD_MASK);
  }

  #isKeyBelow(unit: number, shard: number, otherUnit: number, otherShard: number): boolean {
    const length = this.#keyLength(unit, shard);
    const otherLength = this.#keyLength(otherUnit, otherShard);
    if (length === TORN || otherLength === TORN) {
      this.#torn = true;
      return false;
    }
    const key = unit * 2 + ENTRY_HEADER_WORDS;
    const otherKey = otherUnit * 2 + ENTRY_HEADER_WORDS;
    return compareKeys(this.regions[shard].words, key, length, this.regions[otherShard].words, otherKey, otherLength) < 0;
  }

  /** Length of an entry's key, or TORN when header or key do not lie in the region. */
  #keyLength(unit: number, shard: number): number {
    if (shard >= this.regions.length) return TORN;
    const { words } = this.regions[shard];
    const entry = unit * 2;
    if (entry <= 0 || entry + ENTRY_HEADER_WORDS > words.length) return TORN;
    const length = words[entry] & KEY_LENGTH_MASK;
    return entry + ENTRY_HEADER_WORDS + ((length + 3) >>> 2) > words.length ? TORN : length;
  }
}

const TORN = -1;
