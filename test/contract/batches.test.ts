/** Batches reuse the memory in which they are put together, and take blocks for those puts only that may need one: nobody may be able to tell. */

import t from 'tap';
import { open, type BatchOperation, type FlashVector } from '../../src/index.js';
import { DURABILITY_MEMORY } from '../../src/base/record.js';
import type { Core } from '../../src/engine/core.js';
import { CONFLICT, DEFER_LOCK } from '../../src/engine/write-result.js';
import { Writer } from '../../src/engine/writer.js';
import * as L from '../../src/memory/layout.js';
import { encodeKey } from '../../src/table/key-codec.js';
import { emptyCore } from '../support/index-harness.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

/** Lengths of values on both sides of what changes how they are kept: cells, in place or not, blocks of chunks, values that stay outside. */
const LENGTHS = [0, 3, 40, 41, 300, 5000, 16_300, 16_500, 40_000, 70_000];

function sameEntries(t: Tap.Test, db: FlashVector, model: ReadonlyMap<string, unknown>, what: string): void {
  t.equal(db.size, model.size, what);
  for (const [key, value] of model) {
    if (db.get(key) !== value) t.fail(`${what}: ${key} has another value`);
  }
}

void t.test('batches that put and delete the same keys several times, with short and long values, also with a snapshot open', async (t) => {
  const random = randomFrom(testSeed(t));
  const integer = (below: number): number => Math.floor(random() * below);
  const directory = tempFolder(t);
  const model = new Map<string, unknown>();
  let db = await open(directory, { shards: 2, durability: 'memory' });
  for (let round = 0; round < 300; round++) {
    const snapshot = integer(4) === 0 ? db.snapshot() : undefined;
    const before = new Map(model);
    const operations: BatchOperation[] = [];
    const longest = 1 + integer(LENGTHS.length);
    const deletes = integer(2) === 0;
    for (let i = 1 + integer(12); i > 0; i--) {
      const key = `key${integer(30)}`;
      if (deletes && integer(3) === 0) {
        operations.push({ type: 'del', key });
        model.delete(key);
      } else {
        const value = `${round} ${i} `.padEnd(LENGTHS[integer(longest)], 'x');
        operations.push({ type: 'put', key, value });
        model.set(key, value);
      }
    }
    await db.batch(operations);
    sameEntries(t, db, model, `round ${round}`);
    const single = `key${integer(30)}`;
    model.set(single, round);
    await db.put(single, round);
    sameEntries(t, db, model, `single put of round ${round}`);
    if (snapshot !== undefined) {
      for (const [key, value] of before)
        if (snapshot.get(key) !== value) t.fail(`round ${round}: ${key} has another value in the snapshot`);
      snapshot.close();
    }
    if (round % 100 === 99) {
      await db.close();
      db = await open(directory, { shards: 2, durability: 'memory' });
      sameEntries(t, db, model, `reopened after round ${round}`);
    }
  }
  await db.close();
});

