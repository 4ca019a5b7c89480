/** Filling inner nodes of the ordered index from slots of other ones. Under the index's lock; what is filled is outside of the tree. */

import type { Region } from '../memory/region.js';
import {
  NODE_FIRST_CHILD,
  NODE_HEADER_WORDS,
  NODE_PREFIX,
  SLOT_SEPARATOR,
  childWord,
  countOf,
  innerSlot,
  levelOf,
  setCount,
} from './index-node.js';
import { fragment4 } from './key-fragment.js';
import { sharedBytes } from './key-probe.js';

export class InnerFiller {
  constructor(readonly region: Region) {}

  /** Copies the slots from `from` to `to` and the child before the first of them. */
  copy(into: number, node: number, level: number, from: number, to: number): void {
    const words = this.region.words;
    setCount(words, into, level, to - from);
    words[into + NODE_FIRST_CHILD] = words[childWord(node, from)];
    words.copyWithin(into + NODE_HEADER_WORDS, innerSlot(node, from), innerSlot(node, to));
    this.setFragments(into, this.shared(into));
  }

  /** How many bytes the separators of an inner node share. */
  shared(node: number): number {
    const { words } = this.region;
    const count = countOf(words, node);
    if (count === 0) return 0;
    const first = words[innerSlot(node, 0) + SLOT_SEPARATOR] * 2;
    const last = words[innerSlot(node, count - 1) + SLOT_SEPARATOR] * 2;
    return sharedBytes(words, first + 1, words[first], words, last + 1, words[last]);
  }

  /** Notes in an inner node how much its separators share, and the four bytes behind of each. */
  setFragments(node: number, shared: number): void {
    const { words, bytes } = this.region;
    words[node + NODE_PREFIX] = shared;
    for (let i = 0; i < countOf(words, node); i++) {
      const separator = words[innerSlot(node, i) + SLOT_SEPARATOR] * 2;
      words[innerSlot(node, i)] = fragment4(bytes, (separator + 1) * 4, words[separator], shared);
    }
  }

  /** Makes `copy` the inner node `parent` without child `child`, and without the separator beside it. */
  withoutChild(copy: number, parent: number, child: number): void {
    const words = this.region.words;
    const count = countOf(words, parent);
    const without = child === 0 ? 0 : child - 1;
    setCount(words, copy, levelOf(words, parent), count - 1);
    words[copy + NODE_FIRST_CHILD] = words[childWord(parent, child === 0 ? 1 : 0)];
    words.copyWithin(copy + NODE_HEADER_WORDS, parent + NODE_HEADER_WORDS, innerSlot(parent, without));
    words.copyWithin(innerSlot(copy, without), innerSlot(parent, without + 1), innerSlot(parent, count));
    this.setFragments(copy, this.shared(copy));
  }
}
