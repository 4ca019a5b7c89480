/** The calls of the API, one by one: what they return, resolve with, reject with. */

import t from 'tap';
import { attach, open, FlashVectorError, type FlashVector } from '../../src/index.js';
import { tempFolder } from '../support/temp.js';

const code = (wanted: string): { name: string; code: string } => ({ name: 'FlashVectorError', code: wanted });

async function withStore(t: Tap.Test, options: Parameters<typeof open>[1] = {}): Promise<FlashVector> {
  const db = await open(tempFolder(t), options);
  t.teardown(() => db.close());
  return db;
}

void t.test('put, get, has, del, size', async (t) => {
  const db = await withStore(t);
  t.equal(db.get('a'), undefined);
  t.equal(db.has('a'), false);
  const put = db.put('a', 1);
  t.ok(put instanceof Promise);
  t.equal(db.get('a'), 1, 'applied at once');
  t.equal(await put, 1, 'the first LSN');
  t.equal(db.has('a'), true);
  t.equal(db.size, 1);
  t.equal(await db.del('a'), 2);
  t.equal(db.get('a'), undefined);
  t.equal(db.size, 0);
  t.equal(await db.del('a'), 3, 'deleting what is not there is no error');
});

void t.test('getMany and getEntry', async (t) => {
  const db = await withStore(t);
  const lsn = await db.put('a', { x: 1 });
  await db.put('b', 2);
  t.same(db.getMany(['b', 'none', 'a']), [2, undefined, { x: 1 }]);
  t.same(db.getMany([]), []);
  t.same(db.getEntry('a'), { value: { x: 1 }, lsn });
  t.equal(db.getEntry('none'), undefined);
});

void t.test('a string and its bytes are the same key', async (t) => {
  const db = await withStore(t);
  for (const key of ['k', 'žluť', '🐎', 'x'.repeat(24), 'x'.repeat(25), 'ž'.repeat(40)]) {
    await db.put(key, key);
    t.equal(db.get(Buffer.from(key)), key);
    await db.put(new Uint8Array(Buffer.from(key)), `${key}!`);
    t.equal(db.get(key), `${key}!`);
  }
  t.equal(db.size, 6);
});

void t.test('keys at their limits', async (t) => {
  const db = await withStore(t);
  const longest = [new Uint8Array(65_535).fill(1), 'k'.repeat(65_535), 'ž'.repeat(32_767), '啊'.repeat(21_845), '\0'];
  for (const key of longest) {
    await db.put(key, key.length);
    t.equal(db.get(key), key.length);
  }
  const tooLong = [new Uint8Array(65_536), 'k'.repeat(65_536), 'ž'.repeat(32_768), '啊'.repeat(21_846), 'k'.repeat(1_000_000)];
  for (const key of [...tooLong, '', new Uint8Array(0), 'a\ud800', '\udc00'.repeat(30)]) {
    t.throws(() => db.get(key), code('FV_KEY'));
    await t.rejects(db.put(key, 1), code('FV_KEY'));
    await t.rejects(db.del(key), code('FV_KEY'));
    await t.rejects(db.increment(key), code('FV_KEY'));
    await t.rejects(
      db.update(key, () => 1),
      code('FV_KEY'),
    );
  }
  t.equal(db.size, longest.length);
});

void t.test('misuse is a TypeError and leaves the store untouched', async (t) => {
  const db = await withStore(t);
  for (const key of [undefined, null, 1, {}, [], true, Symbol('s'), new Uint16Array(2)] as never[]) {
    t.throws(() => db.get(key), TypeError);
    t.throws(() => db.has(key), TypeError);
    t.throws(() => db.getEntry(key), TypeError);
    await t.rejects(db.put(key, 1), TypeError);
    await t.rejects(db.del(key), TypeError);
    await t.rejects(db.increment(key), TypeError);
    await t.rejects(
      db.update(key, () => 1),
      TypeError,
    );
    await t.rejects(
      db.batch([
        { type: 'put', key: 'good', value: 1 },
        { type: 'put', key, value: 1 },
      ]),
      TypeError,
    );
  }
  t.throws(() => db.getMany('abc' as never), TypeError);
  await t.rejects(db.batch('abc' as never), TypeError);
  await t.rejects(db.batch([null as never]), TypeError);
  await t.rejects(db.batch([{ type: 'move', key: 'a' } as never]), { message: /operation 0 has type "move"/ });
  await t.rejects(db.increment('a', NaN), TypeError);
  await t.rejects(db.increment('a', '1' as never), TypeError);
  await t.rejects(db.update('a', 1 as never), TypeError);
  await t.rejects(db.put('a', 1, 5 as never), TypeError);
  await t.rejects(attach({} as never), TypeError);
  t.equal(db.size, 0);
  t.equal(db.stats().log.lastLsn, 0, 'nothing was logged');
});

