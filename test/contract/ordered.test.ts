/** Ranges, snapshots, transactions and expiry, as a caller meets them. */

import t from 'tap';
import { open, type FlashVector, type Range } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const code = (expected: string): { code: string } => ({ code: expected });

/** Sets the store's clock forward, or back. */
function moveClock(db: FlashVector, ms: number): void {
  new Float64Array(db.handle.control, L.CONTROL_CLOCK_WORD * 4, 1)[0] += ms;
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
}

function shuffled(list: readonly number[], t: Tap.Test): number[] {
  const random = randomFrom(testSeed(t));
  return [...list]
    .map((item) => ({ item, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

const key = (i: number): string => `k${String(i).padStart(5, '0')}`;

void t.test('ranges: every bound, both ways, sync and async', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const all = Array.from({ length: 1000 }, (_, i) => i * 2);
  for (const i of shuffled(all, t)) void db.put(key(i), i);
  const check = async (range: Range, expected: number[]): Promise<void> => {
    t.same([...db.values(range)], expected, JSON.stringify(range));
    t.same([...db.keys(range)], expected.map(key));
    const found: number[] = [];
    for await (const [, value] of db.entries(range)) found.push(value as number);
    t.same(found, expected);
    t.equal(db.count(range), expected.length);
  };
  await check({}, all);
  await check({ reverse: true }, [...all].reverse());
  for (const [from, to] of [
    [100, 200],
    [101, 199],
    [0, 1998],
    [500, 500],
    [600, 500],
  ]) {
    for (const reverse of [false, true]) {
      const order = (list: number[]): number[] => (reverse ? list.reverse() : list);
      const pick = (inside: (i: number) => boolean): number[] => order(all.filter(inside));
      await check(
        { gte: key(from), lt: key(to), reverse },
        pick((i) => i >= from && i < to),
      );
      await check(
        { gt: key(from), lte: key(to), reverse },
        pick((i) => i > from && i <= to),
      );
      await check(
        { gt: key(from), gte: key(to), reverse },
        pick((i) => i > from && i >= to),
      );
    }
  }
  await check({ prefix: 'k0010' }, [100, 102, 104, 106, 108]);
  await check({ prefix: 'k0010', reverse: true, limit: 2 }, [108, 106]);
  await check({ prefix: 'x' }, []);
  await check({ limit: 3 }, [0, 2, 4]);
  await check({ limit: 0 }, []);
  await check({ lt: 'a' }, []);
  await check({ gt: 'z' }, []);
  await db.put(Buffer.from([0xff, 0xff, 1]), 'high');
  t.same([...db.values({ prefix: Buffer.from([0xff, 0xff]) })], ['high']);
  await db.close();
});

void t.test('order is that of bytes; a string and its bytes are one key', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const keys = ['a', 'a\0', 'aa', 'b', 'é', '🐎', 'Z', '~'];
  for (const k of keys) await db.put(k, k);
  const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  t.same([...db.keys()], sorted);
  t.same([...db.keys({ gte: Buffer.from('é') })], ['é', '🐎']);
  await db.close();
});

void t.test('what is no range is refused by name', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  t.throws(() => db.entries({ from: 'a' } as never), { code: 'FV_OPTION', message: /no "from"/ });
  t.throws(() => db.entries({ limit: -1 }), { code: 'FV_OPTION', message: /limit is -1/ });
  t.throws(() => db.entries({ reverse: 1 as never }), { code: 'FV_OPTION', message: /reverse is 1/ });
  t.throws(() => db.entries('a' as never), TypeError);
  t.throws(() => db.keys({ gt: 5 as never }), TypeError);
  t.throws(() => db.keys({ gt: '' }), code('FV_KEY'));
  t.throws(() => db.keys({ snapshot: {} as never }), TypeError);
  await db.close();
  const plain = await open(tempFolder(t), { ordered: false, durability: 'memory' });
  await plain.put('a', 1);
  t.same([...plain.entries()], [['a', 1]]);
  t.throws(() => [...plain.entries({ gt: 'a' })], code('FV_OPTION'));
  t.equal(plain.snapshot().get('a'), 1);
  await plain.close();
});

void t.test('an iterator reads of one moment, and lets go of it at its end or when it is left', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4 });
  for (let i = 0; i < 500; i++) void db.put(key(i), { i, of: 'then' });
  const iterator = db.entries()[Symbol.iterator]();
  t.same(iterator.next().value, [key(0), { i: 0, of: 'then' }]);
  for (let i = 0; i < 500; i++)
    void (i % 3 === 0 ? db.del(key(i)) : db.put(key(i), i % 3 === 1 ? 'new' : { i, of: 'now', longer: 'x'.repeat(300) }));
  for (let i = 500; i < 600; i++) void db.put(key(i), 'later');
  t.equal(db.stats().snapshots.open, 1);
  t.ok(db.stats().snapshots.versionBytes > 0);
  const rest = [...(iterator as Iterable<[string, unknown]>)];
  t.equal(rest.length, 499);
  t.ok(rest.every(([k, v], i) => k === key(i + 1) && (v as { of: string }).of === 'then'));
  t.equal(db.stats().snapshots.open, 0);
  for (const first of db.keys()) {
    t.equal(first, key(1));
    break;
  }
  for await (const first of db.keys()) {
    t.equal(first, key(1));
    break;
  }
  t.throws(() => {
    for (const first of db.keys()) throw new Error(`left at ${String(first)}`);
  }, /left/);
  t.equal(db.stats().snapshots.open, 0);
  await until(() => db.stats().snapshots.versions === 0);
  t.equal(db.stats().snapshots.versionBytes, 0, 'what was kept is freed');
  t.equal(db.size, 433);
  t.equal(db.count(), 433);
  await db.close();
});

