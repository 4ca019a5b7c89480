/** The ordered index against a sorted list: growing, shrinking, seeking both ways; and built in bulk. */

import t from 'tap';
import { reserveTop, takeChunks } from '../../src/memory/chunks.js';
import * as L from '../../src/memory/layout.js';
import {
  CHUNK_BYTES,
  createRegionBuffer,
  GROWTH_BYTES,
  Region,
  REGION_INDEX_FREE_COUNT,
  REGION_INDEX_NODES,
  REGION_INDEX_ROOT,
  REGION_USED_UNITS,
} from '../../src/memory/region.js';
import { buildLeaves, buildTree, type Leaves } from '../../src/table/index-build.js';
import { CLASSED_BYTES_MAX, allocate, classOf, hasBlock } from '../../src/memory/slabs.js';
import { splitRuns } from '../../src/table/index-merge.js';
import { reconcileIndex, repairIndex } from '../../src/table/index-repair.js';
import { KeyProbe } from '../../src/table/key-probe.js';
import { sampleShared, sortRun, type SortedRun } from '../../src/table/index-sort.js';
import { LEAF_SLOTS, NODE_PREFIX, NODE_VERSION, childWord, countOf, levelOf } from '../../src/table/index-node.js';
import { createIndex } from '../../src/table/index-tree.js';
import { NodePool } from '../../src/table/node-pool.js';
import { OrderedIndex } from '../../src/table/ordered-index.js';
import { repairTableLocked } from '../../src/table/shard-repair.js';
import { randomFrom, testSeed } from '../support/random.js';
import { checkTree, del, emptyCore, indexOf, put, walkKeys } from '../support/index-harness.js';
import indexTask from '../../workers/index.js';
import { Core } from '../../src/engine/core.js';

type Draw = (below: number) => number;

/** Kinds of keys: numbers in order of digits, random bytes, long common beginnings, keys that begin others. */
const kinds: Record<string, (draw: Draw) => Uint8Array> = {
  digits: (draw) => Buffer.from(`user:${String(draw(4000)).padStart(10, '0')}`),
  bytes: (draw) => Uint8Array.from({ length: 1 + draw(6) }, () => draw(256)),
  few: (draw) => Uint8Array.from({ length: 1 + draw(40) }, () => draw(2)),
  long: (draw) => Buffer.from(`${'a/very/long/beginning/'.repeat(1 + draw(3))}${draw(3000).toString(36)}`),
  zeros: (draw) => Buffer.alloc(1 + draw(700)),
};

const hex = (key: Uint8Array): string => Buffer.from(key).toString('hex');

function checkAgainst(t: Tap.Test, core: Core, model: Set<string>, draw: Draw, makeKey: (draw: Draw) => Uint8Array): void {
  const sorted = [...model].sort();
  t.equal(checkTree(core), sorted.length);
  t.same(walkKeys(core, false), sorted);
  t.same(walkKeys(core, true), [...sorted].reverse());
  for (let i = 0; i < 20; i++) {
    const probe = makeKey(draw);
    const inclusive = draw(2) === 0;
    const id = hex(probe);
    const above = sorted.filter((key) => (inclusive ? key >= id : key > id));
    const below = sorted.filter((key) => (inclusive ? key <= id : key < id)).reverse();
    t.same(walkKeys(core, false, probe, inclusive), above);
    t.same(walkKeys(core, true, probe, inclusive), below);
  }
}

for (const [name, makeKey] of Object.entries(kinds)) {
  void t.test(`random changes, ${name}`, async (t) => {
    const random = randomFrom(testSeed(t));
    const draw: Draw = (below) => Math.floor(random() * below);
    const core = emptyCore(4);
    const model = new Set<string>();
    for (let step = 0; step < 24_000; step++) {
      const deleting = Math.floor(step / 6000) % 2 === 0 ? 0.2 : 0.85;
      const key = makeKey(draw);
      if (random() < deleting) {
        del(core, key);
        model.delete(hex(key));
      } else {
        // Now and then longer than the block: the entry moves.
        put(core, key, 'v'.repeat(draw(60)));
        model.add(hex(key));
      }
      if (step % 6000 === 5999) checkAgainst(t, core, model, draw, makeKey);
    }
    for (const key of model) del(core, Buffer.from(key, 'hex'));
    t.equal(checkTree(core), 0);
  });
}

