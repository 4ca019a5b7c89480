/** Every type of value that the API promises comes back equal, from memory and after a reopen. */

import t from 'tap';
import { isDeepStrictEqual } from 'node:util';
import { open, type AnyKey, type FlashVector, type Key } from '../../src/index.js';
import { describe } from '../../src/base/errors.js';
import { tempFolder } from '../support/temp.js';

const values: [name: string, value: unknown][] = [
  ['zero', 0],
  ['minus zero', -0],
  ['small integer', 42],
  ['negative integer', -7],
  ['largest int32', 2147483647],
  ['past int32', 2147483648],
  ['smallest int32', -2147483648],
  ['safe integer', Number.MAX_SAFE_INTEGER],
  ['fraction', 0.1],
  ['NaN', NaN],
  ['infinity', -Infinity],
  ['true', true],
  ['false', false],
  ['null', null],
  ['bigint', 123n],
  ['negative bigint', -5n],
  ['large bigint', 2n ** 200n],
  ['empty string', ''],
  ['ascii', 'hello'],
  ['ascii of every length to 70', Array.from({ length: 70 }, (_, i) => 'x'.repeat(i))],
  ['latin1', 'Grüße'],
  ['utf8', 'žluťoučký 🐎'],
  ['lone surrogate', 'a\ud800b'],
  ['nul characters', '\0a\0'],
  ['long ascii', 'a'.repeat(100_000)],
  ['long utf8', 'ž'.repeat(100_000)],
  ['long lone surrogates', '\udfff'.repeat(50_000)],
  ['empty bytes', new Uint8Array(0)],
  ['bytes', new Uint8Array([0, 255, 7])],
  ['buffer', Buffer.from('buffer')],
  ['long bytes', new Uint8Array(200_000).fill(9)],
  ['date', new Date(1_700_000_000_123)],
  ['array', [1, 'two', [3, null], { four: 4 }]],
  ['empty array', []],
  ['empty object', {}],
  ['object', { id: 1, name: 'Ada', nested: { deep: [1, 2, { x: true }] } }],
  ['object with undefined', { a: undefined, b: 1 }],
  ['object with odd names', { 'a b': 1, '': 2, '1': 3, constructor: 4, hasOwnProperty: 5 }],
  [
    'map',
    new Map<unknown, unknown>([
      ['a', 1],
      [2, { b: 3 }],
    ]),
  ],
  ['set', new Set([1, 'two', 3])],
  ['Int8Array', new Int8Array([-1, 2])],
  ['Uint8ClampedArray', new Uint8ClampedArray([1, 255])],
  ['Int16Array', new Int16Array([-300, 300])],
  ['Uint16Array', new Uint16Array([65535])],
  ['Int32Array', new Int32Array([-70000, 70000])],
  ['Uint32Array', new Uint32Array([4294967295])],
  ['Float32Array', new Float32Array([1.5, -2.25])],
  ['Float64Array', new Float64Array([0.1, 1e300])],
  ['BigInt64Array', new BigInt64Array([-1n])],
  ['BigUint64Array', new BigUint64Array([2n ** 63n])],
  ['bytes in an object', { data: new Uint8Array([1, 2, 3]), more: Buffer.from('x') }],
  ['map in an object', { m: new Map([['k', new Set([1])]]) }],
  ['wide object', Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`field${i}`, i]))],
  ['large object', { text: 'y'.repeat(70_000), list: Array.from({ length: 20_000 }, (_, i) => i) }],
  ['regular expression', /a+b/gi],
];

function equal(a: unknown, b: unknown): boolean {
  if (ArrayBuffer.isView(a) && ArrayBuffer.isView(b)) return a.constructor === b.constructor && isDeepStrictEqual(a, b);
  return isDeepStrictEqual(a, b);
}

