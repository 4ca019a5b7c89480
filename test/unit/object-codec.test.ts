/**
 * The fast ways of encoding and decoding against msgpackr: the same bytes, the same values, or hands off.
 */

import fc from 'fast-check';
import { Packr } from 'msgpackr/pack';
import { isDeepStrictEqual } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { TYPE_ASCII_MSGPACK, TYPE_MSGPACK } from '../../src/table/entry.js';
import { ObjectDecoder, UNKNOWN } from '../../src/table/object-decoder.js';
import { ObjectEncoder } from '../../src/table/object-encoder.js';
import { Scratch } from '../../src/table/scratch.js';
import type { StructureStore } from '../../src/table/structures.js';
import { ValueCodec } from '../../src/table/value-codec.js';
import { randomFrom, testSeed } from '../support/random.js';

/** Shares every structure at once, up to the limit. */
class Structures implements StructureStore {
  readonly countMax = 32;
  readonly all: string[][] = [];
  loads = 0;

  get count(): number {
    return this.all.length;
  }

  load(): string[][] {
    this.loads++;
    return this.all.map((names) => [...names]);
  }

  save(all: string[][]): boolean {
    for (let i = this.all.length; i < all.length; i++) this.all.push([...all[i]]);
    return true;
  }

  shouldShare(): boolean {
    return this.all.length < this.countMax;
  }
}

/** How many bytes a tag is followed by. */
const BYTES_AFTER: Record<number, number> = { 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd4: 2 };

function collector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

function setUp() {
  const structures = new Structures();
  const scratch = new Scratch(1);
  const encoder = new ObjectEncoder(structures);
  const decoder = new ObjectDecoder(scratch.read, structures);
  const packr = new Packr({
    copyBuffers: true,
    moreTypes: true,
    mapsAsObjects: false,
    useBigIntExtension: true,
    variableMapSize: true,
    maxSharedStructures: 32,
    getStructures: () => structures.load(),
    saveStructures: (all: unknown) => structures.save(all as string[][]),
    shouldShareStructure: () => structures.shouldShare(),
  } as ConstructorParameters<typeof Packr>[0]);
  const decode = (bytes: Uint8Array, isAscii = false): unknown => {
    // What the value before left behind must not matter.
    const { read } = scratch;
    read.bytes.fill(0xa5, 0, bytes.length + 64);
    read.bytes.set(bytes);
    const value = decoder.decode(read, 0, bytes.length, isAscii);
    // Nor where it lies: here right at the end of some memory.
    const from = 5 + (bytes.length & 7);
    const buffer = new SharedArrayBuffer((from + Math.ceil(bytes.length / 4)) * 4);
    const memory = { words: new Int32Array(buffer), bytes: Buffer.from(buffer), view: new DataView(buffer) };
    memory.bytes.fill(0xa5);
    memory.bytes.set(bytes, from * 4);
    if (!isDeepStrictEqual(decoder.decode(memory, from, bytes.length, isAscii), value)) throw new Error('decoded otherwise in place');
    return value;
  };
  return { structures, scratch, encoder, decoder, packr, decode };
}

/** Packs twice, so that the structures are shared, and lets the encoder learn them. */
function packShared(packr: Packr, encoder: ObjectEncoder, value: object): Buffer {
  packr.pack(value);
  const packed = Buffer.from(packr.pack(value));
  if (encoder.encode(value) === 0) encoder.encode(value);
  return packed;
}

const text = fc.oneof(fc.string(), fc.string({ unit: 'binary', maxLength: 80 }), fc.string({ minLength: 20, maxLength: 300 }));
const name = fc.oneof(
  { weight: 40, arbitrary: fc.constantFrom('id', 'name', 'tags', '7', 'a b') },
  { weight: 20, arbitrary: fc.string() },
  { weight: 1, arbitrary: fc.constantFrom('constructor', '__proto__', '') },
);
const number = fc.oneof(fc.integer(), fc.double(), fc.integer({ min: -300, max: 300 }), fc.nat(0xffff), fc.maxSafeInteger());
const leaf = fc.oneof(text, number, fc.boolean(), fc.constant(null), fc.constant(undefined));
const { value: anyValue } = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 3 }, leaf, tie('object'), fc.array(tie('value'), { maxLength: 20 })),
  object: fc.dictionary(name, tie('value'), {
    maxKeys: 8,
    noNullPrototype: true,
  }),
}));
const structured = fc.oneof(fc.dictionary(name, anyValue, { maxKeys: 8, noNullPrototype: true }), fc.array(anyValue));