void t.test('regression: a seek that came to take the lock failed where a shard had grown since the thread last looked', async (t) => {
  const writer = emptyCore(4);
  for (let i = 0; i < 50; i++) put(writer, `k${i}`);
  const reader = new Core(writer.handle, L.OWNER_SLOT + 2);
  const index = indexOf(reader);
  const { words } = index.region;
  const version = words[REGION_INDEX_ROOT] * 2 + NODE_VERSION;
  // A writer is always inside, until the reader takes the lock.
  words[version]++;
  t.equal(words[version] & 1, 1);
  const lock = index.lock.bind(index);
  let locks = 0;
  index.lock = () => {
    words[version]++;
    for (let i = 0; i < 40; i++) put(writer, `new${i}`, 'v'.repeat(60_000));
    locks++;
    lock();
  };
  const lengths = reader.shards.map((shard) => shard.region.words.length);
  const expected = ['new7', 'new8', 'new9'].map((key) => hex(Buffer.from(key)));
  t.same(walkKeys(reader, false, Buffer.from('new7')), expected);
  t.equal(locks, 1);
  t.ok(
    writer.shards.every((shard, i) => shard.region.words.length > lengths[i]),
    'all shards had grown',
  );
});

void t.test('keys in order fill their leaves; a queue gives its nodes back', async (t) => {
  const core = emptyCore(2);
  const key = (i: number): string => `k${String(i).padStart(8, '0')}`;
  for (let i = 0; i < 20_000; i++) put(core, key(i));
  t.equal(checkTree(core), 20_000);
  const full = indexOf(core).region.words[REGION_USED_UNITS] * 8;
  t.ok(full < 20_000 * 10, `${full} bytes for 20,000 keys in order`);
  for (let i = 20_000; i < 120_000; i++) {
    put(core, key(i));
    del(core, key(i - 20_000));
  }
  t.equal(checkTree(core), 20_000);
  const used = indexOf(core).region.words[REGION_USED_UNITS] * 8;
  t.ok(used < full * 1.2, `${used} bytes after 100,000 keys went through, ${full} before`);
  for (let i = 119_999; i >= 100_000; i--) del(core, key(i));
  t.equal(checkTree(core), 0);
});

/** The versions of the nodes that the tree leads to. */
function versionsOf(core: Core): Map<number, number> {
  const { region } = indexOf(core);
  indexOf(core).settle();
  region.refresh();
  const { words } = region;
  const versions = new Map<number, number>();
  const visit = (node: number): void => {
    versions.set(node, words[node + NODE_VERSION]);
    if (levelOf(words, node) !== 0) for (let i = 0; i <= countOf(words, node); i++) visit(words[childWord(node, i)] * 2);
  };
  visit(words[REGION_INDEX_ROOT] * 2);
  return versions;
}

void t.test('a node that leaves the tree has an odd version from then on: who reads it finds out', async (t) => {
  const random = randomFrom(testSeed(t));
  const core = emptyCore(1);
  const { region } = indexOf(core);
  const wrong: string[] = [];
  let left = 0;
  let before = versionsOf(core);
  const look = (what: string): void => {
    const after = versionsOf(core);
    for (const [node, version] of before) {
      if (after.has(node)) continue;
      left++;
      const now = region.words[node + NODE_VERSION];
      if ((now & 1) === 0 || now === version) wrong.push(`${what}: node ${node} had version ${version} and has ${now}`);
    }
    before = after;
  };
  const name = (n: number): string => `k${String(n).padStart(6, '0')}`;
  for (let step = 0; step < 12_000; step++) {
    const key = name(Math.floor(random() * 5000));
    if (random() < (step < 6000 ? 0.1 : 0.9)) del(core, key);
    else put(core, key);
    look(`step ${step}`);
  }
  for (let n = 10_000; n < 13_000; n++) {
    put(core, name(n));
    look(`put ${n}`);
  }
  // A leaf whose keys all go while the ones beside it are full, so that it cannot be merged; several times over.
  for (let round = 0; round < 5; round++) {
    const { words } = region;
    const keys = walkKeys(core, false).map((key) => Buffer.from(key, 'hex').toString());
    // In order, as the tree was visited.
    const counts = [...versionsOf(core).keys()].filter((node) => levelOf(words, node) === 0).map((node) => countOf(words, node));
    const full = counts.findIndex((count, i) => i > 2 && count > LEAF_SLOTS - 4 && counts[i - 1] > LEAF_SLOTS - 4);
    const nodes = words[REGION_INDEX_NODES];
    const first = counts.slice(0, full).reduce((sum, count) => sum + count, 0);
    for (const key of keys.slice(first, first + counts[full])) {
      del(core, key);
      look(`deleted ${key}`);
    }
    t.equal(words[REGION_INDEX_NODES], nodes - 1, 'a leaf has gone');
  }
  for (let n = 10_000; n < 13_000; n++) {
    del(core, name(n));
    look(`deleted ${n}`);
  }
  t.same(wrong, []);
  t.ok(left > 50, `${left} nodes left the tree`);
});

