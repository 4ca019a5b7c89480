/** Ordered indexes whose memory is all but used up, and changes to make sure of: for the tests of the room that they need. */

import { KEY_LENGTH_MASK } from '../../src/base/record.js';
import type { Core } from '../../src/engine/core.js';
import { takeChunks } from '../../src/memory/chunks.js';
import * as L from '../../src/memory/layout.js';
import { Region, REGION_INDEX_FREE_COUNT, REGION_INDEX_ROOT, REGION_LENGTH, REGION_SLABS } from '../../src/memory/region.js';
import { CLASS_BYTES, CLASS_COUNT, allocate, classOf, free, slabOf } from '../../src/memory/slabs.js';
import { ENTRY_HEADER_WORDS } from '../../src/table/entry.js';
import * as N from '../../src/table/index-node.js';
import { KeyProbe } from '../../src/table/key-probe.js';
import { NodePool } from '../../src/table/node-pool.js';
import { emptyCore, indexOf, put } from './index-harness.js';

export function probeOf(key: string): KeyProbe {
  const probe = KeyProbe.own();
  const padded = Buffer.alloc((key.length + 3) & ~3);
  padded.write(key, 'latin1');
  probe.setWords(new Int32Array(padded.buffer, padded.byteOffset, padded.length / 4), 0, key.length);
  return probe;
}

/** No region may grow any more, and no key waits. */
export function cap(core: Core): void {
  indexOf(core).settle();
  core.words[L.CONTROL_MEMORY_UNITS_MAX] = core.words[L.CONTROL_MEMORY_UNITS];
}

export const ordinal = (i: number): string => String(i).padStart(6, '0');

/** Takes all chunks that a region has. @returns them, from the top down */
export function takeAll(region: Region): number[] {
  const chunks: number[] = [];
  for (let chunk = takeChunks(region, 1); chunk !== 0; chunk = takeChunks(region, 1)) chunks.push(chunk);
  return chunks.sort((a, b) => b - a);
}

/** Keys that are in the tables and not in the index, as while a batch is applied: the unit of each. Takes the index's lock. */
export function putWithoutIndex(core: Core, keys: Iterable<string>): Map<string, number> {
  const index = indexOf(core);
  const { region } = index;
  const units = new Map<string, number>();
  index.settle();
  const before = region.words.slice();
  for (const key of keys) put(core, key);
  index.settle();
  index.lock();
  for (const key of keys) units.set(key, index.unitLocked(probeOf(key)));
  // The index as it was, but for its length.
  const length = region.words[REGION_LENGTH];
  region.words.set(before);
  region.words[REGION_LENGTH] = length;
  return units;
}

/** Puts another key into each leaf that has room for just one. @returns those keys */
export function fillLeaves(core: Core): string[] {
  const { region } = indexOf(core);
  const [shard] = core.shards;
  const added: string[] = [];
  const visit = (node: number): void => {
    const { words } = region;
    const count = N.countOf(words, node);
    if (N.levelOf(words, node) !== 0) for (let i = 0; i <= count; i++) visit(words[N.childWord(node, i)] * 2);
    else if (count === N.LEAF_SLOTS - 1) {
      const entry = words[N.leafSlot(node, 3)] * 2;
      const start = (entry + ENTRY_HEADER_WORDS) * 4;
      added.push(`${shard.region.bytes.toString('latin1', start, start + (shard.region.words[entry] & KEY_LENGTH_MASK))}/`);
    }
  };
  indexOf(core).settle();
  visit(region.words[REGION_INDEX_ROOT] * 2);
  for (const key of added) put(core, key);
  indexOf(core).settle();
  return added;
}

/** Blocks for separators, which come back at once, and nodes, which come back one by one: so that the nodes are all that is missing. */
export class Hoard {
  readonly #pool: NodePool;
  readonly #nodes: number[] = [];

  constructor(core: Core, bytes: number, count: number) {
    const { region } = indexOf(core);
    this.#pool = new NodePool(region);
    const sizeClass = Math.min(classOf(bytes), CLASS_COUNT - 1);
    const units = Array.from({ length: count + 70 }, () => allocate(region, CLASS_BYTES[sizeClass], sizeClass));
    // One of each slab stays, so that it does not become chunks again.
    const slabs = new Set<number>();
    for (const unit of units) {
      const { chunk } = slabOf(region, unit);
      if (slabs.has(chunk)) free(region, unit, sizeClass);
      slabs.add(chunk);
    }
    for (let i = 0; i < 2 * count + 100; i++) this.#nodes.push(this.#pool.take());
  }

  giveNode(): boolean {
    const node = this.#nodes.pop();
    if (node === undefined) return false;
    this.#pool.give(node);
    return true;
  }
}

/** Calls back with the keys that a batch adds and removes. */
export const changesOf = (added: Iterable<string>, removed: Iterable<string> = []) => {
  const comes = Array.from(added, probeOf);
  const goes = Array.from(removed, probeOf);
  return (visit: (probe: KeyProbe, isAdded: boolean) => void): void => {
    for (const probe of goes) visit(probe, false);
    for (const probe of comes) visit(probe, true);
  };
};

/** Takes all blocks of all slabs, so that none is left, but for those of one class. */
export function takeBlocks(region: Region, but = -1): Map<number, number[]> {
  const taken = new Map<number, number[]>();
  for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass++) {
    if (sizeClass === but) continue;
    const units: number[] = [];
    while (region.words[REGION_SLABS + sizeClass] !== 0) units.push(allocate(region, CLASS_BYTES[sizeClass], sizeClass));
    taken.set(sizeClass, units);
  }
  return taken;
}

/** Takes all nodes that are free, and so many more. */
export function takeNodes(pool: NodePool, more: number): number[] {
  const nodes: number[] = [];
  for (let i = 0; i < more; i++) nodes.push(pool.take());
  while (pool.region.words[REGION_INDEX_FREE_COUNT] > 0 || pool.region.words[REGION_SLABS + N.NODE_CLASS] !== 0) nodes.push(pool.take());
  return nodes;
}

/**
 * A tree whose leaves are full, but for the last, and keys of which each splits another one.
 * @param apart so much longer than those of the leaf before are the separators of what a leaf is split into
 */
export function fullLeaves(count: number, apart: number): { core: Core; between: string[] } {
  const core = emptyCore(1);
  const name = (leaf: number, i: number): string => `${ordinal(leaf)}${'x'.repeat(leaf * apart)}${ordinal(i)}`;
  for (let leaf = 0; leaf < count; leaf++) for (let i = 0; i < N.LEAF_SLOTS - 1; i++) put(core, name(leaf, i));
  put(core, name(count, 0));
  indexOf(core).settle();
  for (let leaf = 0; leaf < count; leaf++) put(core, `${name(leaf, 3)}/`);
  indexOf(core).settle();
  return { core, between: Array.from({ length: count }, (_, leaf) => `${name(leaf, 3)}/2`) };
}