void t.test('values come back equal, twice, and after a reopen', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder);
  for (const [name, value] of values) {
    await db.put(`${name}/1`, value);
    await db.put(`${name}/2`, value);
  }
  const check = (when: string): void => {
    for (const [name, value] of values) {
      for (const n of [1, 2]) {
        const found = db.get(`${name}/${n}`);
        if (!equal(found, value)) t.fail(`${name}/${n} ${when}`, { found, wanted: value });
      }
    }
    t.equal(db.size, values.length * 2, when);
  };
  check('from memory');
  await db.close();
  db = await open(folder);
  check('after a reopen');
  await db.close();
});

void t.test('a batch takes every type too', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder);
  await db.batch(values.map(([key, value]) => ({ type: 'put' as const, key, value })));
  for (const [name, value] of values) t.ok(equal(db.get(name), value), name);
  await db.close();
});

void t.test("a value returned is the caller's own, and a value given may change afterwards", async (t) => {
  const db = await open(tempFolder(t));
  const bytes = new Uint8Array([1, 2, 3]);
  const list = [1];
  void db.put('bytes', bytes);
  void db.put('list', list);
  bytes[0] = 9;
  list.push(2);
  const first = db.get('bytes') as Uint8Array;
  t.same([...first], [1, 2, 3]);
  first[1] = 9;
  t.same([...(db.get('bytes') as Uint8Array)], [1, 2, 3]);
  t.same(db.get('list'), [1]);
  const nested = { inner: new Uint8Array([5]) };
  await db.put('nested', nested);
  const copy = db.get('nested') as typeof nested;
  db.get('list');
  t.equal(copy.inner[0], 5, 'nested bytes do not point into memory that is used again');
  await db.close();
});

void t.test('regression: a Buffer from a transaction or a feed of changes shared its memory with others, and went with them', async (t) => {
  const db = await open(tempFolder(t), { cache: true });
  for (const length of [0, 1, 64, 65, 100, 1000, 4095, 4096, 100_000]) {
    const value = Buffer.alloc(length, length % 251);
    const key = `k${length}`;
    const lsn = await db.put(key, value);
    const snapshot = db.snapshot();
    const read: unknown[] = [db.get(key), ...db.getMany([key, key]), db.getEntry(key)?.value, snapshot.get(key)];
    for (const [, stored] of db.entries({ gte: key, limit: 1 })) read.push(stored);
    await db.transaction((tx) => {
      read.push(tx.get(key));
      tx.put(key, value);
      read.push(tx.get(key), tx.getEntry(key)?.value);
    });
    for await (const change of db.changes({ since: lsn - 1 })) {
      if (change.type === 'put') read.push(change.value);
      if (change.lsn > lsn) break;
    }
    snapshot.close();
    t.equal(read.length, 11);
    for (const buffer of read as Buffer[]) {
      if (!Buffer.isBuffer(buffer) || !buffer.equals(value) || buffer.buffer.byteLength !== length)
        t.fail(`${length} bytes are ${buffer.length} of ${buffer.buffer.byteLength}`);
    }
    // A byte stream takes the memory of what it is given.
    const taken = new Set<Buffer>();
    for (const buffer of (read as Buffer[]).filter((each) => each.length > 0)) {
      const stream = new ReadableStream({
        type: 'bytes',
        start: (controller) => {
          controller.enqueue(buffer);
          controller.close();
        },
      });
      t.equal((await new Response(stream).arrayBuffer()).byteLength, length);
      taken.add(buffer);
      for (const other of read as Buffer[]) if (!taken.has(other) && !other.equals(value)) t.fail('another one has changed');
    }
  }
  await db.close();
});