void t.test('for await gives the event loop a turn', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (let i = 0; i < 1000; i++) void db.put(key(i), i);
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  const immediate = (): void => {
    turns++;
    if (turns < 1e6) setImmediate(immediate).unref();
  };
  setImmediate(immediate).unref();
  let seen = 0;
  for await (const found of db.keys()) if (found !== undefined) seen++;
  t.equal(seen, 1000);
  clearInterval(timer);
  t.ok(turns >= 5, `${turns} turns`);
  turns = 1e6;
  await db.close();
});

void t.test('snapshots see their moment: values, absence, deletion, ranges', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 2 });
  await db.put('a', 1);
  await db.put('b', { two: 2 });
  const first = db.snapshot();
  await db.put('a', 'changed');
  await db.del('b');
  await db.put('c', 3);
  const second = db.snapshot();
  await db.batch([
    { type: 'del', key: 'a' },
    { type: 'put', key: 'b', value: 'again' },
    { type: 'del', key: 'c' },
    { type: 'put', key: 'c', value: 'twice' },
  ]);
  t.equal(first.get('a'), 1);
  t.same(first.getMany(['a', 'b', 'c']), [1, { two: 2 }, undefined]);
  t.equal(first.has('c'), false);
  t.same([...first.keys()], ['a', 'b']);
  t.same(first.getEntry('a'), { value: 1, lsn: 1 });
  t.same(
    [...second.entries()],
    [
      ['a', 'changed'],
      ['c', 3],
    ],
  );
  t.equal(second.has('b'), false);
  t.equal(second.count(), 2);
  t.same([...db.values({ snapshot: first })], [1, { two: 2 }]);
  t.equal(db.count({ snapshot: second, gt: 'a' }), 1);
  t.same(
    [...db.entries()],
    [
      ['b', 'again'],
      ['c', 'twice'],
    ],
  );
  t.ok(second.lsn > first.lsn);
  t.equal(db.stats().snapshots.open, 2);
  first.close();
  first.close();
  t.throws(() => first.get('a'), code('FV_CLOSED'));
  t.throws(() => first.keys(), code('FV_CLOSED'));
  t.equal(second.get('a'), 'changed');
  second[Symbol.dispose]();
  await until(() => db.stats().snapshots.versions === 0);
  t.equal(db.stats().snapshots.versionBytes, 0);
  t.same([...db.keys()], ['b', 'c']);
  const left = db.snapshot();
  await db.close();
  t.throws(() => left.get('b'), code('FV_CLOSED'));
});