void t.test('a tree that has lost its keys has lost its levels', async (t) => {
  const core = emptyCore(1);
  const { region } = indexOf(core);
  const level = (): number => levelOf(region.words, region.words[REGION_INDEX_ROOT] * 2);
  const key = (i: number): string => `${'k'.repeat(200)}${String(i).padStart(8, '0')}`;
  for (let i = 0; i < 20_000; i++) put(core, key(i));
  checkTree(core);
  t.ok(level() >= 2);
  for (let i = 0; i < 19_990; i++) del(core, key(i));
  t.equal(checkTree(core), 10);
  t.equal(level(), 0);
  t.equal(region.words[REGION_INDEX_NODES], 1);
});

void t.test('leaves that have lost keys here and there are merged where nodes are wanted', async (t) => {
  const random = randomFrom(testSeed(t));
  for (const count of [100, 5000, 120_000]) {
    const core = emptyCore(2);
    const index = indexOf(core);
    // Keys in order fill their leaves; some 40 of 125 are left, more than those that a removal merges have.
    const key = (i: number): string => `k${String(i).padStart(6, '0')}`;
    for (let i = 0; i < count; i++) put(core, key(i));
    const left: string[] = [];
    for (let i = 0; i < count; i++) {
      if (random() < 0.68) del(core, key(i));
      else left.push(key(i));
    }
    const { words } = index.region;
    const nodes = words[REGION_INDEX_NODES];
    let gone = 0;
    let most = 0;
    index.lock();
    for (let calls = 0; calls < 400; calls++) {
      const went = index.compactLocked(5);
      gone += went;
      most = Math.max(most, went);
    }
    index.unlock();
    t.ok(most <= 5, 'no more than was wanted');
    t.equal(checkTree(core), left.length);
    t.ok(words[REGION_INDEX_NODES] <= nodes - gone);
    if (count > 1000) t.ok(gone > nodes / 3, `${gone} of ${nodes} nodes`);
    t.same(walkKeys(core, false), left.map((name) => hex(Buffer.from(name))).sort());
    // It is a tree like any other.
    for (let i = 0; i < 2000; i++) put(core, `${key(i)}/${i}`);
    for (const name of left) del(core, name);
    t.equal(checkTree(core), 2000);
  }
});

void t.test('regression: at the memory cap a repair could not finish a key that a dead thread had made room for', async (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const { region } = index;
  const key = (i: number): string => `k${String(i).padStart(6, '0')}`;
  for (let i = 0; i < 40_000; i++) put(core, key(i));
  for (let i = 0; i < 40_000; i++) if (i % 100 !== 0) del(core, key(i));
  // The cap: nothing can grow, and no chunk is left.
  core.words[L.CONTROL_MEMORY_UNITS_MAX] = core.words[L.CONTROL_MEMORY_UNITS];
  const takeAll = (): void => {
    while (takeChunks(region, 1) !== 0);
  };
  takeAll();
  t.notOk(reserveTop(region, 1));
  const names: string[] = [];
  // Behind the last key, so that its leaf fills and is split.
  for (let i = 0; i < 400; i++) names.push(`l${key(i)}`);
  for (const name of names) put(core, name);
  t.equal(checkTree(core), 800);
  // The thread has died between the table and the index, with the index's lock: again and again, so that one of the keys splits a leaf.
  const [shard] = core.shards;
  const probe = KeyProbe.own();
  for (let i = 400; i < 800; i++) {
    const name = `l${key(i)}`;
    put(core, name);
    const bytes = Buffer.alloc(Math.ceil(name.length / 4) * 4);
    bytes.write(name);
    probe.setWords(new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4), 0, name.length);
    index.lock();
    index.removeLocked(probe);
    repairIndex(index);
    takeAll();
    const found = repairTableLocked(shard);
    reconcileIndex(index, [{ shard: 0, entries: found.entries }]);
    shard.closeChangeLocked();
    index.unlock();
  }
  t.equal(checkTree(core), 1200);
});

