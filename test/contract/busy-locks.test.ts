/** Writes whose shard's lock is busy at first: free again as soon as this thread sleeps, so that none is deferred, and free again some writes later in the same turn. */

import t from 'tap';
import { open, type FlashVector, type OpenOptions } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
import { releaseWrite } from '../../src/memory/lock.js';
import { tempFolder } from '../support/temp.js';

const SHARD = L.shardWord(0);
/** A slot that no thread has, and 1. */
const OTHER = 200;

const WRITES: Record<string, (db: FlashVector) => Promise<unknown>> = {
  put: (db) => db.put('a', 1),
  'put if a version': (db) => db.put('a', 2, { ifVersion: db.getEntry('a')?.lsn }),
  'a long put': (db) => db.put('long', Buffer.alloc(2_000_000)),
  increment: (db) => db.increment('a', 5),
  update: (db) => db.update('a', (value) => (value as number) + 1),
  modify: (db) => db.modify('a', () => ({ value: 9 })),
  expire: (db) => db.expire('a', 100_000),
  batch: (db) => db.batch([{ type: 'put', key: 'b', value: 1 }]),
  transaction: (db) => db.transaction((tx) => tx.put('c', 1)),
  del: (db) => db.del('b'),
};

void t.test('a busy lock is slept for once', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1, ordered: false });
  const words = new Int32Array(db.handle.control);
  const { wait } = Atomics;
  t.teardown(() => (Atomics.wait = wait));
  await db.put('a', 0);
  for (const [name, write] of Object.entries(WRITES)) {
    await new Promise((resolve) => setTimeout(resolve, 3));
    let sleeps = 0;
    Atomics.wait = () => {
      sleeps++;
      if (words[SHARD + L.SHARD_LOCK] === OTHER) releaseWrite(words, SHARD);
      return 'ok';
    };
    const before = db.stats().contention.deferrals;
    words[SHARD + L.SHARD_LOCK] = OTHER;
    const written = write(db);
    Atomics.wait = wait;
    await written;
    t.equal(sleeps, 1, `${name} slept`);
    t.equal(db.stats().contention.deferrals, before, `${name} was not deferred`);
  }
  t.equal(db.get('a'), 9);
  t.equal(db.get('c'), 1);
  await db.close();
});

/** A store of one shard, whose lock `hold` takes for another thread; nobody gets it by sleeping. */
async function busyStore(t: Tap.Test, options: OpenOptions = {}): Promise<{ db: FlashVector; hold: () => void; letGo: () => void }> {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1, ordered: false, ...options });
  const words = new Int32Array(db.handle.control);
  const { wait } = Atomics;
  t.teardown(() => (Atomics.wait = wait));
  const hold = (): void => {
    Atomics.wait = () => 'timed-out';
    words[SHARD + L.SHARD_LOCK] = OTHER;
  };
  const letGo = (): void => {
    releaseWrite(words, SHARD);
    Atomics.wait = wait;
  };
  return { db, hold, letGo };
}

void t.test('once the lock is free, further writes of the turn carry out the deferred ones, in order, and are not deferred', async (t) => {
  const { db, hold, letGo } = await busyStore(t);
  const before = db.stats().contention.deferrals;
  const written: Promise<unknown>[] = [];
  const keys = Array.from({ length: 200 }, (_, i) => `key${i}`);
  hold();
  for (const key of keys.slice(0, 40)) written.push(db.put(key, key));
  t.equal(db.stats().contention.deferrals, before + 40);
  letGo();
  for (const key of keys.slice(40)) written.push(db.put(key, key));
  t.ok(db.stats().contention.deferrals < before + 40 + 40, 'regression: all of the turn behind them was deferred');
  t.equal(db.size, 200, 'nothing waits for the event loop');
  await Promise.all(written);
  const lsns = keys.map((key) => db.getEntry(key)?.lsn ?? 0);
  t.same(
    lsns,
    [...lsns].sort((a, b) => a - b),
  );
  const others: Record<string, (i: number) => Promise<unknown>> = {
    removals: (i) => db.del(`key${i}`),
    batches: (i) => db.batch([{ type: 'put', key: 'b', value: i }]),
  };
  for (const [name, write] of Object.entries(others)) {
    hold();
    const last: Promise<unknown>[] = [db.put(name, 1)];
    letGo();
    for (let i = 0; i < 20; i++) last.push(write(i));
    t.equal(db.get(name), 1, `${name} do so, too`);
    await Promise.all(last);
  }
  t.equal(db.get('b'), 19);
  for (let i = 0; i < 20; i++) t.equal(db.has(`key${i}`), false, `key${i} was removed`);
  await db.close();
});

void t.test(
  'regression: no function of a deferred update and no deferred batch is tried inside other calls; they wait for the event loop',
  async (t) => {
    const { db, hold, letGo } = await busyStore(t);
    await db.put('a', 0);
    let calls = 0;
    const nested: Promise<unknown>[] = [];
    const increment = (value?: number): number => {
      calls++;
      for (let i = 0; i < 40; i++) nested.push(db.put(`nested${i}`, i));
      return (value ?? 0) + 1;
    };
    hold();
    const written: Promise<unknown>[] = [db.put('first', 0), db.update<number>('a', increment)];
    letGo();
    for (let i = 0; i < 100; i++) written.push(db.put(`behind${i}`, i));
    t.equal(db.get('first'), 0, 'a put before it is carried out');
    t.equal(calls, 0);
    await Promise.all(written);
    await Promise.all(nested);
    t.equal(calls, 1);
    t.equal(db.get('a'), 1);
    t.equal(db.get('behind99'), 99);
    t.equal(db.get('nested39'), 39);
    hold();
    const batch = db.batch([{ type: 'put', key: 'a', value: 2 }]);
    letGo();
    const behind = Array.from({ length: 40 }, (_, i) => db.put(`b${i}`, i));
    t.equal(db.get('a'), 1);
    await Promise.all([batch, ...behind]);
    t.equal(db.get('a'), 2);
    await db.close();
  },
);

void t.test(
  'regression: a thread that closes after its own writes have carried out what was deferred leaves no waiter for room behind',
  async (t) => {
    const { db, hold, letGo } = await busyStore(t);
    const words = new Int32Array(db.handle.control);
    hold();
    const written = [db.put('a', 1)];
    // The event loop tries it and waits then.
    while (words[L.CONTROL_ROOM_WAITERS] === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    letGo();
    for (let i = 0; i < 20; i++) written.push(db.put(`b${i}`, i));
    t.equal(db.get('b19'), 19);
    await db.drained();
    t.equal(words[L.CONTROL_ROOM_WAITERS], 0);
    await Promise.all(written);
    await db.close();
  },
);

void t.test('long values, and all where there is eviction, wait for the event loop', async (t) => {
  const value = 'v'.repeat(100_000);
  const stores: [string, OpenOptions][] = [
    ['long', {}],
    ['short', { eviction: 'lru', maxMemoryBytes: 64 * 1024 * 1024 }],
  ];
  for (const [key, options] of stores) {
    const { db, hold, letGo } = await busyStore(t, options);
    hold();
    const written = [db.put(key, key === 'long' ? value : 'v')];
    letGo();
    for (let i = 0; i < 40; i++) written.push(db.put(`b${i}`, i));
    t.equal(db.size, 0, key);
    await Promise.all(written);
    t.equal(db.size, 41);
    await db.close();
  }
});
