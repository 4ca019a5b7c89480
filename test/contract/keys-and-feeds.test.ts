/** Sublevels, ordered keys, bulk loading and clearing, and the change feed. */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { open, attach, type Change } from '../../src/index.js';
import { tempFolder } from '../support/temp.js';

const code = (expected: string): { code: string } => ({ code: expected });

/** Takes `count` changes of a feed. */
async function take(feed: AsyncIterable<Change>, count: number): Promise<Change[]> {
  const taken: Change[] = [];
  for await (const change of feed) {
    taken.push(change);
    if (taken.length === count) break;
  }
  return taken;
}

void t.test('ordered keys: every kind, in order of the values', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { keyEncoding: 'ordered', durability: 'memory' });
  const date = new Date(1e12);
  const keys: unknown[] = [
    null,
    false,
    true,
    -Infinity,
    -5.5,
    -1,
    0,
    0.5,
    1,
    2,
    10,
    1e12,
    2 ** 53,
    Infinity,
    '',
    'a',
    'a\0',
    'ab',
    'é',
    ['a', 1],
    ['a', 2, 'x'],
    ['b', null],
    [1, 'z'],
    [-1, true],
    ['a', 10],
  ];
  for (const key of keys) await db.put(key as never, { key });
  for (const key of keys) t.same(db.get(key as never), { key }, JSON.stringify(key));
  t.equal(db.size, keys.length);
  const found = [...db.keys()] as unknown[];
  t.same(new Set(found.map((key) => JSON.stringify(key))), new Set(keys.map((key) => JSON.stringify(key))), 'all come back as they were');
  const numbers = found.filter((key) => typeof key === 'number');
  t.same(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
  t.same(
    [...db.keys({ gte: -1, lte: 2 })].filter((key) => !Array.isArray(key)),
    [-1, 0, 0.5, 1, 2],
  );
  t.same(
    [...db.keys({ prefix: ['a'] as never })],
    [
      ['a', 1],
      ['a', 2, 'x'],
      ['a', 10],
    ],
  );
  t.same([...db.keys({ prefix: ['a', 2] as never })], [['a', 2, 'x']]);
  t.same(db.get(date), { key: 1e12 }, 'a date is its milliseconds');
  for (const bad of [
    undefined,
    Number.NaN,
    5n,
    {},
    [],
    ['one'],
    [['nested', 1], 2],
    new Uint8Array([1]),
    Symbol('s'),
    new Date(Number.NaN),
  ])
    t.throws(() => db.get(bad as never), code('FV_KEY'), typeof bad);
  await db.transaction((tx) => tx.put(['n', 1] as never, [...tx.keys({ gt: 'a', lt: 'b' })].length));
  t.equal(db.get(['n', 1] as never), 5);
  await db.close();
  db = await open(folder, { keyEncoding: 'ordered' });
  t.same(db.get(['a', 2, 'x'] as never), { key: ['a', 2, 'x'] });
  await db.close();
  await t.rejects(open(folder, { keyEncoding: 'binary' as never }), { code: 'FV_OPTION', message: /keyEncoding is "binary"/ });
});

