/** Room in the ordered index: what is made sure of is there, whatever the keys and the memory, above all at the memory cap. */

import t from 'tap';
import { Repair } from '../../src/engine/repair.js';
import { giveChunks, reserveTop, takeChunks } from '../../src/memory/chunks.js';
import * as L from '../../src/memory/layout.js';
import { createRegionBuffer, GROWTH_BYTES, Region, REGION_INDEX_KEY_BYTES, REGION_INDEX_NODES } from '../../src/memory/region.js';
import { claimSlot } from '../../src/memory/registry.js';
import * as N from '../../src/table/index-node.js';
import { buildLeaves, buildTree } from '../../src/table/index-build.js';
import { rangeOfAll } from '../../src/table/index-merge.js';
import { sampleShared, sortRun, type SortedRun } from '../../src/table/index-sort.js';
import { createIndex } from '../../src/table/index-tree.js';
import { randomFrom, testSeed } from '../support/random.js';
import { checkTree, del, emptyCore, indexOf, put } from '../support/index-harness.js';
import { Hoard, cap, changesOf, fillLeaves, ordinal, probeOf, putWithoutIndex, takeAll } from '../support/index-room.js';

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
