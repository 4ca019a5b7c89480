/** `cache: true`: what is kept is never older than what a read would find, and nobody can change it. */

import { once } from 'node:events';
import { isDeepStrictEqual } from 'node:util';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import t from 'tap';
import { attach, open } from '../../src/index.js';
import { ValueCache } from '../../src/engine/value-cache.js';
import * as L from '../../src/memory/layout.js';
import { encodeKey } from '../../src/table/key-codec.js';
import { emptyCore, put } from '../support/index-harness.js';
import { testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const code = (name: string): { code: string } => ({ code: name });

void t.test('the same frozen object each time, until it is written again', async (t) => {
  const db = await open(tempFolder(t), { cache: true });
  await db.put('a', { name: 'Ada', tags: ['x', { deep: 1 }] });
  const first = db.get('a') as { name: string; tags: unknown[] };
  t.equal(db.get('a'), first);
  t.ok(Object.isFrozen(first) && Object.isFrozen(first.tags) && Object.isFrozen(first.tags[1]));
  t.throws(() => (first.name = 'x'), TypeError);
  for (let i = 0; i < 1000; i++) await db.put(`other:${i}`, i);
  t.equal(db.get('a'), first, 'writes of others change nothing');
  await db.put('a', { name: 'Grace' });
  t.same(db.get('a'), { name: 'Grace' });
  await db.del('a');
  t.equal(db.get('a'), undefined);
  await db.put('a', { name: 'Ada', tags: ['x', { deep: 1 }] });
  t.same(db.get('a'), first);
  t.not(db.get('a'), first);
  t.equal(await db.update('n', (old) => ((old as number | undefined) ?? 0) + 1), 1);
  t.equal(db.get('n'), 1);
  await db.batch([{ type: 'put', key: 'n', value: 5 }]);
  t.equal(db.get('n'), 5);
  const stats = db.stats().operations;
  db.get('n');
  t.equal(db.stats().operations.hits, stats.hits + 1, 'a kept value is a read, too');
  await db.close();
  t.throws(() => db.get('n'), code('FV_CLOSED'));
});

void t.test('what cannot be frozen, and what is long, comes as a copy', async (t) => {
  const db = await open(tempFolder(t), { cache: true });
  const values: [string, unknown][] = [
    ['bytes', Buffer.from('abc')],
    ['date', new Date(5)],
    ['map', new Map([['a', 1]])],
    ['inside', { list: [{ bytes: new Uint8Array([1, 2]) }] }],
    ['long', { text: 'x'.repeat(5000) }],
    ['heavy', { list: Array.from({ length: 1500 }, () => ({})) }],
  ];
  for (const [key, value] of values) await db.put(key, value);
  for (const [key, value] of values) {
    const got = db.get(key);
    t.same(got, value, key);
    t.not(db.get(key), got, `${key} is a copy`);
    t.notOk(Object.isFrozen(got), `${key} is not frozen`);
  }
  (db.get('inside') as { list: unknown[] }).list.length = 0;
  t.same(db.get('inside'), values[3][1]);
  await db.close();
});

void t.test('a kept value expires', async (t) => {
  const db = await open(tempFolder(t), { cache: true });
  await db.put('a', { n: 1 }, { ttl: 150 });
  await db.put('b', { n: 1 });
  t.same(db.get('a'), { n: 1 });
  t.same(db.get('b'), { n: 1 });
  await db.expire('b', 150);
  // Without a turn of the event loop, in which it could be removed: what is kept must know it by itself.
  for (const until = performance.now() + 170; performance.now() < until;);
  t.equal(db.get('a'), undefined);
  await new Promise((resolve) => setTimeout(resolve, 250));
  t.equal(db.get('b'), undefined);
  await db.close();
});

void t.test('a reader with a cache sees what one without sees, whatever is done', async (t) => {
  const seed = testSeed(t);
  const key = fc.integer({ min: 0, max: 20 }).map((n) => `key:${n}`);
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('get' as const), key }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('put' as const), key, value: fc.jsonValue() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('del' as const), key }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('expire' as const), key }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('snapshot' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('fill' as const), value: fc.jsonValue() }) },
  );
  const RUNS = 150;
  let runs = 0;
  const db = await open(tempFolder(t), { cache: true, durability: 'memory', shards: 2 });
  const plain = await attach(db.handle);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      runs++;
      await db.clear();
      let snapshot;
      for (const each of steps) {
        if (each.do === 'get') {
          const expected = plain.get(each.key);
          for (let twice = 0; twice < 2; twice++)
            if (!isDeepStrictEqual(db.get(each.key), expected)) throw new Error(`another value of ${each.key}`);
        } else if (each.do === 'put') void plain.put(each.key, each.value);
        else if (each.do === 'del') void db.del(each.key);
        else if (each.do === 'expire') void db.expire(each.key, 1);
        else if (each.do === 'fill') for (let i = 0; i < 30; i++) void db.put(`key:${i}`, each.value);
        else {
          snapshot?.close();
          snapshot = db.snapshot();
        }
      }
      snapshot?.close();
    }),
    { seed, numRuns: RUNS },
  );
  t.equal(runs, RUNS);
  await plain.close();
  await db.close();
});