void t.test('sublevels are apart from each other and from the store', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const users = db.sublevel('users');
  const numbers = db.sublevel('numbers', { keyEncoding: 'ordered' });
  const inner = users.sublevel('inner');
  await db.put('ada', 'outside');
  await users.put('ada', { name: 'Ada' });
  await users.put(Buffer.from([0, 255]), 'bytes', { ttl: 50_000 });
  await inner.put('ada', 'inside');
  for (const n of [10, -5, 2.5]) await numbers.put(n, n);
  await users.batch([
    { type: 'put', key: 'grace', value: 1 },
    { type: 'del', key: 'nobody' },
  ]);
  t.same(users.get('ada'), { name: 'Ada' });
  t.equal(db.get('ada'), 'outside');
  t.equal(inner.get('ada'), 'inside');
  t.same(
    [...numbers.entries()],
    [
      [-5, -5],
      [2.5, 2.5],
      [10, 10],
    ],
  );
  t.same([...numbers.keys({ gt: 0, reverse: true })], [10, 2.5]);
  t.same([...users.keys({ gte: 'a' })], ['ada', 'grace']);
  t.same([...users.keys({ lt: 'A' })][0], new Uint8Array([0, 255]));
  t.equal(users.count({ prefix: 'gr' }), 1);
  t.ok(users.ttl(Buffer.from([0, 255])) > 0);
  t.equal(await users.increment('grace', 4), 5);
  t.equal(await users.update('grace', (n) => (n as number) * 2), 10);
  t.same(users.getMany(['grace', 'none']), [10, undefined]);
  t.equal(users.getEntry('grace')?.value, 10);
  t.equal(await users.expire('grace', 1000), true);
  t.equal(await users.persist('grace'), true);
  const snapshot = db.snapshot();
  await db.transaction((tx) => {
    tx.put(users.keyOf('moved'), tx.get(numbers.keyOf(10)));
    tx.del(numbers.keyOf(10));
  });
  t.equal(users.get('moved'), 10);
  t.equal(numbers.has(10), false);
  t.same([...numbers.keys({ snapshot })], [-5, 2.5, 10]);
  snapshot.close();
  const found: unknown[] = [];
  for await (const value of numbers.values()) found.push(value);
  t.same(found, [-5, 2.5]);
  await users.clear();
  t.equal(users.count(), 0);
  t.equal(inner.count(), 0, 'a sublevel lies within');
  t.equal(numbers.count(), 2);
  await users.del('ada');
  for (const bad of ['', 'a!b', 'a\0', 'x'.repeat(256), '\ud800']) t.throws(() => db.sublevel(bad), code('FV_OPTION'));
  t.throws(() => db.sublevel(5 as never), TypeError);
  t.throws(() => db.sublevel('a', { encoding: 1 } as never), code('FV_OPTION'));
  t.throws(() => users.get(''), code('FV_KEY'));
  t.throws(() => users.get(5), TypeError);
  await t.rejects(users.put('\ud800', 1), code('FV_KEY'));
  await db.close();
});

void t.test('load and clear', async (t) => {
  const db = await open(tempFolder(t));
  const progress: number[] = [];
  const pairs = Array.from({ length: 10_000 }, (_, i) => [`key${String(i).padStart(6, '0')}`, { i }] as const);
  t.equal(await db.load(pairs, { onProgress: ({ entries }) => progress.push(entries) }), 10_000);
  t.equal(progress.at(-1), 10_000);
  t.ok(progress.length > 10);
  t.equal(db.size, 10_000);
  t.equal(db.stats().log.durableLsn, db.stats().log.lastLsn);
  async function* more(): AsyncGenerator<readonly [string, unknown]> {
    for (let i = 0; i < 1000; i++) {
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
      yield [`more${i}`, 'x'.repeat(i)];
    }
  }
  t.equal(await db.load(more()), 1000);
  t.equal(await db.load([]), 0);
  t.ok((await db.clear({ gte: 'key005000' })) > 0);
  t.equal(db.count(), 5000);
  t.equal(await db.clear({ prefix: 'nothing' }), 0);
  await db.clear({ limit: 10, reverse: true });
  t.same([...db.keys({ reverse: true, limit: 1 })], ['key004989']);
  const abort = new AbortController();
  await t.rejects(
    db.load(pairs, {
      signal: abort.signal,
      onProgress: ({ entries }) => {
        if (entries > 2000) abort.abort();
      },
    }),
    { code: 'FV_ABORTED', message: /after \d+ entries/ },
  );
  await t.rejects(db.load([['a', undefined]]), code('FV_VALUE'));
  await t.rejects(db.load([5] as never), TypeError);
  await t.rejects(db.load(5 as never), TypeError);
  await t.rejects(db.load([], { speed: 1 } as never), code('FV_OPTION'));
  await db.clear();
  t.equal(db.size, 0);
  await db.close();
  await t.rejects(db.clear(), code('FV_CLOSED'));
  await t.rejects(db.load([]), code('FV_CLOSED'));
});