void t.test('shapes that every thread shares are written once and survive a reopen', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder);
  for (let shape = 0; shape < 50; shape++) {
    for (let i = 0; i < 3; i++) await db.put(`${shape}/${i}`, { [`a${shape}`]: i, [`b${shape}`]: { [`c${shape}`]: shape } });
  }
  t.equal(db.stats().log.structures, 32, 'as many as there can be');
  await db.close();
  db = await open(folder);
  t.equal(db.stats().log.structures, 32);
  for (let shape = 0; shape < 50; shape++) {
    for (let i = 0; i < 3; i++) t.same(db.get(`${shape}/${i}`), { [`a${shape}`]: i, [`b${shape}`]: { [`c${shape}`]: shape } });
  }
  await db.close();
});

void t.test('a getter of a value may use the store', async (t) => {
  const db = await open(tempFolder(t));
  await db.put('other', { x: 1 });
  const value = {
    before: 1,
    get seen(): unknown {
      void db.put('inner', { from: 'getter' });
      return db.get('other');
    },
    after: 2,
  };
  await db.put('outer', value);
  t.same(db.get('outer'), { before: 1, seen: { x: 1 }, after: 2 });
  t.same(db.get('inner'), { from: 'getter' });
  await db.close();
});

void t.test('objects with and without characters past ASCII, of every size, on every way that reads them', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: 65_536 * 4 });
  // The structure is shared, and known to the encoder, after some.
  for (let i = 0; i < 6; i++) await db.put('warm', { text: 'x', more: [i] });
  const written = new Map<string, unknown>();
  for (const length of [0, 1, 12, 13, 31, 32, 48, 49, 240, 255, 256, 257, 1000, 4080, 4096, 5000, 16_000, 70_000]) {
    for (const [name, end] of Object.entries({ plain: 'y', latin: 'é', far: '🐎' })) {
      written.set(`${name}${length}`, { text: 'x'.repeat(length) + end, more: [length, end, 'z'.repeat(20)] });
      written.set(`${name}${length}s`, 'x'.repeat(length) + end);
    }
  }
  const since = await db.put('begin', 0);
  for (const [key, value] of written) await db.put(key, value);
  const snapshot = db.snapshot();
  for (const key of written.keys()) await db.put(key, 0);
  for (const [key, value] of written) if (!isDeepStrictEqual(snapshot.get(key), value)) t.fail(`${key} from a snapshot`);
  for (const [key, value] of written) await db.put(key, value, { ttl: 1_000_000 });
  let fed = 0;
  for await (const change of db.changes({ since })) {
    if (change.type === 'put' && change.value !== 0) {
      if (!isDeepStrictEqual(change.value, written.get(change.key as string))) t.fail(`${String(change.key)} from the feed`);
      fed++;
    }
    if (fed === written.size * 2) break;
  }
  await db.transaction((tx) => {
    for (const [key, value] of written) {
      if (!isDeepStrictEqual(tx.get(key), value)) t.fail(`${key} in a transaction`);
      tx.put(key, value);
      if (!isDeepStrictEqual(tx.get(key), value)) t.fail(`${key} in a transaction that wrote it`);
    }
  });
  const check = (store: typeof db, when: string): void => {
    for (const [key, value] of written) if (!isDeepStrictEqual(store.get(key), value)) t.fail(`${key} ${when}`);
    for (const [key, value] of store.entries({ gte: 'far', lt: 'plain~' }))
      if (!isDeepStrictEqual(value, written.get(key as string))) t.fail(`${String(key)} in order, ${when}`);
  };
  check(db, 'from memory');
  await db.checkpoint();
  snapshot.close();
  await db.close();
  const again = await open(folder, { walSegmentBytes: 65_536 * 4 });
  check(again, 'after a reopen');
  await again.close();
  t.equal(written.size, 108);
});

