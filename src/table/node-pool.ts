/**
 * Nodes of the ordered index that are not in the tree, and the versions that say which are. Under the index's lock.
 *
 * Free nodes are kept in a list of their own, youngest first: their memory stays nodes, and the one given back last is still in the cache.
 */

import { assert } from '../base/errors.js';
import { storeRelease } from '../memory/fence.js';
import { REGION_FREE_CHUNKS, REGION_INDEX_FREE, REGION_INDEX_FREE_COUNT, REGION_SLABS, type Region } from '../memory/region.js';
import { allocate } from '../memory/slabs.js';
import { NODE_BYTES, NODE_CLASS, NODE_NEXT_FREE, NODE_VERSION } from './index-node.js';

export class NodePool {
  constructor(readonly region: Region) {}

  /** Takes a node, which is outside of the tree; memory for it was made sure of. @returns its word index */
  take(): number {
    const { region } = this;
    const { words } = region;
    const unit = words[REGION_INDEX_FREE];
    if (unit !== 0) {
      words[REGION_INDEX_FREE] = words[unit * 2 + NODE_NEXT_FREE];
      words[REGION_INDEX_FREE_COUNT]--;
      return unit * 2;
    }
    const fresh = allocate(region, NODE_BYTES, NODE_CLASS);
    assert(fresh !== 0, 'memory for the index was made sure of');
    // What lies there may look like anything: an odd number is as good as any other to begin with.
    region.words[fresh * 2 + NODE_VERSION] |= 1;
    return fresh * 2;
  }

  /**
   * Makes free nodes of the blocks that are free in slabs of nodes, until there are `most`: after a repair, which forgets the list.
   * @param takesChunks whether chunks that are free become slabs of nodes
   */
  refill(most: number, takesChunks: boolean): void {
    const { region } = this;
    const { words } = region;
    const isLeft = (): boolean => words[REGION_SLABS + NODE_CLASS] !== 0 || (takesChunks && words[REGION_FREE_CHUNKS] > 0);
    while (words[REGION_INDEX_FREE_COUNT] < most && isLeft()) {
      const node = allocate(region, NODE_BYTES, NODE_CLASS) * 2;
      words[node + NODE_VERSION] |= 1;
      this.give(node);
    }
  }

  /** Gives back a node that nothing leads to any more. */
  give(node: number): void {
    const { words } = this.region;
    words[node + NODE_NEXT_FREE] = words[REGION_INDEX_FREE];
    words[REGION_INDEX_FREE] = node >>> 1;
    words[REGION_INDEX_FREE_COUNT]++;
  }

  /** Says that a node leaves the tree: before the store that takes it out. */
  odd(node: number): void {
    const { words } = this.region;
    storeRelease(words, node + NODE_VERSION, (words[node + NODE_VERSION] + 1) | 1);
  }

  /** Says that a node, which is complete, is in the tree: before the store that puts it there. */
  even(node: number): void {
    const { words } = this.region;
    storeRelease(words, node + NODE_VERSION, (words[node + NODE_VERSION] + 1) & ~1);
  }

  /**
   * Puts a finished node in the place of one that leaves the tree: the store that makes a change.
   * @param pointer the word that leads to the old one
   */
  swap(pointer: number, old: number, node: number): void {
    this.even(node);
    this.odd(old);
    storeRelease(this.region.words, pointer, node >>> 1);
  }
}