void t.test('without a chunk left keys take the nodes of thin leaves; without a block for a separator they are refused', async (t) => {
  const random = randomFrom(testSeed(t));
  const core = emptyCore(1);
  const { region } = indexOf(core);
  const key = (i: number): string => `k${String(i).padStart(6, '0')}`;
  for (let i = 0; i < 60_000; i++) put(core, key(i));
  let left = 0;
  for (let i = 0; i < 60_000; i++) {
    if (random() < 0.68) del(core, key(i));
    else left++;
  }
  core.words[L.CONTROL_MEMORY_UNITS_MAX] = core.words[L.CONTROL_MEMORY_UNITS];
  while (takeChunks(region, 1) !== 0);
  // Some hundred splits, behind the last key.
  for (let i = 0; i < 12_000; i++) put(core, `l${key(i)}`);
  t.equal(checkTree(core), left + 12_000);
  for (let bytes = CLASSED_BYTES_MAX; bytes > 0; bytes -= 8)
    while (hasBlock(region, bytes) && allocate(region, bytes, classOf(bytes)) !== 0);
  let more = 0;
  t.throws(() => {
    for (; more < 60_000; more++) put(core, `m${key(more)}`);
  }, /^no memory/);
  t.equal(checkTree(core), left + 12_000 + more);
});

void t.test('an index built in bulk is the one that grew', async (t) => {
  const random = randomFrom(testSeed(t));
  const draw: Draw = (below) => Math.floor(random() * below);
  for (const count of [0, 1, 2, 117, 118, 5000, 30_000]) {
    const core = emptyCore(4);
    const model = new Set<string>();
    while (model.size < count) {
      const key = kinds[['digits', 'bytes', 'few', 'long'][draw(4)]](draw);
      // Ties in the eight bytes behind the shared ones.
      const id = hex(Buffer.concat([Buffer.from('tie'), key]));
      put(core, Buffer.from(id, 'hex'));
      model.add(id);
    }
    const { shards } = core;
    let shared = sampleShared(shards);
    const runs = [0, 1, 2].map((part) => {
      for (;;) {
        const run = sortRun(
          shards,
          shards.filter((_, i) => i % 3 === part),
          shared,
        );
        if (typeof run !== 'number') return run;
        shared = run;
      }
    });
    // A run that was sorted with another number of shared bytes is of no use: sort all with the least.
    const settled = [0, 1, 2].map((part) =>
      sortRun(
        shards,
        shards.filter((_, i) => i % 3 === part),
        shared,
      ),
    );
    t.equal(runs.length, 3);
    const sorted = settled.map((run): SortedRun => (typeof run === 'number' ? t.fail('still too many shared bytes') : run) as SortedRun);
    const keys = [...model].sort();
    for (const parts of [1, 2, 3, 7]) {
      const region = new Region(createRegionBuffer(2 ** 30), core.words);
      t.ok(createIndex(region));
      const ranges = splitRuns(sorted, shards, parts);
      t.equal(ranges.length, parts);
      const sizes = ranges.map(({ from, to }) => to.reduce((sum, end, i) => sum + end - from[i], 0));
      t.equal(
        sizes.reduce((sum, size) => sum + size, 0),
        count,
      );
      if (count > 1000) {
        const even = count / parts;
        t.ok(
          sizes.every((size) => size > even / 2 && size < even * 1.5),
          `ranges of ${sizes.join()} keys`,
        );
      }
      // In no order, and each with views of its own, made before the others grew the region, as tasks that run at once have them.
      const views = ranges.map(() => new Region(region.buffer, core.words));
      const leaves: Leaves[] = [];
      for (const part of [...ranges.keys()].sort(() => random() - 0.5)) {
        leaves[part] = buildLeaves(views[part], shards, sorted, ranges[part], part + 1) ?? (t.fail('no memory') as never);
      }
      t.ok(buildTree(region, shards, leaves));
      const built = Object.assign(Object.create(core) as Core, {
        index: new OrderedIndex(
          region,
          shards.map((shard) => shard.region),
          1,
        ),
      });
      t.equal(checkTree(built), count);
      t.same(walkKeys(built, false), keys);
      t.equal(region.words[REGION_INDEX_FREE_COUNT], count === 0 ? 0 : 1, 'the root of the empty index is free');
    }
  }
});