/** Whether all characters of all strings in a value are below U+0080. */
function holdsAscii(value: unknown): boolean {
  if (typeof value === 'string') return Buffer.byteLength(value) === value.length;
  return typeof value !== 'object' || value === null || Object.values(value).every(holdsAscii);
}

void t.test('a field whose name is empty, first of all or among others', (t) => {
  for (const value of [{ '': 1 }, { a: 1, '': 2 }, { '': 3, a: 4 }, { a: 1, b: 2, '': { '': true } }]) {
    const { packr, encoder, decode } = setUp();
    const packed = packShared(packr, encoder, value);
    for (let time = 0; time < 3; time++) {
      t.equal(encoder.encode(value), packed.length, 'it is not left to msgpackr');
      t.ok(packed.equals(encoder.bytes.subarray(0, packed.length)));
    }
    t.same(decode(packed), value);
  }
  t.end();
});

void t.test('the same bytes as msgpackr, and the same value back, or left alone', async (t) => {
  const seed = testSeed(t);
  let encoded = 0;
  let decoded = 0;
  let plain = 0;
  fc.assert(
    fc.property(structured, (value) => {
      const { packr, encoder, decode } = setUp();
      const packed = packShared(packr, encoder, value);
      const length = encoder.encode(value);
      if (length !== 0) {
        encoded++;
        if (!packed.equals(encoder.bytes.subarray(0, length))) return false;
        if (encoder.isAscii !== holdsAscii(value)) return false;
        if (encoder.isAscii) {
          plain++;
          if (!isDeepStrictEqual(decode(packed, true), packr.unpack(packed))) return false;
        }
      }
      const back = decode(packed);
      if (back === UNKNOWN) return true;
      decoded++;
      return isDeepStrictEqual(back, packr.unpack(packed));
    }),
    { seed, numRuns: 3000 },
  );
  t.ok(encoded > 1000, `encoded ${encoded} of 3000`);
  t.ok(decoded > 1000, `decoded ${decoded} of 3000`);
  t.ok(plain > 300, `${plain} with nothing but ASCII`);
});

void t.test('bytes that look like thousands of arrays in each other, or like a number past the end, are left alone', (t) => {
  const { packr, encoder, decode } = setUp();
  packShared(packr, encoder, { a: 1 });
  t.equal(decode(Buffer.alloc(4096, 0x91)), UNKNOWN);
  t.equal(decode(Buffer.alloc(4096, 0x40)), UNKNOWN);
  const nested = (depth: number): Buffer => Buffer.concat([Buffer.alloc(depth, 0x91), Buffer.from([7])]);
  t.same((decode(nested(64)) as unknown[]).flat(Infinity), [7]);
  t.equal(decode(nested(65)), UNKNOWN);
  const objects = (depth: number): Buffer => Buffer.concat([Buffer.alloc(depth, 0x40), Buffer.from([7])]);
  t.same(JSON.stringify(decode(objects(64))), `${'{"a":'.repeat(64)}7${'}'.repeat(64)}`);
  t.equal(decode(objects(65)), UNKNOWN);
  // An array of one, and what says that a number of so many bytes follows.
  for (const tag of [0xcb, 0xcc, 0xcd, 0xce, 0xd0, 0xd1, 0xd2, 0xd4]) {
    for (let length = 0; length <= 8; length++)
      t.equal(
        decode(Buffer.concat([Buffer.from([0x91, tag]), Buffer.alloc(length)])) === UNKNOWN,
        length !== BYTES_AFTER[tag],
        `tag ${tag}, ${length} bytes`,
      );
  }
  t.end();
});

/** An array that says it has as many elements as there are bytes, and what it ends with. */
function endingWith(length: number, end: number): Buffer {
  const bytes = Buffer.alloc(length, 1);
  bytes[0] = 0xdc;
  bytes.writeUInt16BE(length - 3, 1);
  bytes[length - 1] = end;
  return bytes;
}