void t.test('a batch that only overwrites: what expires, what was deleted a moment ago, and the counts', async (t) => {
  const random = randomFrom(testSeed(t));
  const integer = (below: number): number => Math.floor(random() * below);
  const db = await open(tempFolder(t), { shards: 2, durability: 'memory' });
  const names = Array.from({ length: 40 }, (_, i) => `key${i}`);
  const values = new Map<string, { value: string; expires: boolean }>();
  for (const name of names) {
    await db.put(name, 'x'.repeat(96));
    values.set(name, { value: 'x'.repeat(96), expires: false });
  }
  for (let round = 0; round < 200; round++) {
    if (integer(3) === 0) {
      // A version is kept for the snapshot, and where the key was a tombstone, which has room for a small value until it is freed a turn later.
      const snapshot = db.snapshot();
      const name = names[integer(names.length)];
      await db.del(name);
      snapshot.close();
      const operations: BatchOperation[] = [{ type: 'put', key: name, value: '' }];
      await db.batch(operations);
      values.set(name, { value: '', expires: false });
    }
    const operations: BatchOperation[] = [];
    for (let i = integer(60); i >= 0; i--) {
      const key = names[integer(names.length)];
      const value = `${round}.${i}`.padEnd(integer(96), '.');
      const expires = integer(3) === 0;
      operations.push(expires ? { type: 'put', key, value, ttl: 3_600_000 } : { type: 'put', key, value });
      values.set(key, { value, expires });
    }
    await db.batch(operations);
    t.equal(db.size, names.length);
    let bytes = 0;
    for (const [name, { value, expires }] of values) {
      if (db.get(name) !== value) t.fail(`round ${round}: ${name} has another value`);
      if (db.ttl(name) >= 0 !== expires) t.fail(`round ${round}: ${name} expires: ${db.ttl(name)}`);
      bytes += value.length + (expires ? 8 : 0);
    }
    const { valueBytes, keyBytes, expiring } = db.stats();
    t.equal(valueBytes, bytes, `round ${round}: bytes of values`);
    t.equal(keyBytes, names.join('').length, `round ${round}: bytes of keys`);
    t.equal(expiring, [...values.values()].filter((value) => value.expires).length, `round ${round}: entries that expire`);
    if (round % 20 === 0) t.same([...db.keys()], [...names].sort(), 'and all are there in order');
  }
  await db.close();
});

void t.test('a batch that only overwrites makes a new version of each of its keys', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const names = ['a', 'b'];
  const old = await db.batch(names.map((key) => ({ type: 'put', key, value: 'old' })));
  const lsn = await db.batch(names.map((key) => ({ type: 'put', key, value: 'new' })));
  for (const name of names) {
    t.same(db.getEntry(name), { value: 'new', lsn });
    await t.rejects(db.put(name, 'never', { ifVersion: old }), { code: 'FV_CONFLICT' });
  }
  await db.put('a', 'newer', { ifVersion: lsn });
  t.same(
    [...db.entries()],
    [
      ['a', 'newer'],
      ['b', 'new'],
    ],
  );
  await db.close();
});

void t.test('operations of a batch are found by their keys, not by the hashes of those', (t) => {
  const random = randomFrom(testSeed(t));
  const core = emptyCore(4);
  const { scratch } = core;
  const byHash = new Map<number, string>();
  let pairs = 0;
  while (pairs < 3) {
    // Twelve digits: among a hundred thousand keys that have nothing in common two have one hash.
    const key = random().toFixed(6) + random().toFixed(4).slice(2);
    encodeKey(scratch, key);
    const other = byHash.get(scratch.keyHash);
    byHash.set(scratch.keyHash, key);
    if (other === undefined || other === key) continue;
    pairs++;
    const batch = core.takeBatch();
    batch.put(core, key, 'first', 0);
    encodeKey(scratch, other);
    t.equal(batch.find(scratch), -1, `${other} is not ${key}`);
    batch.put(core, other, 'second', 0);
    t.equal(batch.find(scratch), 1);
    encodeKey(scratch, key);
    t.equal(batch.find(scratch), 0);
    batch.del(core, key);
    t.equal(batch.find(scratch), 2, 'the last one counts');
    t.same([...batch.latest()], [1, 2]);
    core.giveBatch(batch);
  }
  const empty = core.takeBatch();
  t.equal(empty.find(scratch), -1);
  t.same([...empty.latest()], []);
  t.end();
});

void t.test('a short value that follows a long one of the same key in one batch', async (t) => {
  const db = await open(tempFolder(t), { shards: 1 });
  for (const long of [17_000, 100_000]) {
    await db.put('a', 'short');
    const operations: BatchOperation[] = [
      { type: 'put', key: 'a', value: 'x'.repeat(long) },
      { type: 'put', key: 'a', value: 'again' },
    ];
    await db.batch(operations);
    t.equal(db.get('a'), 'again');
  }
  await db.close();
});