void t.test('the change feed: the past from the log, then what comes, in order and once', async (t) => {
  const db = await open(tempFolder(t), { walSegmentBytes: 65_536, snapshotIntervalSeconds: 0 });
  const expected: [number, string, string, unknown][] = [];
  const note = (lsn: number, type: string, key: string, value?: unknown): number => expected.push([lsn, type, key, value]);
  for (let i = 0; i < 300; i++) {
    const value = i % 7 === 0 ? { i, pad: 'x'.repeat(i) } : i % 11 === 0 ? 'y'.repeat(5000) : i;
    const promise = db.put(`key${i % 50}`, value);
    note(db.stats().log.lastLsn, 'put', `key${i % 50}`, value);
    if (i % 20 === 0) await promise;
  }
  await db.batch([
    { type: 'put', key: 'a', value: 1 },
    { type: 'del', key: 'key0' },
  ]);
  note(db.stats().log.lastLsn, 'put', 'a', 1);
  note(db.stats().log.lastLsn, 'del', 'key0');
  const tuple = ({ lsn, type, key, value }: Change): unknown[] => [lsn, type, key, value];
  const feed = db.changes({ since: 0 });
  const past = await take({ [Symbol.asyncIterator]: () => ({ next: () => feed.next() }) }, expected.length);
  t.same(past.map(tuple), expected);
  const coming = take(feed, 150);
  const later: unknown[][] = [];
  for (let i = 0; i < 150; i++) {
    const lsn = await db.put(`live${i}`, i, i === 5 ? { ttl: 100_000 } : {});
    later.push([lsn, 'put', `live${i}`, i]);
  }
  const came = await coming;
  t.same(came.map(tuple), later);
  t.ok(Number(came[5].expiresAt) > Date.now());
  const middle = expected[100][0];
  t.same((await take(db.changes({ since: middle }), 5)).map(tuple), expected.slice(101, 106));
  // From now on.
  const next = take(db.changes(), 1);
  await new Promise((resolve) => setImmediate(resolve));
  const lsn = await db.del('a');
  t.same(await next, [{ lsn, type: 'del', key: 'a' }]);
  await db.close();
});

void t.test('a feed ends with its signal, with the store, and where the log is gone', async (t) => {
  const db = await open(tempFolder(t), { walSegmentBytes: 65_536, snapshotIntervalSeconds: 0 });
  const abort = new AbortController();
  const aborted = take(db.changes({ signal: abort.signal }), 1);
  setTimeout(() => abort.abort(), 20);
  await t.rejects(aborted, code('FV_ABORTED'));
  const slow = db.changes({ since: 0 });
  for (let i = 0; i < 100; i++) await db.put(`key${i}`, 'x'.repeat(2000));
  t.equal((await slow.next()).value.key, 'key0');
  // Leaves no log before it.
  await db.checkpoint();
  await db.put('after', 1);
  await db.checkpoint();
  await db.put('last', 1);
  const old = take(db.changes({ since: 0 }), 1).then(
    () => undefined,
    (error: unknown) => error as { code: string; lsn: number },
  );
  const error = await old;
  t.match(error, { code: 'FV_ABORTED' });
  t.same((await take(db.changes({ since: Number(error?.lsn) - 1 }), 1))[0].lsn, error?.lsn, 'the oldest that it names is there');
  // What was read already comes, then the feed says that it was too slow.
  await t.rejects(take(slow, 1000), code('FV_ABORTED'));
  t.throws(() => db.changes({ since: -1 }), code('FV_OPTION'));
  t.throws(() => db.changes({ from: 1 } as never), code('FV_OPTION'));
  t.throws(() => db.changes({ signal: {} as never }), TypeError);
  const attached = await attach(db.handle);
  t.throws(() => attached.changes(), code('FV_OPTION'));
  await attached.close();
  const waiting = take(db.changes(), 1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const closed = t.rejects(waiting, code('FV_CLOSED'));
  await db.close();
  await closed;
});

void t.test('a thread that ends with a snapshot open gives it back', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 2 });
  for (let i = 0; i < 100; i++) await db.put(`key${i}`, i);
  const index = new URL('../../src/index.js', import.meta.url).href;
  const worker = new Worker(
    `const { workerData, parentPort } = require('node:worker_threads');
     import(${JSON.stringify(index)}).then(async ({ attach }) => {
       const db = await attach(workerData);
       globalThis.kept = db.snapshot();
       parentPort.postMessage(kept.get('key5'));
       setInterval(() => undefined, 1000);
     });`,
    { eval: true, workerData: db.handle },
  );
  t.equal(await new Promise((resolve) => worker.once('message', resolve)), 5);
  t.equal(db.stats().snapshots.open, 1);
  for (let i = 0; i < 100; i++) await db.put(`key${i}`, 'new');
  t.equal(db.stats().snapshots.versions, 100);
  await worker.terminate();
  for (let i = 0; i < 300 && db.stats().snapshots.versions > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  t.equal(db.stats().snapshots.open, 0);
  t.equal(db.stats().snapshots.versions, 0, 'and what was kept for it is freed');
  await db.close();
});