void t.test('the head of a string as the last byte of a value, which may be the last of the memory', (t) => {
  const { decode } = setUp();
  for (const length of [8, 252, 256, 260, 1000, 4096]) {
    for (const end of [0xd9, 0xda, 0xdc, 0xa1, 0x91]) {
      t.equal(decode(endingWith(length, end)), UNKNOWN);
      t.equal(decode(endingWith(length, end), true), UNKNOWN);
    }
  }
  t.end();
});

void t.test('after the first thing that is wrong nothing more is read, least of all what lies behind the value', (t) => {
  const { structures, decoder, packr, encoder } = setUp();
  packShared(packr, encoder, { a: 1 });
  const length = 4096;
  const buffer = new SharedArrayBuffer(length + 64);
  const memory = { words: new Int32Array(buffer), bytes: Buffer.from(buffer), view: new DataView(buffer) };
  // Arrays in arrays, each as long as what is left; then what is no value; behind it, what looks like structures that nobody knows.
  for (let i = 0, at = 0; i < 60; i++, at += 3) {
    memory.bytes[at] = 0xdc;
    memory.bytes.writeUInt16BE(length - at - 3, at + 1);
  }
  memory.bytes[180] = 0xc1;
  memory.bytes.fill(0x5f, length);
  structures.loads = 0;
  const next = decoder.next.bind(decoder);
  let steps = 0;
  decoder.next = () => {
    steps++;
    return next();
  };
  t.equal(decoder.decode(memory, 0, length, true), UNKNOWN);
  t.equal(structures.loads, 0);
  t.equal(steps, 61);
  // A structure that nobody knows is looked for once.
  memory.bytes[180] = 0x5f;
  t.equal(decoder.decode(memory, 0, length, true), UNKNOWN);
  t.equal(structures.loads, 1);
  t.end();
});

void t.test('damaged bytes decode to something or to UNKNOWN, and never throw', async (t) => {
  const seed = testSeed(t);
  const { packr, encoder, decode } = setUp();
  const value = {
    id: 70_000,
    name: 'Ada',
    tags: ['x', 'a longer tag of more than forty-eight characters, all of them plain'],
    in: { deep: [1.5, null] },
  };
  const packed = packShared(packr, encoder, value);
  t.same(decode(packed), value);
  fc.assert(
    fc.property(fc.nat(packed.length - 1), fc.nat(255), fc.nat(packed.length), (at, byte, length) => {
      const damaged = Buffer.from(packed.subarray(0, length));
      if (at < length) damaged[at] = byte;
      if (length > 0) decode(damaged, (byte & 1) === 0);
      return true;
    }),
    { seed, numRuns: 5000 },
  );
});

void t.test('strings of every length, ASCII and not, as field and as element', async (t) => {
  const { packr, encoder, decode } = setUp();
  packShared(packr, encoder, { s: '', t: [] });
  const lengths = [...Array.from({ length: 130 }, (_, i) => i), 255, 256, 257, 4000, 5000];
  for (const length of lengths) {
    for (const end of ['x', 'é', '€', '🐎']) {
      const s = 'a'.repeat(length) + end;
      const value = { s, t: [s, length] };
      const packed = Buffer.from(packr.pack(value));
      const used = encoder.encode(value);
      if (used !== 0) t.ok(packed.equals(encoder.bytes.subarray(0, used)), `bytes of ${length} and ${end}`);
      else t.ok(s.length >= 2000, `encoded: ${length} and ${end}`);
      t.same(decode(packed), value, `value of ${length} and ${end}`);
      if (used !== 0) t.equal(encoder.isAscii, end === 'x');
      if (end === 'x') t.same(decode(packed, true), value, `value of ${length}, known to be ASCII`);
    }
  }
});

void t.test('long strings side by side, one of them with a character that is not ASCII, at every place and alignment', async (t) => {
  const { packr, encoder, decode } = setUp();
  packShared(packr, encoder, { a: '', b: '', c: '' });
  const seed = testSeed(t);
  const random = randomFrom(seed);
  let checked = 0;
  for (let length = 46; length <= 120; length++) {
    for (let place = -1; place < length; place++) {
      const plain = 'abcdefghij'.repeat(12).slice(0, length);
      const odd = place < 0 ? plain : plain.slice(0, place) + ['\u0080', 'é', '€', '🐎'][Math.floor(random() * 4)] + plain.slice(place + 1);
      const fill = 'x'.repeat(Math.floor(random() * 200));
      const value = { a: fill, b: odd, c: plain };
      const packed = Buffer.from(packr.pack(value));
      if (!isDeepStrictEqual(decode(packed), value)) t.fail(`${length} characters, place ${place}, behind ${fill.length}`);
      if (place < 0 && !isDeepStrictEqual(decode(packed, true), value)) t.fail(`${length} characters, known to be ASCII`);
      checked++;
    }
  }
  t.ok(checked > 6000, `${checked} values`);
});

