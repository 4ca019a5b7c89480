/** What is counted when room in the ordered index is made sure of: nodes, separators and chunks, each of them once. Without memory to spare; see index-room.test.ts. */

import t from 'tap';
import { giveChunks, reserveTop } from '../../src/memory/chunks.js';
import { CHUNK_BYTES, REGION_FREE_CHUNKS, REGION_INDEX_ROOT } from '../../src/memory/region.js';
import { CLASS_BYTES, CLASS_COUNT, allocate, chunksFor, classOf, free, hasBlocks } from '../../src/memory/slabs.js';
import { BatchRoom } from '../../src/table/batch-room.js';
import { ENTRY_HEADER_WORDS } from '../../src/table/entry.js';
import * as N from '../../src/table/index-node.js';
import { NodePool } from '../../src/table/node-pool.js';
import { randomFrom, testSeed } from '../support/random.js';
import { checkTree, del, emptyCore, indexOf, put } from '../support/index-harness.js';
import {
  Hoard,
  cap,
  changesOf,
  fullLeaves,
  ordinal,
  probeOf,
  putWithoutIndex,
  takeAll,
  takeBlocks,
  takeNodes,
} from '../support/index-room.js';

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