void t.test('values that cannot be stored are refused by name', async (t) => {
  const db = await withStore(t);
  await db.put('k', 'before');
  const circle: Record<string, unknown> = { name: 'circle' };
  circle['self'] = circle;
  const circularMap = new Map<string, unknown>();
  circularMap.set('me', circularMap);
  const deep: unknown[] = [];
  let at = deep;
  for (let i = 0; i < 100_000; i++) {
    const next: unknown[] = [];
    at.push(next);
    at = next;
  }
  const bad: unknown[] = [
    undefined,
    () => 1,
    Symbol('s'),
    circle,
    circularMap,
    deep,
    { f: (): number => 1 },
    [Symbol('x')],
    { a: { b: [(): void => undefined] } },
  ];
  for (const value of bad) {
    await t.rejects(db.put('k', value), code('FV_VALUE'));
    await t.rejects(
      db.batch([
        { type: 'put', key: 'good', value: 1 },
        { type: 'put', key: 'k', value },
      ]),
      { ...code('FV_VALUE'), message: /operation 1/ },
    );
    await t.rejects(
      db.update('k', () => value),
      code('FV_VALUE'),
    );
    t.throws(() => db.batch().put('k', value), code('FV_VALUE'));
  }
  t.equal(db.get('k'), 'before');
  t.equal(db.size, 1);
  await db.put('k', { fine: true, after: 'all' });
  t.same(db.get('k'), { fine: true, after: 'all' }, 'the encoder is whole after failures');
});

void t.test('conditions', async (t) => {
  const db = await withStore(t);
  const first = await db.put('a', 1, { ifAbsent: true });
  await t.rejects(db.put('a', 2, { ifAbsent: true }), code('FV_CONFLICT'));
  await t.rejects(db.put('a', 2, { ifVersion: first + 100 }), code('FV_CONFLICT'));
  await t.rejects(db.put('none', 2, { ifVersion: first }), code('FV_CONFLICT'));
  t.equal(db.get('a'), 1);
  const second = await db.put('a', 2, { ifVersion: first });
  t.equal(db.getEntry('a')?.lsn, second);
  await t.rejects(db.del('a', { ifVersion: first }), code('FV_CONFLICT'));
  await db.del('a', { ifVersion: second });
  t.equal(db.has('a'), false);
  t.equal(db.stats().operations.conflicts, 4);
  await t.rejects(db.put('a', 1, { ifAbsent: true, ifVersion: 1 }), code('FV_OPTION'));
  await t.rejects(db.put('a', 1, { tll: 5 } as never), { ...code('FV_OPTION'), message: /"tll"/ });
  await t.rejects(db.put('a', 1, { ifVersion: -1 }), code('FV_OPTION'));
  await t.rejects(db.put('a', 1, { durability: 'never' as never }), code('FV_OPTION'));
});

void t.test('a conditional write resolves with its own LSN although others share its turn', async (t) => {
  const db = await withStore(t);
  const [a, b, c] = await Promise.all([db.put('a', 1, { ifAbsent: true }), db.put('b', 1), db.put('c', 1, { ifAbsent: true })]);
  t.equal(db.getEntry('a')?.lsn, a);
  t.equal(db.getEntry('c')?.lsn, c);
  t.ok(b >= (db.getEntry('b')?.lsn ?? Infinity), 'a plain write resolves with an LSN at which it is durable');
});