void t.test('at the memory cap a batch succeeds that overwrites what is there', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4, maxMemoryBytes: 16 * 1024 * 1024 });
  let count = 0;
  try {
    for (;;) {
      await db.put(`key${count}`, 'v'.repeat(200));
      count++;
    }
  } catch (error) {
    t.match(error, { code: 'FV_MEMORY_FULL' });
  }
  for (let from = 0; from < count; from += 5000) {
    const operations: BatchOperation[] = [];
    for (let i = from; i < Math.min(count, from + 5000); i++) operations.push({ type: 'put', key: `key${i}`, value: 'w'.repeat(200) });
    await db.batch(operations);
  }
  for (let i = 0; i < count; i++) if (db.get(`key${i}`) !== 'w'.repeat(200)) t.fail(`key${i} has another value`);
  await db.close();
});

void t.test('batches that have to wait for room are not touched by those that follow', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', ringBytes: 65_536 });
  const writes: Promise<number>[] = [];
  for (let batch = 0; batch < 1000; batch++) {
    const operations: BatchOperation[] = [];
    for (let i = 0; i < 5; i++)
      operations.push({ type: 'put', key: `key${batch}.${i}`, value: `${batch}.${i}`.padEnd(100 + (batch % 300), '.') });
    writes.push(db.batch(operations));
  }
  t.ok(db.stats().contention.deferrals > 0, 'some had to wait');
  await Promise.all(writes);
  for (let batch = 0; batch < 1000; batch++) {
    for (let i = 0; i < 5; i++) {
      if (db.get(`key${batch}.${i}`) !== `${batch}.${i}`.padEnd(100 + (batch % 300), '.')) t.fail(`key${batch}.${i} has another value`);
    }
  }
  await db.close();
});

void t.test('a batch that a getter writes while another is put together', async (t) => {
  const db = await open(tempFolder(t));
  let inner: Promise<number> | undefined;
  const value = {
    get text(): string {
      inner ??= db.batch([
        { type: 'put', key: 'x', value: 1 },
        { type: 'put', key: 'y', value: 2 },
      ]);
      return 'outer';
    },
  };
  await db.batch([
    { type: 'put', key: 'a', value: 'before' },
    { type: 'put', key: 'b', value },
    { type: 'put', key: 'c', value: 'after' },
  ]);
  await inner;
  t.same(
    [...db.entries()],
    [
      ['a', 'before'],
      ['b', { text: 'outer' }],
      ['c', 'after'],
      ['x', 1],
      ['y', 2],
    ],
  );
  await db.close();
});

void t.test('a batch that is refused leaves nothing behind in the next one', async (t) => {
  const db = await open(tempFolder(t));
  await t.rejects(
    db.batch([
      { type: 'put', key: 'a', value: 1 },
      { type: 'put', key: 'b', value: undefined },
    ]),
    { code: 'FV_VALUE' },
  );
  await db.batch([{ type: 'put', key: 'c', value: 3 }]);
  t.same([...db.entries()], [['c', 3]]);
  await db.close();
});

void t.test('the memory of the largest batch that was given back is used next, and of no other much is kept', (t) => {
  for (const order of [
    [300_000, 200_000, 10],
    [10, 200_000, 300_000],
    [200_000, 300_000, 10],
  ]) {
    const core = emptyCore(1);
    const batches = order.map(() => core.takeBatch());
    order.forEach((length, i) => batches[i].put(core, 'a', 'x'.repeat(length), 0));
    for (const batch of batches) core.giveBatch(batch);
    const taken = order.map(() => core.takeBatch());
    t.ok(taken[0].bytes.length >= 300_000, `${taken[0].bytes.length} bytes first, after ${order.join(' ')}`);
    for (const batch of taken.slice(1)) t.ok(batch.bytes.length <= 65_536, `${batch.bytes.length} bytes behind it`);
  }
  const core = emptyCore(1);
  const batch = core.takeBatch();
  for (let i = 0; i < 50; i++) batch.put(core, `a${i}`, 'x'.repeat(100_000), 0);
  t.ok(batch.bytes.length > 4 * 1024 * 1024);
  core.giveBatch(batch);
  t.equal(core.takeBatch().bytes.length, 0, 'more than 4 MiB are not kept');
  t.end();
});