void t.test('where there is no memory for the index its building says so, and keeps no lock', async (t) => {
  const core = emptyCore(4);
  for (let i = 0; i < 20_000; i++) put(core, `k${String(i).padStart(8, '0')}`);
  const { shards } = core;
  const shared = sampleShared(shards);
  const run = sortRun(shards, shards, shared) as SortedRun;
  const outcomes = new Set<string>();
  for (let bytes = GROWTH_BYTES; ; bytes += GROWTH_BYTES) {
    const region = new Region(createRegionBuffer(bytes), core.words);
    t.ok(createIndex(region));
    const leaves: Leaves[] = [];
    for (const range of splitRuns([run], shards, 2)) {
      const built = buildLeaves(region, shards, [run], range, 1);
      if (built !== undefined) leaves.push(built);
    }
    t.equal(core.words[L.CONTROL_INDEX_LOCK], 0);
    const outcome = leaves.length < 2 ? 'leaves' : buildTree(region, shards, leaves) ? 'built' : 'tree';
    outcomes.add(outcome);
    if (outcome === 'built') break;
  }
  // Whether some length is enough for the leaves and not for the tree is as it happens; index-room.test.ts has one.
  t.same(
    [...outcomes].filter((outcome) => outcome !== 'tree'),
    ['leaves', 'built'],
  );
});

void t.test('where there is memory for the separators and not for the inner nodes the tree says so', async (t) => {
  const core = emptyCore(4);
  for (let i = 0; i < 12_000; i++) put(core, `k${String(i).padStart(8, '0')}`);
  const { shards } = core;
  const run = sortRun(shards, shards, sampleShared(shards)) as SortedRun;
  const count = run.units.length;
  // A leaf for each key, as of a store a hundred times as large: with what is in the leaves the tree has nothing to do.
  const treeIn = (bytes: number): boolean => {
    const region = new Region(createRegionBuffer(bytes), core.words);
    if (!createIndex(region) || !reserveTop(region, Math.ceil(count / 16) * CHUNK_BYTES)) return false;
    const pool = new NodePool(region);
    const nodes = Uint32Array.from({ length: count }, () => pool.take() >>> 1);
    const separators = Uint16Array.from({ length: count }, (_, i) => (i === 0 ? 0 : 9));
    return buildTree(region, shards, [{ nodes, units: run.units, shards: run.shards, separators, keyBytesMax: 8 }]);
  };
  let bytes = count * 1024;
  while (!treeIn(bytes)) bytes += GROWTH_BYTES;
  t.ok(bytes > count * 1024 + 9 * CHUNK_BYTES, `${bytes} bytes`);
});

void t.test('tasks that build the index say where they have no memory', async (t) => {
  const core = emptyCore(4);
  for (let i = 0; i < 20_000; i++) put(core, `k${String(i).padStart(8, '0')}`);
  const { shards } = core;
  const run = sortRun(shards, shards, sampleShared(shards)) as SortedRun;
  const common = { control: core.words.buffer as SharedArrayBuffer, shards: shards.map((shard) => shard.region.buffer) };
  const region = (): SharedArrayBuffer => {
    const buffer = createRegionBuffer(GROWTH_BYTES);
    t.ok(createIndex(new Region(buffer, core.words)));
    return buffer;
  };
  const full = { error: { code: 'FV_MEMORY_FULL' } };
  const runs = [run];
  t.match(indexTask({ kind: 'build', ...common, region: region(), runs }), full);
  t.match(indexTask({ kind: 'leaves', ...common, region: region(), runs, range: splitRuns(runs, shards, 2)[1], index: 1 }), full);
  const leaves = [
    { nodes: run.units, units: run.units, shards: run.shards, separators: new Uint16Array(run.units.length).fill(9), keyBytesMax: 9 },
  ];
  t.match(
    indexTask({ kind: 'tree', ...common, region: region(), leaves: leaves.map((part) => ({ ...part, nodes: part.nodes.fill(0x200) })) }),
    full,
  );
});

void t.test('leaves at the ends of a range know what their keys share, as all others do', async (t) => {
  const core = emptyCore(4);
  for (let i = 0; i < 5000; i++) put(core, `a/long/beginning/${String(i).padStart(8, '0')}`);
  const { shards } = core;
  const region = new Region(createRegionBuffer(2 ** 30), core.words);
  t.ok(createIndex(region));
  const run = sortRun(shards, shards, sampleShared(shards)) as SortedRun;
  const prefixes = splitRuns([run], shards, 4).flatMap((range) => {
    const leaves = buildLeaves(region, shards, [run], range, 1);
    return leaves === undefined ? [] : [...leaves.nodes].map((node) => region.words[node * 2 + NODE_PREFIX]);
  });
  t.ok(prefixes.length > 40);
  t.same(
    prefixes.flatMap((prefix, i) => (prefix === 0 ? [i] : [])),
    [0, prefixes.length - 1],
    'only the first and the last of all, whose keys to come may share nothing',
  );
});