void t.test('who keeps one short string of a long value does not keep the value', async (t) => {
  const { packr, encoder, decode } = setUp();
  const gc = collector();
  const kept: string[] = [];
  const keep = (many: number): void => {
    for (let i = 0; i < many; i++) {
      // A sixteenth of the value would be 235 bytes.
      const value = { title: `title ${i} `.padEnd(100, 'x'), tag: `tag ${i} `.padEnd(20, 'x'), body: `${i} `.padEnd(3600, 'y') };
      const packed = i === 0 ? packShared(packr, encoder, value) : Buffer.from(packr.pack(value));
      const back = decode(packed, (i & 1) === 0);
      if (back === UNKNOWN) t.fail('decoded by msgpackr');
      kept.push((back as { title: string }).title, (back as { tag: string }).tag);
    }
  };
  keep(100);
  gc();
  const before = process.memoryUsage().heapUsed;
  keep(4000);
  gc();
  const grown = (process.memoryUsage().heapUsed - before) / 4000;
  t.ok(grown < 1000, `${Math.round(grown)} bytes for each 120 characters that are kept`);
  t.equal(kept.length, 8200);
});

void t.test('what the encoder must leave to msgpackr', async (t) => {
  const { packr, encoder } = setUp();
  packShared(packr, encoder, { a: 1, b: 2 });
  class Point {
    a = 1;
    b = 2;
  }
  const inherited = Object.create({ b: 2 }) as Record<string, unknown>;
  inherited['a'] = 1;
  const cycle: Record<string, unknown> = { a: 1 };
  cycle['b'] = cycle;
  t.not(encoder.encode({ a: 1, b: 2 }), 0);
  t.equal(encoder.encode({ b: 2, a: 1 }), 0, 'another order');
  t.equal(encoder.encode({ a: 1 }), 0, 'a prefix');
  t.equal(encoder.encode(new Point()), 0, 'an instance');
  t.equal(encoder.encode(inherited), 0, 'inherited fields do not count');
  t.equal(encoder.encode(Object.assign(Object.create(null), { a: 1, b: 2 }) as object), 0, 'no prototype');
  t.equal(encoder.encode({ a: 1, b: 2n }), 0, 'bigint');
  t.not(encoder.encode({ a: 1, b: 2 }), 0);
  t.equal(encoder.encode({ a: 1, b: () => 1 }), 0, 'function');
  t.equal(encoder.encode({ a: 1, b: new Date() }), 0, 'date');
  t.equal(encoder.encode({ a: 1, b: 'x\ud800' }), 0, 'lone surrogate');
  t.equal(encoder.encode(cycle), 0, 'cycle');
  t.equal(encoder.encode({ a: 1, b: 'x'.repeat(20_000) }), 0, 'too long');
  t.equal(encoder.encode({ a: 1, b: Array.from({ length: 17_000 }, () => 1) }), 0, 'too many');
});

void t.test('the encoder comes back after a run of values that were not for it', async (t) => {
  const { packr, encoder } = setUp();
  packShared(packr, encoder, { a: 1 });
  for (let i = 0; i < 1000; i++) encoder.encode(new Map());
  let tries = 0;
  while (encoder.encode({ a: 1 }) === 0) tries++;
  t.ok(tries <= 32, `after ${tries} values`);
  t.not(encoder.encode({ a: 2 }), 0);
});

/** Puts a value into the scratch, behind no key. */
function putInto(scratch: Scratch, codec: ValueCodec, value: unknown): void {
  codec.prepare(value);
  scratch.keyLength = 0;
  codec.place(value);
}

