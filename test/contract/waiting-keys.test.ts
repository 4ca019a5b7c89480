/** New keys wait before they are put into the ordered index, and a thread puts them there: nobody may be able to tell. */

import t from 'tap';
import { once } from 'node:events';
import { getPriority } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { FlashVectorError, open, type FlashVector } from '../../src/index.js';
import { Bell } from '../../src/memory/bell.js';
import * as L from '../../src/memory/layout.js';
import { DURABILITY_MEMORY, OPERATION_PUT } from '../../src/base/record.js';
import { Writer } from '../../src/engine/writer.js';
import { encodeKey } from '../../src/table/key-codec.js';
import { PendingKeys, SLICE } from '../../src/table/pending-keys.js';
import { reclaimLocked } from '../../src/table/reclaim.js';
import { checkTree, del, emptyCore, indexOf, put } from '../support/index-harness.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const key = (i: number): string => `key:${String(Math.imul(i, 0x9e3779b1) >>> 0).padStart(10, '0')}`;
const indexerOf = (db: FlashVector): number => Atomics.load(new Int32Array(db.handle.control), L.CONTROL_INDEXER);

/** All threads that this one has started. */
const workers: Worker[] = [];
process.on('worker', (worker: Worker) => workers.push(worker));

/** Resolves when `isSo`, and fails the test when it is not so within some seconds. */
async function until(t: Tap.Test, what: string, isSo: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!isSo()) {
    if (performance.now() > deadline) {
      t.fail(what);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Puts new keys as fast as it can, until the store has an indexer. @returns keys put */
async function fillUntilIndexed(t: Tap.Test, db: FlashVector, from: number, state = L.INDEXER_ASSIGNED): Promise<number> {
  let next = from;
  while (indexerOf(db) !== state && next < from + 2_000_000) {
    const last = next + 20_000;
    let done: Promise<number> | undefined;
    for (; next < last; next++) done = db.put(key(next), next);
    await done;
  }
  t.equal(indexerOf(db), state);
  return next;
}

function sameKeys(t: Tap.Test, db: FlashVector, count: number): void {
  const expected = Array.from({ length: count }, (_, i) => key(i)).sort();
  const found = [...db.keys()];
  t.equal(found.length, count);
  t.equal(
    found.findIndex((k, i) => k !== expected[i]),
    -1,
    'the keys are there in order',
  );
}

void t.test('whoever reads in order sees every key that was put before', async (t) => {
  const random = randomFrom(testSeed(t));
  const integer = (below: number): number => Math.floor(random() * below);
  const db = await open(tempFolder(t), { durability: 'memory', shards: 2 });
  const model = new Map<string, unknown>();
  let waited = 0;
  for (let round = 0; round < 150; round++) {
    const writes: Promise<unknown>[] = [];
    for (let i = integer(700); i >= 0; i--) {
      const k = key(integer(20_000));
      if (integer(5) === 0) {
        model.delete(k);
        writes.push(db.del(k));
      } else {
        // Longer than what is there: another block, to which the index has to lead.
        const value = 'v'.repeat(integer(4) === 0 ? integer(2000) : 10);
        model.set(k, value);
        writes.push(db.put(k, value));
      }
    }
    waited = Math.max(waited, db.stats().index.waitingKeys);
    await Promise.all(writes);
    const sorted = [...model.keys()].sort();
    const from = key(integer(20_000));
    switch (integer(6)) {
      case 0:
        t.same([...db.keys()], sorted);
        break;
      case 1:
        t.same([...db.keys({ reverse: true, limit: 50 })], sorted.slice(-50).reverse());
        break;
      case 2:
        t.equal(db.count({ gte: from }), sorted.filter((k) => k >= from).length);
        break;
      case 3: {
        const snapshot = db.snapshot();
        await db.put(`later${round}`, 1);
        t.same([...snapshot.keys()], sorted);
        snapshot.close();
        await db.del(`later${round}`);
        break;
      }
      case 4:
        await db.transaction((tx) => {
          t.same(
            [...tx.keys({ lt: from })],
            sorted.filter((k) => k < from),
          );
        });
        break;
      default:
        await db.batch(sorted.slice(0, 20).map((k) => ({ type: 'del', key: k })));
        for (const k of sorted.slice(0, 20)) model.delete(k);
        t.equal([...db.keys({ limit: 1 })][0], sorted[20]);
    }
  }
  t.ok(waited > 10, `${waited} keys waited at once`);
  t.same(
    [...db.entries()],
    [...model].sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  t.equal(db.stats().index.waitingKeys, 0);
  await db.close();
});

void t.test('a store that is filled fast gets the indexer, which settles its keys', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  await db.put('a', 1);
  t.equal(indexerOf(db), L.INDEXER_NONE);
  await db.del('a');
  const count = await fillUntilIndexed(t, db, 0);
  await until(t, 'only a few keys go on waiting', () => db.stats().index.waitingKeys < 16 * 64);
  t.equal(db.stats().threads, 1, 'it is none of the threads that use the store');
  if (process.platform === 'linux') {
    const words = new Int32Array(db.handle.control);
    const thread = L.controlShape(db.handle.shards.length).threadAreaWord + L.INDEXER_SLOT * L.THREAD_WORDS;
    t.equal(getPriority(Atomics.load(words, thread + L.THREAD_SYSTEM_ID)), Math.max(5, getPriority()), 'it gives way');
  }
  sameKeys(t, db, count);

  // It sleeps by and by, and is woken.
  await new Promise((resolve) => setTimeout(resolve, 100));
  let last: Promise<number> | undefined;
  for (let i = count; i < count + 3000; i++) last = db.put(key(i), i);
  await last;
  await until(t, 'it is woken', () => db.stats().index.waitingKeys < 16 * 64);
  sameKeys(t, db, count + 3000);

  // One thread for all stores.
  const other = await open(tempFolder(t), { durability: 'memory' });
  const before = workers.length;
  await fillUntilIndexed(t, other, 0);
  t.equal(workers.length, before);
  await other.close();
  await db.close();
});

void t.test('an attached thread that writes fast makes the owner assign the indexer', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const index = new URL('../../src/index.js', import.meta.url).href;
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads');
     import(${JSON.stringify(index)}).then(async ({ attach }) => {
       const db = await attach(workerData.handle);
       const words = new Int32Array(workerData.handle.control);
       let i = 0;
       while (words[${L.CONTROL_INDEXER}] !== ${L.INDEXER_ASSIGNED} && i < 2000000) {
         let last;
         for (const end = i + 10000; i < end; i++) last = db.put('key' + (Math.imul(i, 0x9e3779b1) >>> 0), i);
         await last;
       }
       await db.close();
     });`,
    { eval: true, workerData: { handle: db.handle } },
  );
  await once(worker, 'exit');
  t.equal(indexerOf(db), L.INDEXER_ASSIGNED);
  const { entries } = db.stats();
  t.equal([...db.keys()].length, entries);
  await db.close();
});

void t.test('the indexer dies in the middle of its work', { timeout: 120_000 }, async (t) => {
  const random = randomFrom(testSeed(t));
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4 });
  const words = new Int32Array(db.handle.control);
  const slot = L.controlShape(4).threadAreaWord + L.INDEXER_SLOT * L.THREAD_WORDS + L.THREAD_ID;
  let count = 0;
  for (let round = 0; round < 8; round++) {
    count = await fillUntilIndexed(t, db, count);
    await until(t, 'the indexer has come', () => Atomics.load(words, slot) !== 0);
    const id = Atomics.load(words, slot) - 1;
    // A thread is announced a turn later.
    await new Promise((resolve) => setImmediate(resolve));
    const indexer = workers.find((worker) => worker.threadId === id);
    if (indexer === undefined) throw new Error(`thread ${id} is none of ${workers.map(({ threadId }) => threadId).join(' ')}`);
    const ended = once(indexer, 'exit');
    const after = Math.floor(random() * 20);
    let last: Promise<number> | undefined;
    for (let i = 0; i < 20; i++) {
      if (i === after) void indexer.terminate();
      for (const end = count + 1000; count < end; count++) last = db.put(key(count), count);
      await last;
    }
    await ended;
    await until(t, 'it is buried, and the store knows', () => Atomics.load(words, slot) !== id + 1 && indexerOf(db) !== L.INDEXER_ASSIGNED);
    sameKeys(t, db, count);
  }
  await db.close();
});

void t.test('at the memory cap every key can be read in order and removed', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4, maxMemoryBytes: 16 * 1024 * 1024 });
  let waited = 0;
  for (let round = 0; round < 3; round++) {
    let count = 0;
    let failure: unknown;
    while (failure === undefined) {
      const puts: Promise<unknown>[] = [];
      for (const end = count + 100; count < end; count++) puts.push(db.put(key(count), 'v'));
      waited = Math.max(waited, db.stats().index.waitingKeys);
      const results = await Promise.allSettled(puts);
      const failed = results.find((result) => result.status === 'rejected');
      failure = failed?.reason;
    }
    t.match(failure, { code: 'FV_MEMORY_FULL' });
    const { entries } = db.stats();
    t.ok(entries > 20_000, `${entries} entries`);
    const keys = [...db.keys()];
    t.equal(keys.length, entries);
    for (let i = 0; i < keys.length; i += 500) await Promise.all(keys.slice(i, i + 500).map((k) => db.del(k)));
    t.equal(db.stats().entries, 0);
    t.same([...db.keys()], []);
  }
  t.equal(waited, 0, 'none waits');
  await db.close();
});

void t.test('counts of waiting keys wrap', (t) => {
  for (const start of [0x7fff_ff80, -0x40]) {
    const core = emptyCore(1);
    const index = indexOf(core);
    const line = L.shardWord(0);
    for (const word of [L.SHARD_PENDING_ADDED, L.SHARD_PENDING_SETTLED]) core.words[line + word] = start;
    for (let i = 0; i < 2000; i++) {
      put(core, key(i));
      if (i % 190 === 189) {
        t.equal(index.pending.waiting(0), 190);
        index.settle();
        t.ok(index.pending.isEmpty);
      }
    }
    index.settle();
    t.equal(checkTree(core), 2000);
  }
  t.end();
});

void t.test('keys that come in order do not wait, once some have; others do', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const rising = (i: number): string => `rising:${String(i).padStart(10, '0')}`;
  const waitOf = (k: string): number => {
    const before = index.pending.waiting(0);
    put(core, k);
    return index.pending.waiting(0) - before;
  };
  let next = 0;
  let first = 0;
  while (first < 250 && waitOf(rising(next++)) === 1) first++;
  t.ok(first > 40 && first < 190, `${first} waited: not each is looked at`);
  t.equal(index.pending.waiting(0), 0, 'those that waited are settled by the first that does not');
  for (const end = next + 1000; next < end; next++) if (waitOf(rising(next)) !== 0) t.fail(`key ${next} waits`);
  // A few more may be taken for keys in order, for not all are looked at.
  let falling = 0;
  while (falling < 100 && waitOf(key(falling)) === 0) falling++;
  t.ok(falling < 8, `${falling} others did not wait`);
  let waited = 0;
  for (let i = 0; i < 400; i++) if (waitOf(key(1000 + i)) === 1) waited++;
  t.ok(waited > 380, `${waited} of 400 others waited`);
  // Two orders that alternate are none.
  let both = 0;
  for (let i = 0; i < 300; i++) {
    index.settle();
    if (waitOf(i % 2 === 0 ? `a${rising(i)}` : `b${rising(i)}`) === 1) both++;
  }
  t.ok(both > 270, `${both} of 300 of two orders waited`);
  index.settle();
  t.equal(checkTree(core), next + falling + 1 + 400 + 300);
  t.end();
});

void t.test('a queue that is full is settled by who puts the next key', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  for (let i = 0; i < L.PENDING_SLOTS; i++) put(core, key(i));
  t.equal(index.pending.waiting(0), L.PENDING_SLOTS);
  put(core, key(L.PENDING_SLOTS));
  t.equal(index.pending.waiting(0), 0);
  t.equal(checkTree(core), L.PENDING_SLOTS + 1);
  t.end();
});

void t.test('a put that makes a queue crowded settles some keys, and waits for nobody who has the lock of the index', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1 });
  const words = new Int32Array(db.handle.control);
  const waiting = (): number => db.stats().index.waitingKeys;
  const crowded = L.PENDING_SLOTS / 2;
  const writes: Promise<number>[] = [];
  let count = 0;
  const putMore = (many: number): void => {
    for (const end = count + many; count < end; count++) writes.push(db.put(key(count), count));
  };
  putMore(crowded - 1);
  t.equal(waiting(), crowded - 1);
  putMore(1);
  t.equal(waiting(), crowded - SLICE, 'a put');
  putMore(SLICE - 1);
  writes.push(db.increment(key(count++), 1));
  t.equal(waiting(), crowded - SLICE, 'an increment');

  // Held by nobody who lives: whoever waited for it would wait long.
  t.equal(Atomics.compareExchange(words, L.CONTROL_INDEX_LOCK, 0, 101), 0);
  putMore(L.PENDING_SLOTS - waiting());
  t.equal(waiting(), L.PENDING_SLOTS, 'all the queue can hold');
  Atomics.store(words, L.CONTROL_INDEX_LOCK, 0);
  putMore(1);
  t.equal(waiting(), 0, 'a put that finds the queue full settles all');
  await Promise.all(writes);
  sameKeys(t, db, count);
  await db.close();
});

void t.test('a put that makes a queue crowded has let go of its shard before it settles keys', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const writer = new Writer(core);
  const [{ lockWord }] = core.shards;
  const relieve = index.relieve.bind(index);
  const held: number[] = [];
  index.relieve = (shard) => {
    held.push(core.words[lockWord + L.SHARD_LOCK], core.words[L.CONTROL_LOG_LOCK]);
    relieve(shard);
  };
  for (let i = 0; i < L.PENDING_SLOTS / 2; i++) {
    encodeKey(core.scratch, key(i));
    core.codec.place(i);
    t.ok(writer.tryWrite(OPERATION_PUT, 'none', DURABILITY_MEMORY, 0) > 0);
  }
  t.same(held, [0, 0]);
  t.equal(index.pending.waiting(0), L.PENDING_SLOTS / 2 - SLICE);
  t.end();
});

void t.test('the indexer settles a slice at a time, and stays with no shard', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  for (let i = 0; i < 5 * SLICE + 10; i++) put(core, key(i));
  const { pending } = index;
  const unlock = index.unlock.bind(index);
  const left: number[] = [];
  index.unlock = () => {
    left.push(pending.waiting(0));
    unlock();
  };
  t.equal(index.settleInSlices(), true);
  t.same(
    left,
    [4, 3, 2, 1, 0].map((slices) => slices * SLICE + 10),
  );
  t.equal(index.settleInSlices(), false, 'fewer are left to gather');
  t.equal(left.length, 5);
  // As if the shard were filled as fast as it is settled.
  pending.waiting = () => SLICE;
  pending.settleLocked = () => undefined;
  t.equal(index.settleInSlices(), true);
  t.equal(left.length, 5 + L.PENDING_SLOTS / SLICE);
  t.end();
});

void t.test('a put succeeds that makes a queue crowded when the index has no memory', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const crowded = L.PENDING_SLOTS / 2;
  for (let i = 0; i < crowded; i++) put(core, key(i));
  t.equal(index.pending.crowded, 0);
  const reserve = index.reserveOneLocked.bind(index);
  index.setWithoutSplitLocked = () => false;
  index.reserveOneLocked = () => false;
  index.relieve(0);
  t.equal(index.pending.waiting(0), crowded, 'the keys go on waiting');
  t.equal(core.words[L.CONTROL_INDEX_LOCK], 0, 'and nothing is locked');
  index.reserveOneLocked = reserve;
  index.relieve(0);
  t.equal(index.pending.waiting(0), crowded - SLICE);
  t.equal(checkTree(core), crowded);
  t.end();
});

void t.test('the indexer is rung for once in a while, if it sleeps and has the store', (t) => {
  const core = emptyCore(1);
  const bell = new Bell();
  const words = new Int32Array(bell.buffer);
  const pending = new PendingKeys(core.words, indexOf(core), bell);
  const [rings, asleep] = [0, 16];
  for (const [state, sleeps, rung] of [
    [L.INDEXER_NONE, 1, 0],
    [L.INDEXER_ASSIGNED, 0, 0],
    [L.INDEXER_ASSIGNED, 1, 2],
  ]) {
    core.words[L.CONTROL_INDEXER] = state;
    words[asleep] = sleeps;
    words[rings] = 0;
    for (let i = 0; i < 64; i++) pending.add(0, 1);
    t.equal(words[rings], rung);
  }
  t.end();
});

void t.test('keys that come in order do not wait, and fill their leaves', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const count = 50_000;
  let last: Promise<number> | undefined;
  for (let i = 0; i < count; i++) last = db.put(`key:${String(i).padStart(8, '0')}`, i);
  await last;
  t.ok(db.stats().index.waitingKeys < 64);
  const perNode = count / db.stats().index.nodes;
  t.ok(perNode > 115, `${perNode} keys a node`);
  t.equal(db.count(), count);
  await db.close();
});

void t.test('without memory for the index keys go on waiting, and are there later', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  for (let i = 0; i < L.PENDING_SLOTS; i++) put(core, key(i));
  const reserve = index.reserveOneLocked.bind(index);
  index.reserveOneLocked = () => false;
  t.throws(() => index.settle(), { code: 'FV_MEMORY_FULL' });
  const waiting = index.pending.waiting(0);
  t.ok(waiting > 0 && waiting < L.PENDING_SLOTS, `${waiting} go on waiting`);
  t.throws(() => index.lockFor(0), { code: 'FV_MEMORY_FULL' });
  t.equal(core.words[L.CONTROL_INDEX_LOCK], 0, 'and nothing is locked');
  index.reserveOneLocked = reserve;
  index.settle();
  t.equal(checkTree(core), L.PENDING_SLOTS);
  t.end();
});

void t.test('an indexer that has given a store up can be asked again', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const words = new Int32Array(db.handle.control);
  const next = await fillUntilIndexed(t, db, 0);
  db.count();
  // Nobody that lives holds the lock, for longer than anybody waits for it.
  while (Atomics.compareExchange(words, L.CONTROL_INDEX_LOCK, 0, 101) !== 0);
  for (let i = next; i < next + 1500; i++) void db.put(key(i), i);
  await until(t, 'it gives the store up', () => indexerOf(db) === L.INDEXER_NONE);
  Atomics.store(words, L.CONTROL_INDEX_LOCK, 0);
  const count = await fillUntilIndexed(t, db, next + 1500);
  sameKeys(t, db, count);
  await db.close();
});

void t.test('the memory of closed stores is given back', { timeout: 120_000 }, async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  // One that stays open keeps the indexer.
  const other = await open(tempFolder(t), { durability: 'memory' });
  await fillUntilIndexed(t, other, 0);
  const sizes: number[] = [];
  for (let round = 0; round < 16; round++) {
    const db = await open(tempFolder(t), { durability: 'memory' });
    await fillUntilIndexed(t, db, 0);
    await db.batch(Array.from({ length: 16 }, (_, i) => ({ type: 'put', key: `large${i}`, value: Buffer.alloc(1024 * 1024, i) })));
    // The indexer has seen all of it.
    for (let i = 0; i < 2000; i++) void db.put(key(-i), i);
    await db.close();
    await new Promise((resolve) => setTimeout(resolve, 20));
    collect();
    sizes.push(process.memoryUsage().rss / 2 ** 20);
  }
  const growth = sizes[15] - sizes[5];
  t.ok(growth < 60, `${growth.toFixed(0)} MiB more after ten stores: ${sizes.map((size) => size.toFixed(0)).join(' ')}`);
  await other.close();
});

void t.test('a tombstone that cannot be removed for want of the lock stays, and fails no write', (t) => {
  const core = emptyCore(1);
  const index = indexOf(core);
  const [shard] = core.shards;
  core.words[L.CONTROL_SNAPSHOT_COUNT] = 1;
  core.control.storeLsn(L.CONTROL_SNAPSHOT_NEWEST, 1_000_000);
  core.control.storeLsn(L.CONTROL_SNAPSHOT_OLDEST, 1);
  put(core, 'key');
  del(core, 'key');
  t.ok(shard.hasVersions());
  core.words[L.CONTROL_SNAPSHOT_COUNT] = 0;
  const lockFor = index.lockFor.bind(index);
  index.lockFor = () => {
    throw new FlashVectorError('FV_TIMEOUT', 'the index lock is held');
  };
  t.equal(reclaimLocked(shard, 10), 1);
  t.notOk(shard.hasVersions());
  index.lockFor = lockFor;
  t.equal(checkTree(core), 1, 'the tombstone stays');
  put(core, 'key');
  del(core, 'key');
  t.equal(checkTree(core), 0);
  t.end();
});
