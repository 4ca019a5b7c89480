/** Fragments of keys: both kinds order as the keys do, and are the same from wherever they are made. */

import fc from 'fast-check';
import t from 'tap';
import { canTell, fragmentOf, fragmentOfEight, isDense, prefixFor, sharedOf } from '../../src/table/key-fragment.js';
import { testSeed } from '../support/random.js';

/** Bytes around those where a dense fragment ends, and any. */
const byte = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...Buffer.from('0123456789abcdef')) },
  { weight: 2, arbitrary: fc.constantFrom(0, 0x2f, 0x3a, 0x40, 0x41, 0x60, 0x67, 0x7f, 0xff) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }) },
);
const tail = fc.array(byte, { maxLength: 9 }).map((bytes) => Buffer.from(bytes));
const head = fc.array(byte, { maxLength: 4 }).map((bytes) => Buffer.from(bytes));
const DENSE = prefixFor(Buffer.from('123456'), 0, 6, 0);

void t.test('keys with other fragments are in the order of their fragments', (t) => {
  t.ok(isDense(DENSE));
  fc.assert(
    fc.property(head, tail, tail, fc.boolean(), (shared, one, other, dense) => {
      const prefix = dense ? DENSE | shared.length : shared.length;
      const [a, b] = [one, other].map((rest) => Buffer.concat([shared, rest]));
      const difference = fragmentOf(a, 0, a.length, prefix) - fragmentOf(b, 0, b.length, prefix);
      return difference === 0 || Math.sign(difference) === Buffer.compare(a, b);
    }),
    { seed: testSeed(t), numRuns: 200_000 },
  );
  t.end();
});

void t.test('of eight bytes at hand it is the same', (t) => {
  fc.assert(
    fc.property(tail, fc.integer({ min: 0, max: 5 }), fc.boolean(), (key, skip, dense) => {
      if (!canTell(skip, dense)) return true;
      const eight = Buffer.alloc(8);
      key.copy(eight, 0, 0, 8);
      const prefix = dense ? DENSE | skip : skip;
      const shared = Math.min(key.length, 8);
      return fragmentOfEight(eight.readUInt32BE(0), eight.readUInt32BE(4), skip, dense) === fragmentOf(key, 0, shared, prefix);
    }),
    { seed: testSeed(t), numRuns: 100_000 },
  );
  t.end();
});

void t.test('six digits are told apart, and what is no number keeps its bytes', (t) => {
  const fragments = new Set<number>();
  for (let i = 0; i < 100_000; i++) {
    const key = Buffer.from(`user:${String(i).padStart(6, '0')}`);
    const prefix = prefixFor(key, 0, key.length, 5);
    if (sharedOf(prefix) !== 5 || !isDense(prefix)) t.fail('digits are dense');
    fragments.add(fragmentOf(key, 0, key.length, prefix));
  }
  t.equal(fragments.size, 100_000);
  for (const text of ['user:name', 'user:', 'user:123', 'user:123x', 'user:ABCD']) {
    const key = Buffer.from(text);
    t.notOk(isDense(prefixFor(key, 0, key.length, 5)), text);
  }
  for (const text of ['user:1234', 'user:deadbeef', 'user:0a1f', 'user:1234:x']) {
    const key = Buffer.from(text);
    t.ok(isDense(prefixFor(key, 0, key.length, 5)), text);
  }
  t.end();
});
