/** Every type of value that the API promises comes back equal, from memory and after a reopen. */

import t from 'tap';
import { isDeepStrictEqual } from 'node:util';
import { open } from '../../src/index.js';
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