let phantoms = 0;

void t.test('transactions: own writes, ranges, conflicts, retries, errors', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (let i = 0; i < 10; i++) await db.put(key(i), i);
  const sum = await db.transaction(async (tx) => {
    tx.put(key(3), 30);
    tx.del(key(4));
    tx.put('new', { fresh: true });
    t.equal(tx.get(key(3)), 30);
    t.equal(tx.get(key(4)), undefined);
    t.equal(tx.has(key(4)), false);
    t.same(tx.get('new'), { fresh: true });
    t.same([...tx.keys({ gte: key(2), lte: key(5) })], [key(2), key(3), key(5)]);
    t.same(
      [...tx.entries({ reverse: true, limit: 2 })],
      [
        ['new', { fresh: true }],
        [key(9), 9],
      ],
    );
    t.equal(tx.count(), 10);
    await Promise.resolve();
    return [...tx.values({ lt: 'l' })].reduce((total: number, value) => total + (value as number), 0);
  });
  t.equal(sum, 45 - 4 + 27);
  t.same(db.get('new'), { fresh: true });
  t.equal(db.has(key(4)), false);

  let runs = 0;
  const retried = await db.transaction(async (tx) => {
    const before = tx.get('counter') as number | undefined;
    if (runs++ === 0) await db.put('counter', 10);
    tx.put('counter', (before ?? 0) + 1);
    return runs;
  });
  t.equal(retried, 2);
  t.equal(db.get('counter'), 11);

  await t.rejects(
    db.transaction(
      async (tx) => {
        t.ok([...tx.keys({ prefix: 'phantom' })].length < 3);
        await db.put(`phantom${phantoms++}`, 1);
        tx.put('never', 1);
      },
      { maxRetries: 2 },
    ),
    { code: 'FV_CONFLICT', message: /3 times/ },
  );
  t.equal(db.has('never'), false);
  t.equal(db.count({ prefix: 'phantom' }), 3);

  // A range that was left early counts as far as it was read.
  await db.transaction(
    async (tx) => {
      for (const first of tx.keys({ prefix: 'k' })) {
        t.equal(first, key(0));
        break;
      }
      await db.put('k99999', 1);
      tx.put('early', 1);
    },
    { maxRetries: 0 },
  );
  t.equal(db.get('early'), 1);

  await t.rejects(
    db.transaction((tx) => {
      tx.put('trace', 1);
      throw new Error('thrown');
    }),
    /thrown/,
  );
  t.equal(db.has('trace'), false);
  let kept: { get(key: string): unknown } | undefined;
  await db.transaction((tx) => {
    kept = tx;
  });
  t.throws(() => kept?.get('a'), code('FV_CLOSED'));
  await t.rejects(db.transaction(5 as never), TypeError);
  await t.rejects(
    db.transaction(() => 1, { maxRetries: -1 }),
    code('FV_OPTION'),
  );
  await t.rejects(
    db.transaction((tx) => tx.put('a', undefined)),
    code('FV_VALUE'),
  );
  const all = await Promise.all(Array.from({ length: 50 }, () => db.transaction((tx) => tx.put('n', ((tx.get('n') as number) ?? 0) + 1))));
  t.equal(all.length, 50);
  t.equal(db.get('n'), 50);
  t.equal(db.stats().snapshots.open, 0);
  await db.close();
  await t.rejects(
    db.transaction(() => 1),
    code('FV_CLOSED'),
  );
});