void t.test('the type of a value says whether its strings are ASCII, whatever its getters write meanwhile', async (t) => {
  const { structures, scratch } = setUp();
  const codec = new ValueCodec(scratch, structures);
  const typeOf = (value: unknown): number => {
    putInto(scratch, codec, value);
    return scratch.valueType;
  };
  for (let i = 0; i < 3; i++) typeOf({ a: 'x', b: 'y' });
  const nested = (value: string, inner: unknown): unknown => ({
    a: 'x',
    get b() {
      typeOf(inner);
      return value;
    },
  });
  t.equal(typeOf({ a: 'x', b: 'y' }), TYPE_ASCII_MSGPACK);
  t.equal(typeOf({ a: 'x', b: 'é' }), TYPE_MSGPACK);
  t.equal(typeOf({ a: 'é', b: 'y' }), TYPE_MSGPACK);
  t.equal(typeOf({ a: 'x', b: ['y', 'é'] }), TYPE_MSGPACK);
  t.equal(typeOf(nested('y', { a: 'é', b: 'é' })), TYPE_ASCII_MSGPACK);
  t.equal(typeOf(nested('é', { a: 'x', b: 'y' })), TYPE_MSGPACK);
  // Left to msgpackr, which does not say.
  t.equal(typeOf(new Map([['a', nested('é', { a: 'x', b: 'y' })]])), TYPE_MSGPACK);
  t.equal(typeOf(new Map([['a', 'x']])), TYPE_MSGPACK);
});

void t.test('a getter that encodes, and one that throws', async (t) => {
  const { structures, scratch } = setUp();
  const codec = new ValueCodec(scratch, structures);
  const encode = (value: unknown): Buffer => {
    putInto(scratch, codec, value);
    return Buffer.from(scratch.bytes.subarray(8, 8 + scratch.valueLength));
  };
  const plain = { a: 1, b: 'inner', c: 3 };
  for (let i = 0; i < 3; i++) encode(plain);
  const expected = encode({ a: 'before', b: 'got', c: 'after' });
  let inner: Buffer | undefined;
  const tricky = {
    a: 'before',
    get b() {
      inner = encode(plain);
      return 'got';
    },
    c: 'after',
  };
  t.ok(encode(tricky).equals(expected));
  t.ok(inner?.equals(encode(plain)));
  t.throws(() =>
    encode({
      a: 1,
      get b() {
        throw new Error('mine');
      },
      c: 1,
    }),
  );
  t.ok(encode(tricky).equals(expected), 'works on after a getter threw');
});

void t.test(
  'regression: a value over memory that grew between its encoding and its copying was longer than what had been reserved for it',
  (t) => {
    const scratch = new Scratch(1);
    const codec = new ValueCodec(scratch, new Structures());
    const memory = new SharedArrayBuffer(70_000, { maxByteLength: 1_000_000 });
    const value = new Uint8Array(memory);
    codec.prepare(value);
    codec.place(value);
    memory.grow(500_000);
    t.equal(value.length, 500_000);
    t.equal(scratch.valueLength, 70_000);
    t.equal(scratch.valueBytes?.length, 70_000);
    t.end();
  },
);

void t.test('a byte array that grows while it is being copied to the scratch is refused', (t) => {
  const scratch = new Scratch(1);
  const codec = new ValueCodec(scratch, new Structures());
  const memory = new SharedArrayBuffer(100, { maxByteLength: 1000 });
  const value = new Uint8Array(memory);
  // As if another thread made it grow at this moment.
  Object.defineProperty(scratch.bytes, 'set', {
    value: (bytes: Uint8Array, at: number): void => {
      if (memory.byteLength < 200) memory.grow(200);
      Uint8Array.prototype.set.call(scratch.bytes, bytes, at);
    },
  });
  codec.prepare(value);
  t.throws(() => codec.place(value), { code: 'FV_VALUE' });
  codec.prepare(value);
  codec.place(value);
  t.equal(scratch.valueLength, 200);
  t.end();
});

void t.test('a getter that prepares a value of another kind leaves the outer one what it is', (t) => {
  const scratch = new Scratch(1);
  const codec = new ValueCodec(scratch, new Structures());
  const getting = {
    get inner(): number {
      codec.prepare(new Uint8Array(3));
      codec.place(new Uint8Array(3));
      return 1;
    },
  };
  // Plain objects are encoded here, Maps by msgpackr.
  for (const outer of [{ getting }, new Map([['a', getting]])]) {
    codec.prepare(outer);
    codec.place(outer);
    t.ok(scratch.valueType === TYPE_MSGPACK || scratch.valueType === TYPE_ASCII_MSGPACK, `type ${scratch.valueType}`);
  }
  t.end();
});