void t.test('a lone surrogate inside a value is refused, never replaced', async (t) => {
  const db = await open(tempFolder(t));
  const bad = [
    { a: 'x\ud800' },
    ['\udfff'],
    { deep: [{ er: `${'a'.repeat(100)}\ud83d` }] },
    { '\ud800': 1 },
    new Map([['k', '\ud800']]),
    new Set(['\ud800']),
  ];
  for (const value of bad) {
    for (let i = 0; i < 3; i++) await t.rejects(db.put('k', value), { code: 'FV_VALUE', message: /lone surrogate/ });
  }
  t.equal(db.get('k'), undefined);
  const good = { a: '🐎', b: '\ufffd', c: ['í', Buffer.from([0xed, 0xa0, 0x80]).length] };
  for (let i = 0; i < 3; i++) {
    await db.put('k', good);
    t.same(db.get('k'), good);
  }
  await db.close();
});

void t.test(
  'regression: a Buffer in an object came back as a Uint8Array from the read that had to learn the shapes of objects',
  async (t) => {
    const folder = tempFolder(t);
    const value = { name: 'x', file: Buffer.from('hello'), inner: { plain: new Uint8Array([1, 2]) } };
    let db = await open(folder);
    // A shape is numbered when it is met for the second time.
    for (let i = 0; i < 3; i++) await db.put(`k${i}`, value);
    await db.close();
    const reads: [name: string, read: (from: FlashVector) => unknown][] = [
      ['get', (from) => from.get('k2')],
      ['getEntry', (from) => from.getEntry('k2')?.value],
      ['getMany', (from) => from.getMany(['k2'])[0]],
      ['values', (from) => [...from.values()][2]],
      ['snapshot', (from) => from.snapshot().get('k2')],
    ];
    for (const [name, read] of reads) {
      db = await open(folder);
      for (const when of ['first', 'second']) t.ok(equal(read(db), value), `${name}, ${when} time`);
      await db.close();
    }
    db = await open(folder);
    for await (const { lsn, ...change } of db.changes({ since: 0 })) {
      if (change.type === 'put') t.ok(equal(change.value, value), 'changes');
      if (lsn >= db.stats().log.lastLsn) break;
    }
    t.ok(await db.transaction((tx) => equal(tx.get('k2'), value)), 'transaction');
    await db.close();
  },
);

void t.test('regression: fields of byte arrays, elements of keys and traps of proxies ran in the middle of a put', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { shards: 1, keyEncoding: 'ordered' });
  let armed = false;
  let ran = 0;
  const write = (): void => {
    if (!armed) return;
    armed = false;
    ran++;
    void db.put('inner', { written: 'inside' });
  };
  class Bytes extends Uint8Array {
    override get length(): number {
      write();
      return 1;
    }
    override get buffer(): ArrayBuffer {
      write();
      return super.buffer;
    }
    override get byteOffset(): number {
      write();
      return super.byteOffset;
    }
  }
  const bytes = (length: number): Bytes => Object.assign(new Bytes(length).fill(2), {});
  const wanted = new Map<unknown, unknown>();
  for (const length of [100, 200_000]) {
    const value = bytes(length);
    for (const [how, put] of [
      ['put', (key: string) => db.put(key, value)],
      ['batch', (key: string) => db.batch([{ type: 'put', key, value }])],
      ['update', (key: string) => db.update(key, () => value)],
      ['transaction', (key: string) => db.transaction((tx) => tx.put(key, value))],
    ] as const) {
      armed = true;
      await put(`${how}${length}`);
      wanted.set(`${how}${length}`, new Uint8Array(length).fill(2));
    }
  }
  t.equal(ran, 0, 'a byte array is what it is, whatever its fields say');
  const keyOf = (call: string): Key => {
    const parts = [call, 'b'];
    Object.defineProperty(parts, 1, {
      get: () => {
        write();
        return 'b';
      },
    });
    return parts as unknown as Key;
  };
  const made = (call: string): object => ({ key: 'array', call });
  const calls: [call: string, run: (key: Key) => Promise<unknown>, wanted: unknown][] = [
    ['put', (key) => db.put(key, made('put')), made('put')],
    ['batch', (key) => db.batch([{ type: 'put', key, value: made('batch') }]), made('batch')],
    ['chained', (key) => db.batch().put(key, made('chained')).write(), made('chained')],
    ['update', (key) => db.update(key, () => made('update')), made('update')],
    ['modify', (key) => db.modify(key, () => ({ value: made('modify') })), made('modify')],
    ['transaction', (key) => db.transaction((tx) => tx.put(key, made('transaction'))), made('transaction')],
    ['increment', (key) => db.increment(key, 3), 3],
    ['expire', (key) => db.expire(key, 60_000), undefined],
  ];
  for (const [call, run, result] of calls) {
    const before = ran;
    armed = true;
    await run(keyOf(call));
    t.equal(ran, before + 1, `${call} asks for the elements of its key`);
    if (result !== undefined) wanted.set([call, 'b'], result);
  }
  armed = true;
  const proxy = new Proxy(
    { a: 1 },
    {
      getPrototypeOf: (target) => {
        write();
        return Object.getPrototypeOf(target) as object;
      },
      ownKeys: (target) => {
        write();
        return Reflect.ownKeys(target);
      },
    },
  );
  await db.put('proxy', proxy);
  wanted.set('proxy', { a: 1 });
  wanted.set('inner', { written: 'inside' });
  const check = (when: string): void => {
    for (const [key, value] of wanted) t.ok(equal(db.get(key as AnyKey), value), `${describe(key)} ${when}`);
    t.equal(db.size, wanted.size, when);
  };
  await db.flush();
  check('in memory');
  await db.close();
  db = await open(folder, { shards: 1, keyEncoding: 'ordered' });
  check('after a reopen');
  await db.close();
});

