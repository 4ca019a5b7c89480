/** Room in the ordered index: what is made sure of is there, whatever the keys and the memory, above all at the memory cap. */

import t from 'tap';
import { KEY_LENGTH_MASK } from '../../src/base/record.js';
import type { Core } from '../../src/engine/core.js';
import { giveChunks, reserveTop, takeChunks } from '../../src/memory/chunks.js';
import * as L from '../../src/memory/layout.js';
import {
  CHUNK_BYTES,
  createRegionBuffer,
  GROWTH_BYTES,
  Region,
  REGION_INDEX_KEY_BYTES,
  REGION_INDEX_NODES,
  REGION_INDEX_ROOT,
  REGION_LENGTH,
} from '../../src/memory/region.js';
import { CLASS_BYTES, CLASS_COUNT, allocate, chunksFor, classOf, free, hasBlocks, slabOf } from '../../src/memory/slabs.js';
import { ENTRY_HEADER_WORDS } from '../../src/table/entry.js';
import * as N from '../../src/table/index-node.js';
import { buildLeaves, buildTree } from '../../src/table/index-build.js';
import { rangeOfAll } from '../../src/table/index-merge.js';
import { sampleShared, sortRun, type SortedRun } from '../../src/table/index-sort.js';
import { createIndex } from '../../src/table/index-tree.js';
import { KeyProbe } from '../../src/table/key-probe.js';
import { NodePool } from '../../src/table/node-pool.js';
import { randomFrom, testSeed } from '../support/random.js';
import { checkTree, del, emptyCore, indexOf, put } from '../support/index-harness.js';

function probeOf(key: string): KeyProbe {
  const probe = KeyProbe.own();
  const padded = Buffer.alloc((key.length + 3) & ~3);
  padded.write(key, 'latin1');
  probe.setWords(new Int32Array(padded.buffer, padded.byteOffset, padded.length / 4), 0, key.length);
  return probe;
}

/** No region may grow any more, and no key waits. */
function cap(core: Core): void {
  indexOf(core).settle();
  core.words[L.CONTROL_MEMORY_UNITS_MAX] = core.words[L.CONTROL_MEMORY_UNITS];
}

const ordinal = (i: number): string => String(i).padStart(6, '0');

/** Takes all chunks that a region has. @returns them, from the top down */
function takeAll(region: Region): number[] {
  const chunks: number[] = [];
  for (let chunk = takeChunks(region, 1); chunk !== 0; chunk = takeChunks(region, 1)) chunks.push(chunk);
  return chunks.sort((a, b) => b - a);
}

void t.test('regression: a short key split a leaf of long ones for whose separator there was no memory', async (t) => {
  const long = (i: number): string => `${'a'.repeat(30_000)}${ordinal(i)}`;
  // As many as a leaf takes; then a key before them all.
  const core = emptyCore(1);
  const { region } = indexOf(core);
  for (let i = 0; i < N.LEAF_SLOTS; i++) put(core, long(i));
  t.ok(indexOf(core).reserveLocked(1, 65_535));
  cap(core);
  t.equal(region.words[REGION_INDEX_NODES], 1);
  // Of the separator's class a slab has fifteen chunks.
  for (const chunk of takeAll(region).slice(0, 12)) giveChunks(region, chunk, 1);
  t.throws(() => put(core, 'a'), /^no memory/, 'it is refused, and nothing has changed');
  t.equal(checkTree(core), N.LEAF_SLOTS);
  core.words[L.CONTROL_MEMORY_UNITS_MAX] = L.MEMORY_UNITS_UNLIMITED;
  put(core, 'a');
  t.equal(checkTree(core), N.LEAF_SLOTS + 1);
});

