/** Eviction, as a caller meets it: who gives way at the cap, and how much of the memory stays in use. */

import t from 'tap';
import { open, type FlashVector, type FlashVectorError, type OpenOptions } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const code = (expected: string): { code: string } => ({ code: expected });

void t.test('eviction: what was used longest ago, or expires first, gives way at the cap; through the log', async (t) => {
  const folder = tempFolder(t);
  const options = { shards: 4, maxMemoryBytes: 5 * 1024 * 1024, ringBytes: 65_536 };
  await t.rejects(open(folder, { eviction: 'lru' }), { code: 'FV_OPTION', message: /maxMemoryBytes/ });
  let db = await open(folder, { ...options, eviction: 'lru', durability: 'memory' });
  const hot = Array.from({ length: 50 }, (_, i) => `hot${i}`);
  for (const name of hot) await db.put(name, 'h'.repeat(300));
  const tick = new Int32Array(db.handle.control);
  for (let i = 0; i < 20_000; i++) {
    // Each time: a timer of the store's own sets it, too.
    Atomics.store(tick, L.CONTROL_ACCESS_TICK, Math.floor(i / 200));
    await db.put(`cold${i}`, 'c'.repeat(300));
    if (i % 200 === 0) for (const name of hot) db.get(name);
  }
  const { evicted } = db.stats().operations;
  t.ok(evicted > 5000, `${evicted} evicted`);
  t.ok(hot.filter((name) => db.has(name)).length >= 45, 'what is used stays');
  t.equal(db.get('cold19999'), 'c'.repeat(300), 'what came last is there');
  const { totalBytes, stagingBytes } = db.stats().memory;
  t.ok(totalBytes - stagingBytes <= options.maxMemoryBytes, `${totalBytes} bytes in all, ${stagingBytes} of them staged`);
  await db.batch(Array.from({ length: 100 }, (_, i) => ({ type: 'put', key: `batch${i}`, value: 'b'.repeat(300) })));
  t.equal(db.count({ prefix: 'batch' }), 100);
  await db.increment('counter');
  const size = db.size;
  t.equal(db.count(), size);
  await db.close();
  db = await open(folder, options);
  t.equal(db.size, size, 'what was evicted does not come back');
  await db.close();

  db = await open(tempFolder(t), { ...options, eviction: 'ttl', durability: 'memory' });
  await db.put('for good', 1);
  for (let i = 0; i < 12_000; i++) await db.put(`k${i}`, 'x'.repeat(300), { ttl: i < 3000 ? 1e6 : 1e9 });
  t.ok(db.stats().operations.evicted > 1000);
  t.equal(db.get('for good'), 1);
  const soon = Array.from({ length: 3000 }, (_, i) => `k${i}`).filter((name) => db.has(name)).length;
  t.ok(soon < 1500, `${soon} of 3000 that were to expire first are left`);
  await db.clear({ prefix: 'k' });
  let full: unknown;
  for (let i = 0; full === undefined; i++) await db.put(`stays${i}`, 's'.repeat(300)).catch((error: unknown) => (full = error));
  t.match(full, code('FV_MEMORY_FULL'), 'what does not expire is never evicted');
  await db.close();
});

/** Puts `count` entries, whose values have up to `bytesMax` bytes. @returns how many were refused */
async function fill(db: FlashVector, random: () => number, count: number, bytesMax: number): Promise<number> {
  let refused = 0;
  const refuse = (error: unknown): void => {
    if ((error as FlashVectorError).code !== 'FV_MEMORY_FULL') throw error;
    refused++;
  };
  for (let i = 0; i < count; i++) {
    const put = db.put(`key${i}`, 'x'.repeat(random() * bytesMax)).catch(refuse);
    if (i % 50 === 0) await put;
  }
  return refused;
}

void t.test('regression: entries of many sizes left five sixths of the memory at the cap unused', async (t) => {
  const options: OpenOptions = { durability: 'memory', eviction: 'lru', maxMemoryBytes: 16 * 1024 * 1024 };
  const db = await open(tempFolder(t), options);
  const random = randomFrom(testSeed(t));
  t.equal(await fill(db, random, 30_000, 3000), 0, 'refused');
  const { usedBytes, shardBytes } = db.stats().memory;
  t.ok(usedBytes > shardBytes * 0.55, `${usedBytes} of ${shardBytes} bytes in use`);
  t.ok(db.size > 6000, `${db.size} entries`);
  // The same in batches, whose entries are of several sizes at once.
  for (let i = 0; i < 3000; i++)
    await db.batch(Array.from({ length: 5 }, (_, j) => ({ type: 'put', key: `batch${i}/${j}`, value: 'y'.repeat(random() * 3000) })));
  const after = db.stats().memory;
  t.ok(after.usedBytes > after.shardBytes * 0.3, `${after.usedBytes} of ${after.shardBytes} bytes in use after batches`);
  t.equal(db.get('batch2999/4') !== undefined, true, 'what came last is there');
  await db.close();
});