void t.test('batches, plain and chained', async (t) => {
  const db = await withStore(t);
  await db.put('gone', 1);
  const lsn = await db.batch([
    { type: 'put', key: 'a', value: 1 },
    { type: 'put', key: 'b', value: { x: 2 } },
    { type: 'del', key: 'gone' },
    { type: 'del', key: 'never' },
  ]);
  t.same(db.getMany(['a', 'b', 'gone']), [1, { x: 2 }, undefined]);
  t.equal(db.getEntry('a')?.lsn, lsn);
  t.equal(db.getEntry('b')?.lsn, lsn, 'one record, one LSN');
  await db.batch([
    { type: 'put', key: 'a', value: 'short' },
    { type: 'del', key: 'a' },
    { type: 'put', key: 'a', value: 'x'.repeat(5000) },
    { type: 'put', key: 'a', value: 'last' },
    { type: 'put', key: 'new', value: 1 },
    { type: 'del', key: 'new' },
  ]);
  t.equal(db.get('a'), 'last', 'the last operation on a key counts');
  t.equal(db.has('new'), false);
  const chained = db.batch().put('c', 3).del('b').put('d', 4);
  t.equal(chained.length, 3);
  t.equal(db.get('c'), undefined, 'nothing yet');
  await chained.write({ durability: 'memory' });
  t.same(db.getMany(['c', 'b', 'd']), [3, undefined, 4]);
  await t.rejects(chained.write(), code('FV_CLOSED'));
  t.throws(() => chained.put('x', 1), code('FV_CLOSED'));
  await db.batch([]);
  await db.batch().write();
  t.equal(db.batch().put('z', 1).clear().length, 0);
  await t.rejects(db.batch([{ type: 'put', key: 'x', value: 1 }], { durable: true } as never), code('FV_OPTION'));
  t.equal(db.has('x'), false);
});

void t.test('increment and update', async (t) => {
  const db = await withStore(t);
  t.equal(await db.increment('n'), 1);
  t.equal(await db.increment('n', 2.5), 3.5);
  t.equal(await db.increment('n', -10), -6.5);
  await db.put('text', 'x');
  await t.rejects(db.increment('text'), code('FV_VALUE'));
  t.equal(await db.update<number>('n', (n) => (n ?? 0) * 2), -13);
  t.same(await db.update<string[]>('list', (list) => [...(list ?? []), 'a']), ['a']);
  await t.rejects(
    db.update('n', () => {
      throw new RangeError('mine');
    }),
    { name: 'RangeError', message: 'mine' },
  );
  t.equal(db.get('n'), -13);
  const results = await Promise.all(Array.from({ length: 100 }, () => db.increment('many')));
  t.same(
    results,
    Array.from({ length: 100 }, (_, i) => i + 1),
  );
});

void t.test('entries, keys and values', async (t) => {
  const db = await withStore(t, { shards: 2 });
  const model = new Map<string, number>();
  for (let i = 0; i < 5000; i++) {
    model.set(`key${i}`, i);
    void db.put(`key${i}`, i);
  }
  await db.put(new Uint8Array([0xff, 0]), 'bytes');
  await db.flush();
  const entries = [...db.entries()];
  t.equal(entries.length, 5001);
  const bytes = entries.find(([key]) => typeof key !== 'string');
  t.same(bytes, [new Uint8Array([0xff, 0]), 'bytes']);
  t.same(new Map(entries.filter(([key]) => typeof key === 'string') as [string, number][]), model);
  t.equal(new Set(db.keys()).size, 5001);
  t.equal([...db.values()].length, 5001);
});

void t.test('durability of a store and of a write, and flush', async (t) => {
  for (const durability of ['sync', 'interval', 'memory'] as const) {
    const folder = tempFolder(t);
    let db = await open(folder, { durability, syncIntervalMs: 20 });
    await db.put('a', 1);
    await db.put('b', 2, { durability: 'sync' });
    t.ok(db.stats().log.durableLsn >= 2, 'a sync write makes all before it durable');
    await db.put('c', 3, { durability: 'memory' });
    const lsn = await db.flush();
    t.equal(lsn, 3);
    t.equal(db.stats().log.durableLsn, 3);
    await db.close();
    db = await open(folder);
    t.same(db.getMany(['a', 'b', 'c']), [1, 2, 3]);
    await db.close();
  }
});

