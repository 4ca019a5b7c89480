/** Copies into and out of shared memory, however their ends lie, and of lengths that go in pieces. */

import t from 'tap';
import { open } from '../../src/index.js';
import { copyIn, copyOut } from '../../src/memory/copy.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const BYTES = 300_000;

void t.test('the bytes that are meant are copied, and no others', (t) => {
  const random = randomFrom(testSeed(t));
  const draw = (below: number): number => Math.floor(random() * below);
  const source = Buffer.from(new SharedArrayBuffer(BYTES));
  const own = Buffer.from(new ArrayBuffer(BYTES));
  for (let i = 0; i < BYTES; i++) own[i] = source[i] = draw(256);
  const lengths = [0, 1, 3, 7, 8, 9, 15, 16, 17, 100, 1024, 65_535, 65_536, 65_537, 131_072, 200_001];
  const wrong: string[] = [];
  for (let round = 0; round < 1500; round++) {
    const length = round < 1400 ? lengths[draw(10)] : lengths[draw(lengths.length)];
    const at = draw(64);
    const to = draw(64);
    // Values that are given may begin anywhere in their ArrayBuffers.
    const base = draw(16);
    const target = Buffer.from(new SharedArrayBuffer(length + 200)).fill(0xee);
    copyIn(own.subarray(base), at, target, to, length);
    const expected = Buffer.alloc(length + 200, 0xee);
    own.copy(expected, to, base + at, base + at + length);
    if (!target.equals(expected)) wrong.push(`in: ${length} bytes from ${base} + ${at} to ${to}`);
    const out = Buffer.from(new ArrayBuffer(length + 200)).fill(0xee);
    copyOut(source, at, out, to, length);
    expected.fill(0xee);
    source.copy(expected, to, at, at + length);
    if (!out.equals(expected)) wrong.push(`out: ${length} bytes from ${at} to ${to}`);
  }
  t.same(wrong, [], '1,500 of each');
  t.end();
});

void t.test('long values under keys of all lengths come back, in transactions and after a reopen, too', async (t) => {
  const folder = tempFolder(t);
  const options = { durability: 'memory', walSegmentBytes: 16 * 1024 * 1024 } as const;
  let db = await open(folder, options);
  const lengths = [200, 257, 259, 1023, 1024, 1026, 4095, 65_535, 65_537, 140_003];
  const bytesOf = (length: number, salt: number): Buffer =>
    Buffer.from(Array.from({ length }, (_, i) => (i * 31 + (i >>> 8) + salt) & 255));
  const check = (salt: number): void => {
    const wrong: string[] = [];
    for (let chars = 1; chars <= 12; chars++)
      for (const length of lengths) {
        const key = `${'k'.repeat(chars)}${length}`;
        if (!(db.get(key) as Buffer | undefined)?.equals(bytesOf(length, salt + chars))) wrong.push(key);
      }
    t.same(wrong, [], `what was written in round ${salt}`);
  };
  const write = (salt: number): void => {
    for (let chars = 1; chars <= 12; chars++)
      for (const length of lengths) {
        const key = `${'k'.repeat(chars)}${length}`;
        // Of a longer ArrayBuffer, beginning at any byte.
        const whole = Buffer.from(new ArrayBuffer(length + 16));
        const value = whole.subarray(chars, chars + length);
        bytesOf(length, salt + chars).copy(value);
        if (length % 2 === 0) void db.batch([{ type: 'put', key, value }]);
        else void db.put(key, value);
      }
  };
  write(1);
  await db.drained();
  check(1);
  write(2);
  await db.drained();
  check(2);
  await db.checkpoint();
  await db.close();
  db = await open(folder, options);
  check(2);
  write(3);
  await db.close();
  db = await open(folder, options);
  check(3);
  await db.close();
});