void t.test('a key is what it was when the call was made, whatever the function of an update does to it', async (t) => {
  for (const keyEncoding of ['utf8', 'ordered'] as const) {
    const db = await open(tempFolder(t), { keyEncoding });
    const make = (): Key => (keyEncoding === 'ordered' ? (['a', 'b'] as unknown as Key) : new Uint8Array([1, 2]));
    const calls: ((key: Key, change: () => void) => Promise<unknown>)[] = [
      (key, change) => db.update(key, () => (change(), { by: 'update' })),
      (key, change) => db.modify(key, () => (change(), { value: { by: 'modify' } })),
    ];
    for (const [i, call] of calls.entries()) {
      const key = make();
      await call(key, () => {
        (key as unknown as unknown[])[1] = keyEncoding === 'ordered' ? 'c' : 3;
      });
      t.same(db.get(make()), { by: ['update', 'modify'][i] });
      t.equal(db.size, 1);
    }
    await db.close();
  }
});

void t.test('regression: a byte array that is a key was asked for its length, and could write', async (t) => {
  const db = await open(tempFolder(t));
  let ran = 0;
  class Bytes extends Uint8Array {
    override get length(): number {
      ran++;
      return 1;
    }
  }
  const key = new Bytes(9).fill(7);
  const calls: ((n: number) => Promise<unknown>)[] = [
    (n) => db.put(key, { n }),
    (n) => db.batch([{ type: 'put', key, value: { n } }]),
    (n) => db.update(key, () => ({ n })),
    (n) => db.modify(key, () => ({ value: { n } })),
  ];
  ran = 0;
  for (const [n, call] of calls.entries()) {
    await call(n);
    t.same(db.get(new Uint8Array(9).fill(7)), { n });
  }
  t.equal(db.size, 1);
  t.equal(ran, 0);
  await db.close();
});

void t.test('a byte array over memory that grows later has the bytes that it had', async (t) => {
  const db = await open(tempFolder(t));
  for (const length of [100, 70_000]) {
    const memory = new SharedArrayBuffer(length, { maxByteLength: 1_000_000 });
    const value = new Uint8Array(memory).fill(3);
    const written = db.put('a', value);
    memory.grow(500_000);
    await written;
    t.same(db.get('a'), new Uint8Array(length).fill(3));
  }
  await db.close();
});
