/** What reviews of ranges, snapshots, transactions, expiry and feeds have found, by name. */

import t from 'tap';
import { getEventListeners } from 'node:events';
import { Worker } from 'node:worker_threads';
import { open, type Change, type FlashVector, type Snapshot } from '../../src/index.js';
import { tempFolder } from '../support/temp.js';

const code = (expected: string): { code: string } => ({ code: expected });
const key = (i: number): string => `k${String(i).padStart(6, '0')}`;

/** A thread that runs `body`, an async function of the attached store as text, until the returned function is called. */
function inThread(db: FlashVector, body: string): () => Promise<void> {
  const index = new URL('../../src/index.js', import.meta.url).href;
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads');
     import(${JSON.stringify(index)}).then(async ({ attach }) => {
       const db = await attach(workerData.handle);
       const going = () => Atomics.load(workerData.stop, 0) === 0;
       const turn = () => new Promise((resolve) => setImmediate(resolve));
       await (${body})(db, going, turn);
       await db.close();
     });`,
    { eval: true, workerData: { handle: db.handle, stop } },
  );
  const ended = new Promise<void>((resolve, reject) => worker.once('exit', () => resolve()).once('error', reject));
  return () => {
    Atomics.store(stop, 0, 1);
    return ended;
  };
}

void t.test('a transaction notices that another key of the same record has taken the place of one that it read', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  await db.batch([
    { type: 'put', key: 'q:a', value: 1 },
    { type: 'put', key: 'q:b', value: 2 },
  ]);
  let runs = 0;
  await db.transaction(async (tx) => {
    runs++;
    const [[first]] = [...tx.entries({ prefix: 'q:', limit: 1 })];
    if (runs === 1) await db.del('q:a');
    tx.put('claimed', first);
  });
  t.equal(runs, 2);
  t.equal(db.get('claimed'), 'q:b');
  await db.close();
});

void t.test('a scan beside writers never decodes what is no value any more', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1 });
  const churn = `async (db, going, turn) => {
    for (let i = 0; going(); i++) {
      const name = 'k' + ((i * 7919) % 3000);
      void db.put(name, i % 3 === 0 ? { id: i, list: ['x'.repeat(i % 200)] } : 'y'.repeat(i % 700)).catch(() => undefined);
      if (i % 2 === 0) void db.del('k' + ((i * 104729) % 3000)).catch(() => undefined);
      if (i % 64 === 0) await turn();
    }
  }`;
  const stops = [inThread(db, churn), inThread(db, churn)];
  let entries = 0;
  const until = performance.now() + 4000;
  while (performance.now() < until) {
    let before = '';
    for (const [name, value] of db.entries()) {
      if (String(name) <= before) t.fail(`${String(name)} behind ${before}`);
      before = String(name);
      const isRight = typeof value === 'string' ? /^y*$/.test(value) : typeof (value as { id: number }).id === 'number';
      if (!isRight) t.fail(`${before} has a value that nobody wrote`);
      entries++;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const stop of stops) await stop();
  t.ok(entries > 1000, `${entries} entries read`);
  await db.close();
});

void t.test('clear leaves what is written after it began', { timeout: 60_000 }, async (t) => {
  // Without checkpoints: all of the log is read at the end, and on a slow machine there would be one by then.
  const db = await open(tempFolder(t), {
    durability: 'memory',
    shards: 2,
    snapshotIntervalSeconds: 0,
    checkpointLogBytes: Number.MAX_SAFE_INTEGER,
  });
  const stop = inThread(
    db,
    `async (db, going, turn) => {
      for (let i = 0; going(); i++) {
        await db.put('r:' + (i % 500), i);
        if (i % 16 === 0) await turn();
      }
    }`,
  );
  const lsns = new Map<string, number>();
  const begins: { before: number; after: number }[] = [];
  while (!db.has('r:100')) await new Promise((resolve) => setTimeout(resolve, 5));
  for (let round = 0; round < 60; round++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    const before = db.stats().log.lastLsn;
    const cleared = db.clear({ prefix: 'r:' });
    // It began somewhere between the two.
    begins.push({ before, after: db.stats().log.lastLsn });
    await cleared;
  }
  await stop();
  await db.flush();
  const end = db.stats().log.durableLsn;
  let wrong = 0;
  for await (const { lsn, type, key: name } of db.changes({ since: 0 })) {
    if (type === 'put') lsns.set(String(name), lsn);
    else {
      // The clear whose removal this is: the last one that had begun.
      const begun = begins.findLast(({ before }) => before < lsn);
      if ((lsns.get(String(name)) ?? 0) > (begun?.after ?? 0)) wrong++;
    }
    if (lsn >= end) break;
  }
  t.equal(wrong, 0, 'no put that came after its beginning was removed');
  await db.close();
});

void t.test('an aborted feed yields nothing more; listeners go; a feed that waits can be left', async (t) => {
  const db = await open(tempFolder(t));
  for (let i = 0; i < 5; i++) {
    for (let j = 0; j < 10; j++) void db.put(`key${i}${j}`, j);
    await db.flush();
  }
  const abort = new AbortController();
  const seen: Change[] = [];
  await t.rejects(async () => {
    for await (const change of db.changes({ since: 0, signal: abort.signal })) {
      seen.push(change);
      if (seen.length === 3) abort.abort();
    }
  }, code('FV_ABORTED'));
  t.equal(seen.length, 3);
  const idle = new AbortController();
  const feed = db.changes({ signal: idle.signal });
  for (let i = 0; i < 12; i++) {
    const next = feed.next();
    await new Promise((resolve) => setTimeout(resolve, 2));
    await db.put('tick', i);
    await next;
  }
  t.ok(getEventListeners(idle.signal, 'abort').length <= 1);
  const waiting = feed.next();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await feed.return?.();
  t.equal((await waiting).done, true);
  await db.close();
});

void t.test('the feed shows a removed key as it was put', async (t) => {
  const db = await open(tempFolder(t));
  const binary = Uint8Array.from([255, 254, 1]);
  await db.put(binary, 1);
  await db.clear();
  await db.put(binary, 2, { ttl: 1 });
  for (let i = 0; i < 300 && db.size > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  await db.flush();
  const found: unknown[] = [];
  for await (const { type, key: name } of db.changes({ since: 0 })) if (found.push([type, name]) === 4) break;
  t.same(found, [
    ['put', binary],
    ['del', binary],
    ['put', binary],
    ['del', binary],
  ]);
  await db.close();
});

void t.test('keys of ordered sublevels are bytes to the store, and come back as what they are', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const numbers = db.sublevel('n', { keyEncoding: 'ordered' });
  for (const n of [1, -5.5, 1e12, 2, 3]) await numbers.put(n, n);
  const outside = [...db.keys()];
  t.ok(outside.every((name) => name instanceof Uint8Array));
  await db.transaction((tx) => {
    for (const name of tx.keys()) tx.del(name);
  });
  t.equal(db.size, 0);
  await db.close();
  const ordered = await open(tempFolder(t), { durability: 'memory', keyEncoding: 'ordered' });
  const users = ordered.sublevel('u');
  await users.put('ada', 1);
  await users.put(Uint8Array.from([0, 200]), 2);
  await ordered.put(5 as never, 3);
  t.same([...users.keys()], [Uint8Array.from([0, 200]), 'ada']);
  t.equal([...ordered.keys()].filter((name) => name instanceof Uint8Array).length, 2);
  await ordered.close();
});

void t.test('a range that is refused holds no snapshot', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', ordered: false });
  t.throws(() => db.entries({ gte: 'a' }), code('FV_OPTION'));
  t.throws(() => db.sublevel('s').entries(), code('FV_OPTION'));
  t.equal(db.stats().snapshots.open, 0);
  await db.close();
});

void t.test('ordered keys that would not come back, or are too long, are refused', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', keyEncoding: 'ordered' });
  await t.rejects(db.put([1, 'x', null] as never, 1), code('FV_KEY'));
  // eslint-disable-next-line no-sparse-arrays
  await t.rejects(db.put([, 1] as never, 1), code('FV_KEY'));
  await db.put('l'.repeat(65_535), 'long');
  t.equal(db.get('l'.repeat(65_535)), 'long');
  t.throws(() => db.get('l'.repeat(65_536)), code('FV_KEY'));
  t.throws(() => db.get('l'.repeat(200_000)), code('FV_KEY'));
  t.throws(() => db.keys({ prefix: '' }), code('FV_KEY'));
  await db.close();
});

void t.test(
  'entries that a snapshot does not see are passed once, however the leaf changes; for await gives turns meanwhile',
  async (t) => {
    const db = await open(tempFolder(t), { durability: 'memory' });
    const snapshot = db.snapshot();
    for (let i = 0; i < 30_000; i++) void db.put(key(i), i);
    await db.flush();
    let turns = 0;
    let isDone = false;
    const turn = (): void => {
      if (isDone) return;
      // Changes the end of the range at every turn.
      void db.put(`k${turns}`, 1);
      turns++;
      setImmediate(turn);
    };
    setImmediate(turn);
    for await (const name of snapshot.keys({ prefix: 'k' })) t.fail(`${String(name)} is younger than the snapshot`);
    isDone = true;
    t.ok(turns > 5, `${turns} turns`);
    snapshot.close();
    await db.close();
  },
);

void t.test('an idle process goes on to free versions and to remove what has expired', { timeout: 60_000 }, async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (let i = 0; i < 20_000; i++) void db.put(key(i), i, { ttl: 30 });
  for (let i = 0; i < 20_000; i++) void db.put(`v${i}`, i);
  const snapshot = db.snapshot();
  for (let i = 0; i < 20_000; i++) void db.put(`v${i}`, 'new');
  snapshot.close();
  // Nothing but this timer.
  for (let i = 0; i < 20 && (db.size > 20_000 || db.stats().snapshots.versions > 0); i++)
    await new Promise((resolve) => setTimeout(resolve, 500));
  t.equal(db.size, 20_000);
  t.equal(db.stats().snapshots.versions, 0);
  await db.close();
});

void t.test('bad options of ranges, sublevels and transactions are refused', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const other = await open(tempFolder(t), { durability: 'memory' });
  await db.put('a', 1);
  await t.rejects(
    db.transaction((tx) => tx.put('a', 2, { ifAbsent: true } as never)),
    code('FV_OPTION'),
  );
  await t.rejects(
    db.transaction((tx) => tx.put('a', 2, 5 as never)),
    TypeError,
  );
  const sub = db.sublevel('s');
  await sub.put('x', 1);
  await t.rejects(sub.clear([] as never), TypeError);
  await t.rejects(sub.clear(new Uint8Array(0) as never), TypeError);
  t.equal(sub.count(), 1);
  const foreign = other.snapshot();
  for (const snapshot of ['foo', foreign]) {
    t.throws(() => sub.entries({ snapshot: snapshot as Snapshot }), TypeError);
    t.throws(() => db.entries({ snapshot: snapshot as Snapshot }), TypeError);
    t.throws(() => db.count({ snapshot: snapshot as Snapshot }), TypeError);
  }
  await t.rejects(db.clear({ snapshot: db.snapshot() } as never), code('FV_OPTION'));
  t.throws(() => db.snapshot().keys({ snapshot: 1 } as never), code('FV_OPTION'));
  await other.close();
  await db.close();
});

void t.test('calls of next that overlap come back in order; a load notices its signal while it waits', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (let i = 0; i < 150; i++) void db.put(key(i), i);
  const iterator = db.keys()[Symbol.asyncIterator]();
  const all = await Promise.all(Array.from({ length: 150 }, () => iterator.next()));
  t.same(
    all.map(({ value }) => value),
    Array.from({ length: 150 }, (_, i) => key(i)),
  );
  await iterator.return?.();
  const abort = new AbortController();
  const never: AsyncIterable<readonly [string, unknown]> = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) };
  setTimeout(() => abort.abort(), 20);
  await t.rejects(db.load(never, { signal: abort.signal }), code('FV_ABORTED'));
  await db.close();
});