void t.test('values are copied into their blocks before the batch is logged, and while readers need not wait', (t) => {
  const core = emptyCore(1);
  const writer = new Writer(core);
  const [shard] = core.shards;
  const fill = shard.fillBlock.bind(shard);
  const filled: { isOpen: boolean; head: number }[] = [];
  shard.fillBlock = (unit, sizeClass) => {
    filled.push({ isOpen: (core.words[shard.versionWord] & 1) === 0, head: core.words[L.CONTROL_RING_HEAD] });
    fill(unit, sizeClass);
  };
  const head = core.words[L.CONTROL_RING_HEAD];
  const batch = core.takeBatch();
  batch.put(core, 'new', 1, 0);
  batch.put(core, 'long', 'x'.repeat(20_000), 0);
  t.ok(writer.tryBatch(batch, DURABILITY_MEMORY, 0) > 0);
  t.same(filled, [
    { isOpen: true, head },
    { isOpen: true, head },
  ]);
  t.end();
});

/** A key whose shard is `shard`. */
function keyIn(core: Core, shard: number): string {
  for (let number = 0; ; number++) {
    encodeKey(core.scratch, `key${number}`);
    if ((core.scratch.keyHash & core.shardMask) === shard) return `key${number}`;
  }
}

void t.test('entries that a batch overwrites get all of its LSN', (t) => {
  const core = emptyCore(1);
  const writer = new Writer(core);
  const [shard] = core.shards;
  const batch = core.takeBatch();
  batch.put(core, 'a', 1, 0);
  t.equal(writer.tryBatch(batch, DURABILITY_MEMORY, 0), 1);
  const next = 2 ** 33 + 5;
  core.control.storeLsn(L.CONTROL_NEXT_LSN, next);
  t.equal(writer.tryBatch(batch, DURABILITY_MEMORY, 0), next);
  t.equal(shard.lsnLocked(batch.locate(0, shard.table)), next);
  writer.dispose();
  t.end();
});

void t.test('what a transaction has read is compared under the locks of its shards, and afterwards none is held', (t) => {
  const core = emptyCore(4);
  const writer = new Writer(core);
  const lockOf = (shard: number): number => core.words[core.shards[shard].lockWord];
  const batch = core.takeBatch();
  const reads = core.takeBatch();
  batch.put(core, keyIn(core, 1), 1, 0);
  reads.del(core, keyIn(core, 2));
  const seen: boolean[][] = [];
  const guard = {
    reads,
    needsAllShards: false,
    holdsLocked: () => {
      seen.push([0, 1, 2, 3].map((shard) => lockOf(shard) !== 0));
      return seen.length > 1;
    },
  };
  t.equal(writer.tryBatch(batch, DURABILITY_MEMORY, 0, guard), CONFLICT);
  t.ok(writer.tryBatch(batch, DURABILITY_MEMORY, 0, guard) > 0);
  guard.needsAllShards = true;
  t.ok(writer.tryBatch(batch, DURABILITY_MEMORY, 0, guard) > 0);
  t.same(seen, [
    [false, true, true, false],
    [false, true, true, false],
    [true, true, true, true],
  ]);
  t.same([0, 1, 2, 3].map(lockOf), [0, 0, 0, 0]);

  // Somebody holds the last one.
  Atomics.store(core.words, core.shards[3].lockWord, 200);
  t.equal(writer.tryBatch(batch, DURABILITY_MEMORY, 0, guard), DEFER_LOCK);
  t.same([0, 1, 2, 3].map(lockOf), [0, 0, 0, 200], 'the others are free');
  t.equal(seen.length, 3);
  writer.dispose();
  t.end();
});