void t.test('more keys than are kept', async (t) => {
  const db = await open(tempFolder(t), { cache: true, durability: 'memory' });
  const count = 50_000;
  for (let i = 0; i < count; i++) void db.put(`key:${i}`, { i });
  await db.flush();
  for (let round = 0; round < 2; round++) {
    let wrong = 0;
    for (let i = 0; i < count; i++) if ((db.get(`key:${i}`) as { i: number }).i !== i) wrong++;
    t.equal(wrong, 0);
  }
  const hot = db.get('key:1');
  t.equal(db.get('key:1'), hot);
  await db.close();
});

void t.test('another thread writes: what is read never goes back, and the last is seen', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { cache: true, durability: 'memory', shards: 1 });
  const writer = `
    import { parentPort, workerData } from 'node:worker_threads';
    import { attach } from ${JSON.stringify(new URL('../../src/index.js', import.meta.url).href)};
    const db = await attach(workerData);
    for (let n = 1; n <= 100_000; n++) {
      const promise = db.put('counter:' + (n % 4), { n, twice: n * 2 });
      if (n % 1000 === 0) await promise;
    }
    await db.flush();
    await db.close();
    parentPort.postMessage('done');
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(writer)}`), { workerData: db.handle });
  let isDone = false;
  void once(worker, 'message').then(() => (isDone = true));
  const last = [0, 0, 0, 0];
  let reads = 0;
  let changes = 0;
  while (!isDone) {
    for (let i = 0; i < 10_000; i++) {
      const value = db.get(`counter:${i % 4}`) as { n: number; twice: number } | undefined;
      if (value === undefined) continue;
      reads++;
      if (value.n < last[i % 4] || value.twice !== value.n * 2 || value.n % 4 !== i % 4)
        t.fail(`read ${JSON.stringify(value)} after ${last[i % 4]}`);
      if (value.n > last[i % 4]) changes++;
      last[i % 4] = value.n;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (let i = 0; i < 4; i++) t.same((db.get(`counter:${i}`) as { n: number }).n, i === 0 ? 100_000 : 100_000 - 4 + i);
  t.ok(changes > 10, `${reads} reads, ${changes} changes seen`);
  await db.close();
});

void t.test('a version that has come round proves nothing', async (t) => {
  const db = await open(tempFolder(t), { cache: true, shards: 1, durability: 'memory' });
  const words = new Int32Array(db.handle.control);
  const version = L.shardWord(0) + L.SHARD_VERSION;
  const rounds = L.shardWord(0) + L.SHARD_VERSION_ROUNDS;
  await db.put('a', { n: 1 });
  Atomics.store(words, version, -4);
  t.same(db.get('a'), { n: 1 });
  await db.put('a', { n: 2 });
  t.equal(Atomics.load(words, version), -2);
  t.equal(Atomics.load(words, rounds), 0);
  await db.put('b', 1);
  t.equal(Atomics.load(words, version), 0);
  t.equal(Atomics.load(words, rounds), 1);
  // As after 2^31 - 2 more changes.
  Atomics.store(words, version, -4);
  t.same(db.get('a'), { n: 2 });
  await db.close();
});

void t.test('what changes while a value is about to be kept is not taken for it when the version has come round', (t) => {
  const core = emptyCore(1);
  const version = L.shardWord(0) + L.SHARD_VERSION;
  put(core, 'a', 1);
  Atomics.store(core.words, version, -4);
  let reads = 0;
  const cache = new ValueCache(core, (key) => {
    encodeKey(core.scratch, key);
    const [shard] = core.shards;
    const value = shard.get();
    const { foundVersion, foundEntry, lsnLow, lsnHigh, expiresMs, valueLength } = shard;
    if (reads++ === 0) {
      // Another thread's.
      put(core, 'a', 2);
      put(core, 'b', 1);
      encodeKey(core.scratch, key);
      Object.assign(shard, { foundVersion, foundEntry, lsnLow, lsnHigh, expiresMs, valueLength });
    }
    return value;
  });
  t.equal(cache.get('a'), 1, 'as it was when it was read');
  t.equal(Atomics.load(core.words, L.shardWord(0) + L.SHARD_VERSION_ROUNDS), 1);
  // As after 2^31 - 2 more changes.
  Atomics.store(core.words, version, -4);
  t.equal(cache.get('a'), 2);
  t.end();
});

void t.test('options of open and attach', async (t) => {
  await t.rejects(open(tempFolder(t), { cache: 1 as unknown as boolean }), code('FV_OPTION'));
  const db = await open(tempFolder(t));
  await t.rejects(attach(db.handle, { cache: 'yes' as unknown as boolean }), code('FV_OPTION'));
  await t.rejects(attach(db.handle, { shards: 1 } as object), code('FV_OPTION'));
  await t.rejects(attach(db.handle, null as unknown as object), TypeError);
  for (const shards of [[], db.handle.shards.slice(1)]) {
    await t.rejects(
      attach({ ...db.handle, shards }),
      new TypeError(`attach takes db.handle as it is: of 16 shards this one has ${shards.length}`),
    );
  }
  const cached = await attach(db.handle, { cache: true });
  await db.put('a', { b: 1 });
  t.equal(cached.get('a'), cached.get('a'));
  t.not(db.get('a'), db.get('a'));
  await cached.close();
  await db.close();
});
