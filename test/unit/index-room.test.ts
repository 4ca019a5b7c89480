/** Room in the ordered index: what is made sure of is there, whatever the keys and the memory, above all at the memory cap. */

import t from 'tap';
import { KEY_LENGTH_MASK } from '../../src/base/record.js';
import type { Core } from '../../src/engine/core.js';
import { Repair } from '../../src/engine/repair.js';
import { giveChunks, reserveTop, takeChunks } from '../../src/memory/chunks.js';
import * as L from '../../src/memory/layout.js';
import {
  CHUNK_BYTES,
  createRegionBuffer,
  GROWTH_BYTES,
  Region,
  REGION_FREE_CHUNKS,
  REGION_INDEX_FREE_COUNT,
  REGION_INDEX_KEY_BYTES,
  REGION_INDEX_NODES,
  REGION_INDEX_ROOT,
  REGION_LENGTH,
  REGION_SLABS,
} from '../../src/memory/region.js';
import { claimSlot } from '../../src/memory/registry.js';
import { CLASS_BYTES, CLASS_COUNT, allocate, chunksFor, classOf, free, hasBlocks, slabOf } from '../../src/memory/slabs.js';
import { BatchRoom } from '../../src/table/batch-room.js';
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
  indexOf(core).replenishLocked();
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

/** Calls back with the keys that a batch adds and removes. */
const changesOf = (added: Iterable<string>, removed: Iterable<string> = []) => {
  const comes = Array.from(added, probeOf);
  const goes = Array.from(removed, probeOf);
  return (visit: (probe: KeyProbe, isAdded: boolean) => void): void => {
    for (const probe of goes) visit(probe, false);
    for (const probe of comes) visit(probe, true);
  };
};