void t.test('batches and transactions that are deferred keep what they are to write', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1 });
  const words = new Int32Array(db.handle.control);
  const lock = L.shardWord(0) + L.SHARD_LOCK;
  for (let i = 0; i < 20; i++) await db.put(`old${i}`, i);
  Atomics.store(words, lock, 200);
  const written: Promise<unknown>[] = [];
  for (let i = 0; i < 20; i++) {
    written.push(db.transaction((tx) => tx.put(`old${i}`, `transaction ${i}`)));
    written.push(db.batch([{ type: 'put', key: `new${i}`, value: `batch ${i}` }]));
    // These give back what they have taken at once.
    await db.transaction((tx) => {
      tx.has(`old${i}`);
    });
    await t.rejects(
      db.transaction((tx) => {
        tx.put('never', i);
        throw new Error('given up');
      }),
      /given up/,
    );
    await t.rejects(db.batch([{ type: 'put', key: 'never', value: undefined }]), { code: 'FV_VALUE' });
  }
  t.ok(db.stats().contention.deferrals > 0);
  Atomics.store(words, lock, 0);
  await Promise.all(written);
  for (let i = 0; i < 20; i++) {
    t.equal(db.get(`old${i}`), `transaction ${i}`);
    t.equal(db.get(`new${i}`), `batch ${i}`);
  }
  t.equal(db.size, 40);
  await db.close();
});

void t.test('a batch for which there is no memory leaves none taken', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1, maxMemoryBytes: 16 * 1024 * 1024 });
  await db.put('there', 'x'.repeat(1000));
  const operations: BatchOperation[] = [{ type: 'put', key: 'there', value: 'y'.repeat(1000) }];
  for (let i = 0; i < 300; i++) operations.push({ type: 'put', key: `long${i}`, value: 'z'.repeat(100_000) });
  await t.rejects(db.batch(operations), { code: 'FV_MEMORY_FULL' });
  const { usedBytes } = db.stats().memory;
  for (let i = 0; i < 5; i++) await t.rejects(db.batch(operations), { code: 'FV_MEMORY_FULL' });
  t.equal(db.stats().memory.usedBytes, usedBytes);
  t.same([...db.entries()], [['there', 'x'.repeat(1000)]]);
  await db.close();
});

void t.test('a batch that only overwrites uses its keys, as far as eviction goes', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', eviction: 'lru', maxMemoryBytes: 64 * 1024 * 1024 });
  await db.batch([{ type: 'put', key: 'a', value: 1 }]);
  const marks = new Uint16Array(db.handle.marks);
  marks.fill(0xffff);
  await db.batch([{ type: 'put', key: 'a', value: 2 }]);
  t.equal(marks.filter((mark) => mark !== 0xffff).length, 1);
  await db.close();
});

void t.test('a chained batch that a getter of one of its values writes', async (t) => {
  const db = await open(tempFolder(t));
  const batch = db.batch().put('a', 1);
  let written: Promise<number> | undefined;
  const value = {
    get text(): string {
      written = batch.write();
      return 'late';
    },
  };
  t.throws(() => batch.put('b', value), { code: 'FV_CLOSED' });
  await written;
  t.same([...db.entries()], [['a', 1]]);
  await db.close();
});

void t.test('a snapshot that is opened while a batch is between the log and the tables', (t) => {
  const core = emptyCore(1);
  const writer = new Writer(core);
  const put = (value: number): void => {
    const batch = core.takeBatch();
    batch.put(core, 'a', value, 0);
    t.ok(writer.tryBatch(batch, DURABILITY_MEMORY, 0) > 0);
    core.giveBatch(batch);
  };
  put(1);
  const publish = core.ring.publish.bind(core.ring);
  core.ring.publish = (...args) => {
    publish(...args);
    Atomics.store(core.words, L.CONTROL_SNAPSHOT_COUNT, 1);
    core.control.storeLsn(L.CONTROL_SNAPSHOT_NEWEST, core.ring.lastReserved());
  };
  put(2);
  encodeKey(core.scratch, 'a');
  t.equal(core.shards[0].get(), 2);
  t.equal(core.shards[0].versionCount, 0);
  t.end();
});