void t.test('expiry: invisible from the millisecond on, removed through the log, as in Redis', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { durability: 'memory', shards: 2 });
  await db.put('short', { a: 1 }, { ttl: 1000 });
  await db.put('long', 'x'.repeat(100_000), { ttl: 100_000 });
  await db.put('limit', Buffer.alloc(65_536, 7), { ttl: 100_000 });
  await db.put('stays', 5);
  await db.batch([{ type: 'put', key: 'batched', value: 1, ttl: 1000 }]);
  t.same(db.get('short'), { a: 1 });
  t.equal(db.ttl('stays'), -1);
  t.equal(db.ttl('nothing'), -2);
  t.ok(db.ttl('short') > 900 && db.ttl('short') <= 1000);
  t.ok(Number(db.getEntry('short')?.expiresAt) > Date.now());
  const snapshot = db.snapshot();
  moveClock(db, 1001);
  t.equal(db.get('short'), undefined);
  t.equal(db.has('short'), false);
  t.equal(db.getEntry('short'), undefined);
  t.equal(db.ttl('short'), -2);
  t.same([...db.keys()], ['limit', 'long', 'stays']);
  t.same(snapshot.get('short'), { a: 1 }, 'a snapshot has its own clock');
  t.same([...snapshot.keys()], ['batched', 'limit', 'long', 'short', 'stays']);
  await until(() => db.size === 3);
  t.equal(db.size, 3);
  t.same(snapshot.get('short'), { a: 1 }, 'also when it has been removed');
  snapshot.close();
  t.equal(db.get('long'), 'x'.repeat(100_000));
  t.same(db.get('limit'), Buffer.alloc(65_536, 7));
  t.equal(await db.expire('stays', 500), true);
  t.equal(await db.expire('nothing', 500), false);
  t.equal(await db.persist('long'), true);
  t.equal(db.ttl('long'), -1);
  t.equal(db.get('long'), 'x'.repeat(100_000));
  t.equal(await db.increment('stays'), 6);
  t.ok(db.ttl('stays') > 0, 'increment keeps it');
  await db.update('stays', (n) => (n as number) + 1);
  t.ok(db.ttl('stays') > 0, 'so does update');
  await db.put('again', 1, { ttl: 10 });
  moveClock(db, 600);
  await db.put('again', 2, { ifAbsent: true });
  t.equal(db.get('again'), 2, 'an expired key counts as absent');
  await db.put('gone', 1, { ttl: 100 });
  await db.checkpoint();
  moveClock(db, 200);
  await until(() => !db.has('stays') && db.size === 3);
  t.same([...db.keys()], ['again', 'limit', 'long']);
  await t.rejects(db.put('a', 1, { ttl: 0 }), { code: 'FV_OPTION', message: /ttl is 0/ });
  await t.rejects(db.expire('a', -1), code('FV_OPTION'));
  await db.close();
  db = await open(folder);
  t.same([...db.keys()], ['again', 'limit', 'long']);
  t.ok(db.ttl('limit') > 0);
  await db.close();
});

void t.test('attached threads and reopening have the same order', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { durability: 'memory', shards: 4 });
  const random = randomFrom(testSeed(t));
  const model = new Map<string, number>();
  for (let i = 0; i < 3000; i++) {
    const k = Math.floor(random() * 1e6).toString(36);
    model.set(k, i);
    void db.put(k, i);
  }
  for (const k of [...model.keys()].slice(0, 500)) {
    model.delete(k);
    void db.del(k);
  }
  const expected = [...model].sort(([a], [b]) => (a < b ? -1 : 1));
  t.same([...db.entries()], expected);
  await db.close();
  db = await open(folder);
  t.same([...db.entries()], expected);
  await db.checkpoint();
  await db.close();
  db = await open(folder, { readOnly: true });
  t.same([...db.entries()], expected);
  t.same([...db.entries({ reverse: true })], expected.reverse());
  await db.close();
});

void t.test('a write at the memory cap takes the memory of versions that no snapshot needs any more', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1, ringBytes: 65_536, maxMemoryBytes: 4 * 1024 * 1024 });
  const value = (i: number): string => `${i}`.padEnd(4000, 'x');
  await db.put('key', value(0));
  const snapshot = db.snapshot();
  const fill = async (): Promise<void> => {
    for (let i = 1; i < 10_000; i++) {
      await db.put(`key ${i % 50}`, value(i));
      // Each is needed by a snapshot of its own until all are closed.
      if (i % 50 === 0) snapshots.push(db.snapshot());
    }
  };
  const snapshots = [snapshot];
  await t.rejects(fill(), { code: 'FV_MEMORY_FULL' });
  for (const one of snapshots) one.close();
  // In the same turn: nothing has been freed in the background.
  const again = db.put('new', value(1));
  await t.resolves(again);
  t.equal(db.get('new'), value(1));
  await db.close();
});