void t.test('what is made sure of for a batch suffices, at the cap, with keys of all lengths', async (t) => {
  const random = randomFrom(testSeed(t));
  const draw = (below: number): number => Math.floor(random() * below);
  const shuffle = <T>(list: T[]): T[] => {
    for (let i = list.length - 1; i > 0; i--) {
      const j = draw(i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  };
  const outcomes = { end: 0, each: 0, refused: 0 };
  for (let round = 0; round < 160; round++) {
    const core = emptyCore(1);
    const index = indexOf(core);
    const { region } = index;
    const longest = [20, 300, 450, 2000, 40_000][round % 5];
    const count = longest > 450 ? 400 : 4000;
    const name = (): string => {
      const stem = 'abc'[draw(3)];
      return `${stem.repeat(draw(3) === 0 ? draw(longest) : draw(4))}${ordinal(draw(count * 2))}`;
    };
    const keys = new Set<string>();
    while (keys.size < count) keys.add(name());
    // Where nodes come back one by one nearly every key is to split its leaf: those of keys in order are full.
    const hoards = round % 3 === 0;
    for (const key of !hoards && draw(2) === 0 ? keys : [...keys].sort()) put(core, key);
    if (hoards) for (const key of fillLeaves(core)) keys.add(key);
    // Some thin leaves and free nodes, in some rounds.
    const thinned = hoards ? 0 : [0, 0.3, 0.64, 0.8][draw(4)];
    for (const key of [...keys]) {
      if (random() >= thinned) continue;
      del(core, key);
      keys.delete(key);
    }
    const fresh = new Set<string>();
    const wanted = 1 + draw(draw(2) === 0 ? 8 : hoards ? 60 : longest > 450 ? 250 : 2000);
    while (fresh.size < wanted) {
      const key = name();
      if (!keys.has(key)) fresh.add(key);
    }
    // Those that go are many of a few leaves.
    const sorted = [...keys].sort();
    const from = draw(sorted.length);
    const doomed = draw(2) === 0 ? [] : sorted.slice(from, from + 1 + draw(200));
    const units = putWithoutIndex(core, fresh);
    const bytes = Math.max(...[...fresh].map((key) => key.length));
    const hoard = hoards ? new Hoard(core, longest + 16, fresh.size) : undefined;
    index.reserveLocked(0, 0);
    reserveTop(region, draw(2) === 0 ? 0 : draw(2_000_000));
    cap(core);
    // From the top down, or from anywhere.
    const chunks = draw(2) === 0 ? takeAll(region) : shuffle(takeAll(region));
    const changes = changesOf(fresh, doomed);
    const isReserved = (): boolean => {
      if (index.reserveLocked(fresh.size, bytes)) outcomes.end++;
      else if (index.reserveEachLocked(changes)) outcomes.each++;
      else return false;
      return true;
    };
    // Asked once, or until it is enough: one chunk more each time, or one node.
    const once = draw(2) === 0;
    for (let i = once ? draw(40) : 0; i > 0 && chunks.length > 0; i--) {
      if (hoard?.giveNode() !== true) giveChunks(region, chunks.shift() ?? 0, 1);
    }
    let isEnough = isReserved();
    for (; !once && !isEnough && chunks.length > 0; isEnough = isReserved()) {
      if (hoard?.giveNode() === true) continue;
      for (const chunk of chunks.splice(0, 1 + Math.floor(wanted / 100))) giveChunks(region, chunk, 1);
    }
    if (!isEnough) outcomes.refused++;
    else {
      const operations = shuffle([...fresh, ...doomed]);
      for (const key of operations) {
        const unit = units.get(key);
        if (unit === undefined) index.removeLocked(probeOf(key));
        else index.setLocked(probeOf(key), 0, unit);
      }
    }
    index.unlock();
    t.equal(checkTree(core), keys.size + (isEnough ? fresh.size - doomed.length : 0));
  }
  t.comment(JSON.stringify(outcomes));
  t.ok(outcomes.end > 2 && outcomes.each > 10 && outcomes.refused < 140, JSON.stringify(outcomes));
});

void t.test('behind the burial of another thread there is what a writer had made sure of that waited for it', async (t) => {
  const dead = 2;
  const longKey = (i: number): string => `${'z'.repeat(60_000)}${ordinal(i)}`;
  for (const count of [1, 300, 1500, 1700, 1900, 2100]) {
    const core = emptyCore(1);
    for (let i = 0; i < 3000; i++) put(core, ordinal(2 * i));
    // Until the next one splits its leaf.
    let longs = 0;
    const index = indexOf(core);
    for (; longs < 10 || index.separatorBytesLocked(probeOf(`${longKey(5)}-`)) < 60_000; longs++) {
      put(core, longKey(longs));
      index.settle();
    }
    const long = probeOf(`${longKey(5)}-`);
    const missing = Array.from({ length: count }, (_, i) => ordinal(2 * i + 1));
    // Takes the index's lock, as a writer that waits for another one with it in its hand.
    putWithoutIndex(core, missing);
    const { region } = index;
    t.ok(index.reserveOneLocked(long));
    // And no more than that: others have had what the region holds besides.
    core.words[L.CONTROL_MEMORY_UNITS_MAX] = core.words[L.CONTROL_MEMORY_UNITS];
    const others: number[] = [];
    while (index.reserveOneLocked(long)) others.push(takeChunks(region, 1));
    giveChunks(region, others.pop() ?? 0, 1);
    t.ok(index.reserveOneLocked(long));
    core.words[L.CONTROL_MEMORY_UNITS_MAX] = L.MEMORY_UNITS_UNLIMITED;
    claimSlot(core.control, dead, 0);
    core.words[core.shards[0].lockWord] = dead + 1;
    t.ok(new Repair(core).bury(dead));
    region.refresh();
    core.words[L.CONTROL_MEMORY_UNITS_MAX] = core.words[L.CONTROL_MEMORY_UNITS];
    t.ok(index.reserveOneLocked(long), `${count} keys were put into the index meanwhile, and others took the rest of the memory`);
    index.unlock();
    t.equal(checkTree(core), 3000 + longs + count);
  }
});

/** Takes all blocks of all slabs, so that none is left, but for those of one class. */
function takeBlocks(region: Region, but = -1): Map<number, number[]> {
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
function takeNodes(pool: NodePool, more: number): number[] {
  const nodes: number[] = [];
  for (let i = 0; i < more; i++) nodes.push(pool.take());
  while (pool.region.words[REGION_INDEX_FREE_COUNT] > 0 || pool.region.words[REGION_SLABS + N.NODE_CLASS] !== 0) nodes.push(pool.take());
  return nodes;
}

void t.test('regression: leaves that were merged for their nodes were counted as they had been', async (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const { region } = index;
  const key = (leaf: number, i: number): string => `${ordinal(leaf >> 1)}${'ab'[leaf & 1]}${'x'.repeat(300)}${ordinal(i)}`;
  // Five pairs of leaves that can be merged; the separators within a pair are short, and a merged leaf takes a long one.
  for (let leaf = 0; leaf < 11; leaf++) for (let i = 0; i < 124; i++) put(core, key(leaf, 2 * i));
  index.settle();
  for (let leaf = 0; leaf < 10; leaf++) for (let i = 0; i < 79; i++) del(core, key(leaf, 2 * i));
  const fresh: string[] = [];
  for (let pair = 0; pair < 5; pair++) for (let i = 0; i < 40; i++) fresh.push(key(2 * pair, 2 * (80 + i) + 1));
  const units = putWithoutIndex(core, fresh);
  const pool = new NodePool(region);
  const nodes = takeNodes(pool, 60);
  const long = classOf(316);
  const slab = allocate(region, 320, long);
  cap(core);
  takeAll(region);
  const blocks = takeBlocks(region).get(long) ?? [];
  blocks.push(slab);
  // One too few for leaves that are not split.
  for (const node of nodes.slice(0, 8)) pool.give(node);
  const rest = nodes.slice(8);
  // Each attempt may merge leaves: what it says has to be right at once.
  while (!index.reserveEachLocked(changesOf(fresh))) {
    const node = rest.pop();
    if (node !== undefined) pool.give(node);
    else {
      t.ok(blocks.length > 0);
      if (blocks.length === 0) return;
      free(region, blocks.pop() ?? 0, long);
    }
  }
  for (const [name, unit] of units) index.setLocked(probeOf(name), 0, unit);
  index.unlock();
  t.equal(checkTree(core), 11 * 124 - 790 + 200);
});

void t.test('regression: leaves that removals merge were reckoned to split once where they split twice', async (t) => {
  // Keys that come to the ends of the two leaves of a pair: 97 make two more leaves of the merged one, 34 make one.
  for (const [pairs, toFirst, toSecond] of [
    [12, 3, 94],
    [20, 3, 31],
  ]) {
    const core = emptyCore(1);
    const index = indexOf(core);
    const { region } = index;
    const key = (leaf: number, i: number): string => `${ordinal(leaf >> 1)}${'ab'[leaf & 1]}${'x'.repeat(300)}${ordinal(i)}`;
    for (let leaf = 0; leaf <= 2 * pairs; leaf++) for (let i = 0; i < 124; i++) put(core, key(leaf, 2 * i));
    index.settle();
    const fresh: string[] = [];
    const doomed: string[] = [];
    // Leaves of 63 and 31 keys: a removal makes one of 93 of them.
    for (let leaf = 0; leaf < 2 * pairs; leaf += 2) {
      for (let i = 0; i < 61; i++) del(core, key(leaf, 2 * i));
      for (let i = 31; i < 124; i++) del(core, key(leaf + 1, 2 * i));
      doomed.push(key(leaf + 1, 0));
      for (let i = 0; i < toFirst; i++) fresh.push(key(leaf, 241 + 2 * i));
      for (let i = 0; i < toSecond; i++) fresh.push(key(leaf + 1, 2 * i + 61));
    }
    const units = putWithoutIndex(core, fresh);
    const long = classOf(316);
    const held = Array.from({ length: 110 }, () => allocate(region, 320, long));
    const pool = new NodePool(region);
    const nodes = takeNodes(pool, 150);
    cap(core);
    takeAll(region);
    takeBlocks(region);
    for (const node of nodes) pool.give(node);
    // No more than it says that it takes; of each slab more blocks stay in use than are given back.
    const perSlab = Math.floor((CHUNK_BYTES - 32) / 320);
    const blocks = [...held.slice(0, 28), ...held.slice(perSlab, perSlab + 28)];
    const changes = changesOf(fresh, doomed);
    let isEnough = index.reserveEachLocked(changes);
    for (; !isEnough && blocks.length > 0; isEnough = index.reserveEachLocked(changes)) free(region, blocks.shift() ?? 0, long);
    t.ok(isEnough);
    for (const name of doomed) index.removeLocked(probeOf(name));
    for (const [name, unit] of units) index.setLocked(probeOf(name), 0, unit);
    index.unlock();
    t.equal(checkTree(core), pairs * 93 + 124 + fresh.length);
  }
});

/**
 * A tree whose leaves are full, but for the last, and keys of which each splits another one.
 * @param apart so much longer than those of the leaf before are the separators of what a leaf is split into
 */
function fullLeaves(count: number, apart: number): { core: Core; between: string[] } {
  const core = emptyCore(1);
  const name = (leaf: number, i: number): string => `${ordinal(leaf)}${'x'.repeat(leaf * apart)}${ordinal(i)}`;
  for (let leaf = 0; leaf < count; leaf++) for (let i = 0; i < N.LEAF_SLOTS - 1; i++) put(core, name(leaf, i));
  put(core, name(count, 0));
  indexOf(core).settle();
  for (let leaf = 0; leaf < count; leaf++) put(core, `${name(leaf, 3)}/`);
  indexOf(core).settle();
  return { core, between: Array.from({ length: count }, (_, leaf) => `${name(leaf, 3)}/2`) };
}

void t.test('one key that splits a leaf and the nodes above it: with few free nodes it is refused, and never fails', async (t) => {
  const outcomes: string[] = [];
  for (let given = 0; given < 16; given++) {
    const { core, between } = fullLeaves(N.INNER_SLOTS - 1, 0);
    const { region } = indexOf(core);
    t.equal(N.countOf(region.words, region.words[REGION_INDEX_ROOT] * 2), N.INNER_SLOTS - 1);
    const pool = new NodePool(region);
    const nodes = takeNodes(pool, 20);
    cap(core);
    takeAll(region);
    for (const node of nodes.slice(0, given)) pool.give(node);
    try {
      put(core, between[40]);
      outcomes.push('put');
    } catch (error) {
      t.match(error, { message: /^no memory/ });
      outcomes.push('refused');
    }
    checkTree(core);
  }
  t.ok(outcomes[0] === 'refused' && outcomes[15] === 'put', outcomes.join());
});

void t.test('chunks that nodes are made of are none for separators', async (t) => {
  const { core, between } = fullLeaves(4, 0);
  const index = indexOf(core);
  const { region } = index;
  const room = new BatchRoom(index, () => t.fail('no key is long') as never);
  index.lock();
  room.note(index.leafLocked(probeOf(between[1])), between[1].length, true);
  room.reckon();
  takeNodes(new NodePool(region), 0);
  reserveTop(region, 40 * CHUNK_BYTES);
  cap(core);
  const chunks = takeAll(region).filter((_, i) => i % 2 === 1);
  takeBlocks(region);
  for (let freeChunks = 0; freeChunks < 8; freeChunks++) {
    for (const nodes of [0, 1, 16, 17, 48])
      t.equal(
        room.hasSeparators(nodes),
        freeChunks - Math.ceil(nodes / N.NODES_PER_CHUNK) >= room.splits,
        `${freeChunks} chunks, ${nodes} nodes`,
      );
    giveChunks(region, chunks[freeChunks], 1);
  }
  index.unlock();
});

void t.test('a batch that finds nodes and separators in the middle of the index does not count a chunk for both', async (t) => {
  const outcomes = { enough: 0, refused: 0 };
  for (let freeChunks = 0; freeChunks < 12; freeChunks++) {
    for (const nodeBlocks of [0, 10, 16, 20, 24, 40]) {
      const { core, between } = fullLeaves(20, 16);
      const index = indexOf(core);
      const { region } = index;
      const fresh = between.slice(4, 8);
      const units = putWithoutIndex(core, fresh);
      const pool = new NodePool(region);
      const nodes = takeNodes(pool, 60);
      reserveTop(region, 40 * CHUNK_BYTES);
      cap(core);
      const chunks = takeAll(region);
      takeBlocks(region);
      // Of a slab some nodes stay, and no two chunks lie side by side.
      for (const node of nodes.slice(1, 1 + nodeBlocks)) free(region, node >>> 1, N.NODE_CLASS);
      for (const chunk of chunks.filter((_, i) => i % 2 === 1).slice(0, freeChunks)) giveChunks(region, chunk, 1);
      if (index.reserveEachLocked(changesOf(fresh))) {
        outcomes.enough++;
        for (const [key, unit] of units) index.setLocked(probeOf(key), 0, unit);
      } else outcomes.refused++;
      index.unlock();
      checkTree(core);
    }
  }
  t.ok(outcomes.enough > 10 && outcomes.refused > 10, JSON.stringify(outcomes));
});

void t.test('regression: a removal gave back the slab whose blocks had been counted for separators', async (t) => {
  for (const way of ['end', 'each']) {
    const core = emptyCore(1);
    const index = indexOf(core);
    const { region } = index;
    const key = (stem: string, length: number, i: number): string => stem.repeat(length) + ordinal(i);
    for (let i = 0; i < 186; i++) put(core, key('p', 300, 2 * i));
    for (let i = 0; i < 400; i++) put(core, key('q', 100, 2 * i));
    for (let i = 0; i < 400; i++) put(core, key('r', 200, 2 * i));
    index.settle();
    for (let i = 0; i < 93; i++) del(core, key('p', 300, 2 * i));
    for (let i = 0; i < 62; i++) del(core, key('q', 100, 2 * i));
    put(core, key('q', 100, 401));
    put(core, key('r', 200, 401));
    const fresh = [key('q', 100, 403), key('r', 200, 403)];
    const doomed = key('p', 300, 2 * 93);
    const units = putWithoutIndex(core, fresh);
    const pool = new NodePool(region);
    const nodes = takeNodes(pool, 200);
    cap(core);
    takeAll(region);
    takeBlocks(region, classOf(312));
    for (const node of nodes) pool.give(node);
    const isReserved = way === 'end' ? index.reserveLocked(2, 306) : index.reserveEachLocked(changesOf(fresh, [doomed]));
    t.notOk(isReserved, 'its only block in use is that of a separator that goes');
    // And it was right to say so.
    index.removeLocked(probeOf(doomed));
    t.throws(() => {
      for (const [name, unit] of units) index.setLocked(probeOf(name), 0, unit);
    }, /made sure of/);
    index.unlock();
  }
});

void t.test(
  'regression: a removal was refused though blocks for nodes were free, and a batch that was refused took the chunks',
  async (t) => {
    const core = emptyCore(1);
    const index = indexOf(core);
    const { region } = index;
    const keys = Array.from({ length: 30_000 }, (_, i) => `k${ordinal(i)}`);
    for (const key of keys) put(core, key);
    index.settle();
    const pool = new NodePool(region);
    index.lock();
    takeNodes(pool, 3);
    cap(core);
    const chunks = takeAll(region);
    takeBlocks(region);
    t.notOk(index.reserveLocked(0, 0));
    t.ok(chunks.length > 3);
    for (const chunk of chunks.filter((_, i) => i % 2 === 1)) giveChunks(region, chunk, 1);
    const left = region.words[REGION_FREE_CHUNKS];
    const fresh = keys.slice(0, 29_000).map((key) => `${key}/`);
    t.notOk(index.reserveEachLocked(changesOf(fresh)));
    t.equal(region.words[REGION_FREE_CHUNKS], left);
    t.ok(index.reserveLocked(0, 0));
    t.equal(region.words[REGION_FREE_CHUNKS], left - 1);
    index.unlock();
    for (const key of keys.slice(0, 20_000)) del(core, key);
    t.equal(checkTree(core), 10_000);
  },
);

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
  const names = changesOf(fresh);
  while (!index.reserveLocked(fresh.length, 8) && !index.reserveEachLocked(names)) t.ok(hoard.giveNode());
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
      for (count = 0; hasBlocks(region, most, count + 1, 0, region.words[REGION_FREE_CHUNKS], -1);) count++;
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