void t.test('flush does not wait for the interval', async (t) => {
  const db = await withStore(t, { durability: 'memory', syncIntervalMs: 60_000 });
  await db.put('a', 1);
  await db.flush();
  t.equal(db.stats().log.durableLsn, 1);
});

void t.test('stats show what was done', async (t) => {
  const db = await withStore(t);
  await db.put('key', 'value');
  await db.put('key2', 'value2');
  db.get('key');
  db.get('none');
  await db.del('key2');
  const stats = db.stats();
  t.match(stats, {
    status: 'open',
    entries: 1,
    keyBytes: 3,
    valueBytes: 5,
    operations: { reads: 2, hits: 1, puts: 2, deletes: 1, bytesRead: 5, bytesWritten: 8 + 10 },
    log: { lastLsn: 3, writtenLsn: 3, durableLsn: 3, frames: 3, syncs: 3, records: 3, recordsPerSync: 1, segments: 1 },
    threads: 1,
  });
  // Room is freed a moment after the acknowledgement when the writer was still applying at that point.
  t.ok(stats.log.ringFill >= 0 && stats.log.ringFill < 0.01);
  t.equal(stats.shards.length, 16);
  t.ok(stats.latencies.sync.p50Us > 0);
  t.ok(stats.latencies.putDurable.count === 3);
  t.ok(stats.memory.usedBytes > 0 && stats.memory.usedBytes <= stats.memory.shardBytes);
});

void t.test('close', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder);
  let closed = 0;
  db.on('close', () => closed++);
  const pending = db.put('a', 1);
  const closing = db.close();
  t.equal(db.status, 'closing');
  t.equal(db.close(), closing, 'idempotent');
  await t.rejects(db.put('b', 1), code('FV_CLOSED'));
  t.throws(() => db.get('a'), code('FV_CLOSED'));
  t.throws(() => db.size, code('FV_CLOSED'));
  t.throws(() => [...db.entries()], code('FV_CLOSED'));
  t.equal(await pending, 1, 'what was in flight is finished');
  await closing;
  t.equal(db.status, 'closed');
  t.equal(closed, 1);
  for (const call of [
    db.put('a', 1),
    db.del('a'),
    db.batch([]),
    db.batch().put('a', 1).write(),
    db.increment('a'),
    db.update('a', () => 1),
    db.flush(),
  ]) {
    await t.rejects(call, code('FV_CLOSED'));
  }
  t.throws(() => db.get('a'), code('FV_CLOSED'));
  await t.rejects(attach(db.handle), code('FV_CLOSED'));
  {
    await using again = await open(folder);
    t.equal(again.get('a'), 1);
  }
  const error = await open(folder).then(async (store) => store.close());
  t.equal(error, undefined, 'asynchronous disposal has let the folder go');
});

void t.test('several stores in one process', async (t) => {
  const a = await withStore(t);
  const b = await withStore(t);
  await Promise.all([a.put('k', 'a'), b.put('k', 'b')]);
  t.same([a.get('k'), b.get('k')], ['a', 'b']);
});

void t.test('errors carry their fields', (t) => {
  const cause = new Error('why');
  const error = new FlashVectorError('FV_IO', 'text', { file: 'f', offset: 3, lsn: 4, cause });
  t.match(error, { name: 'FlashVectorError', code: 'FV_IO', message: 'text', file: 'f', offset: 3, lsn: 4, cause });
  t.ok(error instanceof Error);
  t.end();
});

void t.test('every 64th put is timed, but not one that is refused', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (let i = 0; i < 63; i++) await db.put('key', i);
  t.equal(db.stats().latencies.putApplied.count, 0);
  await db.put('key', 63);
  t.equal(db.stats().latencies.putApplied.count, 1);
  for (let i = 0; i < 63; i++) await db.put('key', i);
  await t.rejects(db.put('key', undefined), { code: 'FV_VALUE' });
  t.equal(db.stats().latencies.putApplied.count, 1);
  await db.close();
});