for (const bytesMax of [60, 300, 2000]) {
  void t.test(`what is used stays, whatever its size and its neighbours: values of up to ${bytesMax} bytes`, async (t) => {
    const options: OpenOptions = { shards: 4, durability: 'memory', eviction: 'lru', maxMemoryBytes: 8 * 1024 * 1024, ringBytes: 65_536 };
    const db = await open(tempFolder(t), options);
    const random = randomFrom(testSeed(t));
    const hot = Array.from({ length: 100 }, (_, i) => `cold${i * 97}/hot`);
    for (const [i, name] of hot.entries()) await db.put(name, 'h'.repeat((i * bytesMax) / 100));
    const tick = new Int32Array(db.handle.control);
    const count = Math.floor(30_000_000 / (bytesMax + 100));
    for (let i = 0; i < count; i++) {
      // Each time, and the reads at once behind it: a timer of the store's own sets it, too, and what is read then looks as old as the store.
      Atomics.store(tick, L.CONTROL_ACCESS_TICK, Math.floor((i * 100) / count));
      if (i % 200 === 199) for (const name of hot) db.get(name);
      await db.put(`cold${i}`, 'c'.repeat(random() * bytesMax));
    }
    t.ok(db.stats().operations.evicted > 5000, `${db.stats().operations.evicted} evicted`);
    const left = hot.filter((name) => db.has(name)).length;
    // Where few sizes fit, those in use are spared for it; where many do, a slab that is emptied takes some with it.
    t.ok(left >= (bytesMax === 2000 ? 97 : 80), `${left} of 100`);
    await db.close();
  });
}

void t.test(
  'regression: writes were refused where the index had no memory, or entries were a little larger than all that were there',
  async (t) => {
    const options: OpenOptions = { shards: 8, durability: 'memory', eviction: 'lru', maxMemoryBytes: 8 * 1024 * 1024, ringBytes: 65_536 };
    const db = await open(tempFolder(t), options);
    t.equal(await fill(db, randomFrom(testSeed(t)), 250_000, 60), 0, 'refused');
    t.equal(db.count(), db.size);
    await db.close();
  },
);

void t.test('regression: slabs that were kept though they were empty stood in the way of entries of other sizes', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', maxMemoryBytes: 16 * 1024 * 1024, ringBytes: 65_536 });
  const random = randomFrom(testSeed(t));
  const isFull = (error: unknown): boolean => {
    t.match(error, code('FV_MEMORY_FULL'));
    return true;
  };
  // Of all sizes, so that every shard has slabs for each; then of the smallest.
  let full: unknown = false;
  for (let i = 0; full !== true; i++) full = await db.put(`key${i}`, 'x'.repeat(random() * 3000)).catch(isFull);
  await db.clear();
  full = false;
  for (let i = 0; full !== true; i++) full = await db.put(`small${i}`, i).catch(isFull);
  t.ok(db.size > 70_000, `${db.size} entries`);
  await db.close();
});

void t.test('regression: after a change of sizes new entries took the place of new ones, and old ones stayed', async (t) => {
  const options: OpenOptions = { durability: 'memory', eviction: 'lru', maxMemoryBytes: 16 * 1024 * 1024, ringBytes: 65_536 };
  const db = await open(tempFolder(t), options);
  for (let i = 0; i < 150_000; i++) {
    const put = db.put(`small${i}`, 'x'.repeat(60));
    if (i % 50 === 0) await put;
  }
  for (let i = 0; i < 1000; i++) await db.put(`large${i}`, 'y'.repeat(2000));
  const left = db.count({ prefix: 'large' });
  t.ok(left > 500, `${left} of 1000`);
  await db.close();
});

void t.test('regression: longer keys were refused once shorter ones had taken all of the memory of an index', async (t) => {
  const options: OpenOptions = { shards: 8, durability: 'memory', eviction: 'lru', maxMemoryBytes: 8 * 1024 * 1024, ringBytes: 65_536 };
  const db = await open(tempFolder(t), options);
  for (let i = 0; i < 120_000; i++) {
    const put = db.put(`k${i}`, i);
    if (i % 50 === 0) await put;
  }
  for (let i = 0; i < 3000; i++) await db.put(`a longer prefix than before/k${i}`, i);
  t.ok(db.size > 20_000, `${db.size} entries`);
  t.equal(db.count(), db.size);
  await db.close();
});