void t.test('the longest key is known of an index built in bulk; where there is no memory for its separators that is said', async (t) => {
  const core = emptyCore(2);
  for (let i = 0; i < 300; i++) put(core, `${'b'.repeat(i % 3 === 0 ? 30_000 : 9)}${ordinal(i)}`);
  const { shards } = core;
  const run = sortRun(shards, shards, sampleShared(shards)) as SortedRun;
  const outcomes = new Set<string>();
  for (let bytes = GROWTH_BYTES; ; bytes += GROWTH_BYTES) {
    const region = new Region(createRegionBuffer(bytes), core.words);
    t.ok(createIndex(region));
    const leaves = buildLeaves(region, shards, [run], rangeOfAll([run]), 1);
    const outcome = leaves === undefined ? 'leaves' : buildTree(region, shards, [leaves]) ? 'built' : 'tree';
    outcomes.add(outcome);
    if (outcome !== 'built') continue;
    t.equal(region.words[REGION_INDEX_KEY_BYTES], 30_006);
    break;
  }
  t.same([...outcomes], ['leaves', 'tree', 'built']);
});

/** Keys that are in the tables and not in the index, as while a batch is applied: the unit of each. Takes the index's lock. */
function putWithoutIndex(core: Core, keys: Iterable<string>): Map<string, number> {
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
function fillLeaves(core: Core): string[] {
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
class Hoard {
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

void t.test('what is made sure of for some keys suffices, at the cap, with keys of all lengths', async (t) => {
  const random = randomFrom(testSeed(t));
  const draw = (below: number): number => Math.floor(random() * below);
  const given = [0, 0];
  let refused = 0;
  for (let round = 0; round < 150; round++) {
    const core = emptyCore(1);
    const index = indexOf(core);
    const { region } = index;
    const longest = [20, 300, 2000, 9000, 40_000][round % 5];
    const count = longest > 300 ? 300 : 6000;
    const name = (): string => {
      const stem = 'abc'[draw(3)];
      return `${stem.repeat(draw(3) === 0 ? draw(longest) : draw(4))}${ordinal(draw(count))}`;
    };
    const keys = new Set<string>();
    while (keys.size < count) keys.add(name());
    // Where nodes come back one by one nearly every key is to split its leaf: those of keys in order are full.
    const hoards = round % 3 === 0;
    for (const key of !hoards && draw(2) === 0 ? keys : [...keys].sort()) put(core, key);
    if (hoards) for (const key of fillLeaves(core)) keys.add(key);
    // Some thin leaves and free nodes, in some rounds.
    const thinned = hoards ? 0 : draw(4) / 5;
    for (const key of [...keys]) {
      if (random() >= thinned) continue;
      del(core, key);
      keys.delete(key);
    }
    const fresh = new Set<string>();
    const wanted = 1 + draw(draw(2) === 0 ? 8 : longest > 300 ? 250 : 2000);
    while (fresh.size < wanted) {
      const key = name();
      if (!keys.has(key)) fresh.add(key);
    }
    const units = putWithoutIndex(core, fresh);
    const hoard = hoards ? new Hoard(core, longest + 16, fresh.size) : undefined;
    t.ok(index.reserveLocked(wanted, longest + 8));
    cap(core);
    const chunks = takeAll(region);
    // From the top down, or from anywhere: then nodes may take what a longer run for separators would need.
    const isAnywhere = draw(3) === 0;
    if (isAnywhere) chunks.sort(() => random() - 0.5);
    // No more than it takes: chunk after chunk comes back, or node after node.
    const bytes = Math.max(...[...fresh].map((key) => key.length));
    const isEach = Math.floor(round / 5) % 2;
    const isReserved = (): boolean =>
      isEach === 1 ? index.reserveEachLocked([...fresh].map(probeOf), 0, bytes) : index.reserveLocked(fresh.size, bytes);
    let isEnough = isReserved();
    for (; !isEnough && chunks.length > 0; isEnough = isReserved()) {
      if (hoard?.giveNode() === true) continue;
      giveChunks(region, chunks.shift() ?? 0, 1);
      given[isEach]++;
    }
    t.ok(isEnough || isAnywhere);
    if (!isEnough) refused++;
    else for (const [key, unit] of units) index.setLocked(probeOf(key), 0, unit);
    index.unlock();
    t.equal(checkTree(core), keys.size + (isEnough ? fresh.size : 0));
  }
  t.ok(refused < 30, `${refused} refused`);
  t.comment(`${given.join(', ')} chunks; ${refused} refused`);
  t.ok(given[1] < given[0], 'keys that are looked for need less');
});

void t.test('regression: inner nodes that are as good as full, all of which may be split at once, were not reckoned with', async (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const { region } = index;
  // Keys in order fill their leaves but for one slot, and their inner nodes but for eight; the second key between two others splits a leaf.
  for (let i = 0; i < 330_000; i++) put(core, ordinal(i));
  index.settle();
  const fresh: string[] = [];
  const filling: string[] = [];
  const visit = (node: number): void => {
    const { words } = region;
    const count = N.countOf(words, node);
    const first = words[N.childWord(node, 0)] * 2;
    if (N.levelOf(words, node) > 1) {
      for (let i = 0; i <= count; i++) visit(words[N.childWord(node, i)] * 2);
      return;
    }
    const entry = words[N.leafSlot(first, 0)] * 2 + ENTRY_HEADER_WORDS;
    const key = Number(core.shards[0].region.bytes.toString('latin1', entry * 4, entry * 4 + 6));
    if (N.INNER_SLOTS - count > 8) return;
    const inLeaf = (i: number): string => ordinal(key + i * (N.LEAF_SLOTS - 1) + 9);
    // All but one slot: once the node is full whatever passes splits it.
    filling.push(`${inLeaf(20)}/`);
    for (let i = 0; i < N.INNER_SLOTS - count - 1; i++) filling.push(`${inLeaf(i)}/`, `${inLeaf(i)}/2`);
    fresh.push(`${inLeaf(20)}/2`);
  };
  visit(region.words[REGION_INDEX_ROOT] * 2);
  t.ok(fresh.length > 25, `${fresh.length} inner nodes`);
  for (const key of filling) put(core, key);
  const units = putWithoutIndex(core, fresh);
  const hoard = new Hoard(core, 40, fresh.length);
  cap(core);
  takeAll(region);
  while (!index.reserveLocked(fresh.length, 8)) t.ok(hoard.giveNode());
  for (const [key, unit] of units) index.setLocked(probeOf(key), 0, unit);
  index.unlock();
  t.equal(checkTree(core), 330_000 + filling.length + fresh.length);
});

void t.test('blocks that are said to be there are there, and chunks that are said to suffice do', async (t) => {
  const random = randomFrom(testSeed(t));
  const draw = (below: number): number => Math.floor(random() * below);
  let blocks = 0;
  for (let round = 0; round < 400; round++) {
    const core = emptyCore(1);
    const { region } = indexOf(core);
    const taken: { unit: number; sizeClass: number }[] = [];
    const sizeClass = draw(CLASS_COUNT);
    const most = CLASS_BYTES[sizeClass];
    for (let i = draw(2) === 0 ? 0 : draw(400); i > 0; i--) {
      const bytes = draw(3) === 0 ? most : 16 + draw(draw(8) === 0 ? 30_000 : 700);
      const unit = allocate(region, bytes, classOf(bytes));
      taken.push({ unit, sizeClass: region.takenClass });
    }
    let count = 1 + draw(draw(2) === 0 ? 8 : 300);
    const needed = chunksFor(most, count);
    t.ok(reserveTop(region, needed * CHUNK_BYTES));
    cap(core);
    const chunks = takeAll(region);
    if (round % 2 === 0) {
      for (const chunk of chunks.slice(0, needed)) giveChunks(region, chunk, 1);
    } else {
      for (const chunk of chunks.slice(0, draw(5))) giveChunks(region, chunk, 1);
      for (const { unit, sizeClass: its } of taken) if (draw(3) > 0) free(region, unit, its);
      for (count = 0; hasBlocks(region, most, count + 1);) count++;
    }
    blocks += count;
    // All of a size, of all sizes one after the other, or of any.
    const way = draw(3);
    const missing: string[] = [];
    for (let i = 0; i < count; i++) {
      const bytes = way === 0 ? most : way === 1 ? CLASS_BYTES[i % (sizeClass + 1)] : 1 + draw(most);
      if (allocate(region, bytes, classOf(bytes)) === 0) missing.push(`block ${i} of ${count}, ${bytes} of up to ${most} bytes`);
    }
    t.same(missing, []);
  }
  t.ok(blocks > 1000, `${blocks}`);
});