void t.test('a batch, and a transaction that has read a range, make room for themselves at the cap', async (t) => {
  const options: OpenOptions = { durability: 'memory', eviction: 'lru', maxMemoryBytes: 16 * 1024 * 1024, ringBytes: 65_536 };
  const db = await open(tempFolder(t), options);
  for (let i = 0; i < 4000; i++) await db.put(`key${i}`, 'x'.repeat(3000));
  const before = db.stats().operations.evicted;
  for (let i = 0; i < 4; i++)
    await db.batch(Array.from({ length: 600 }, (_, j) => ({ type: 'put', key: `batch${i}/${j}`, value: 'y'.repeat(3000) })));
  const evicted = db.stats().operations.evicted - before;
  t.ok(evicted < 2750, `${evicted} evicted for 2400`);
  let calls = 0;
  await db.transaction((tx) => {
    calls++;
    const seen = [...tx.keys()].length;
    for (let j = 0; j < 200; j++) tx.put(`tx${j}`, seen);
  });
  t.ok(calls <= 10, `${calls} calls of its body`);
  t.equal(db.count({ prefix: 'tx' }), 200);
  await db.close();
});

void t.test('regression: at the cap batches of new keys were refused though other keys had left their memory', async (t) => {
  const random = randomFrom(testSeed(t));
  const options: OpenOptions = { shards: 4, durability: 'memory', maxMemoryBytes: 16 * 1024 * 1024 };
  const db = await open(tempFolder(t), options);
  const keys: string[] = [];
  const name = (): string => `k${Math.floor(random() * 1e9)}`;
  await t.rejects(async () => {
    for (;;) {
      const key = name();
      await db.put(key, 'v'.repeat(20));
      keys.push(key);
    }
  }, code('FV_MEMORY_FULL'));
  let left = 0;
  for (const key of keys) if (random() < 0.3 && (await db.del(key))) left++;
  const wanted = db.size;
  let batches = 0;
  for (let i = 0; i < 200; i++) {
    const batch = Array.from({ length: 250 }, () => ({ type: 'put' as const, key: name(), value: 'v'.repeat(20) }));
    await db.batch(batch).then(
      () => batches++,
      (error: FlashVectorError) => t.equal(error.code, 'FV_MEMORY_FULL'),
    );
  }
  // All of a batch or nothing; before, none to three quarters of the memory were filled again, as it happened.
  t.ok(batches * 250 > left * 0.9, `${batches} batches, ${left} keys had gone`);
  t.ok(db.size <= wanted + batches * 250 && db.size > wanted + batches * 249, 'but for keys that were drawn twice');
  t.equal([...db.keys()].length, db.size);
  await db.close();
});

void t.test('one long key, which has gone, makes batches of short ones reserve no more than before', async (t) => {
  const db = await open(tempFolder(t), { shards: 4, durability: 'memory', maxMemoryBytes: 16 * 1024 * 1024 });
  const long = 'L'.repeat(60_000);
  await db.put(long, 'v');
  await db.del(long);
  for (let i = 0; i < 60; i++)
    await db.batch(Array.from({ length: 500 }, (_, j) => ({ type: 'put', key: `k${(j * 7919 + i) % 500}/${i}`, value: 'v'.repeat(20) })));
  t.equal(db.size, 30_000);
  for (let i = 0; i < 10_000; i++) await db.put(`z${i}`, 'v'.repeat(20));
  t.ok(db.stats().memory.totalBytes < 12 * 1024 * 1024, `${db.stats().memory.totalBytes} bytes`);
  await db.close();
});

void t.test('what no eviction would make room for evicts nothing; what might ends soon', async (t) => {
  const options: OpenOptions = { shards: 4, durability: 'memory', eviction: 'ttl', maxMemoryBytes: 8 * 1024 * 1024, ringBytes: 65_536 };
  const db = await open(tempFolder(t), options);
  for (let i = 0; i < 3000; i++) await db.put(`key${i}`, 'x'.repeat(100), { ttl: 1e9 });
  await t.rejects(db.put('huge', Buffer.alloc(9 * 1024 * 1024)), code('FV_MEMORY_FULL'));
  t.equal(db.size, 3000);
  await db.put('large', Buffer.alloc(4.5 * 1024 * 1024));
  await t.rejects(db.expire('large', 1e9), code('FV_MEMORY_FULL'), 'it has to be written once more');
  await db.close();
});

void t.test('increments of new keys make room for themselves, one after the other', async (t) => {
  const options: OpenOptions = { shards: 8, durability: 'memory', eviction: 'lru', maxMemoryBytes: 8 * 1024 * 1024, ringBytes: 65_536 };
  const db = await open(tempFolder(t), options);
  for (let i = 0; i < 120_000; i++) {
    const done = db.increment(`counter${i}`);
    if (i % 50 === 0) await done;
  }
  await db.increment('last');
  t.ok(db.stats().operations.evicted > 10_000);
  await db.close();
});
