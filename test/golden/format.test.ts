/**
 * The format on disk, byte by byte: the worked example of docs/format.md is what the code writes, and
 * the golden store that an earlier build wrote still opens.
 */

import t from 'tap';
import fs from 'node:fs';
import path from 'node:path';
import { open } from '../../src/index.js';
import { lsnLow } from '../../src/base/lsn.js';
import { Checksum } from '../../src/platform/checksum.js';
import {
  FORMAT_VERSION,
  FRAME_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
  decodeFrameHeader,
  decodeSegmentHeader,
  encodeIdentity,
  encodeSegmentHeader,
  segmentSeed,
} from '../../src/wal/format.js';
import { decodeManifest, encodeManifest } from '../../src/checkpoint/format.js';
import { tempFolder } from '../support/temp.js';

const root = new URL('../../../', import.meta.url).pathname;
const checksum = await Checksum.load();
const STORE_ID = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');

/** The hex block of docs/format.md under a heading. */
function example(heading: string): Buffer {
  const text = fs.readFileSync(path.join(root, 'docs/format.md'), 'utf8');
  const section = text.slice(text.indexOf(heading));
  const block = /```hex\n([\s\S]*?)```/.exec(section)?.[1] ?? '';
  return Buffer.from(block.replace(/^[0-9a-f]{4,}:|\s*;.*$/gm, '').replace(/\s/g, ''), 'hex');
}

/** Makes the store of the example: a fixed id, one put, closed in order. */
async function makeExample(folder: string): Promise<Buffer> {
  fs.writeFileSync(path.join(folder, 'store.fv'), encodeIdentity(checksum, STORE_ID, 1_700_000_000_000));
  const db = await open(folder, { walSegmentBytes: 65_536 });
  await db.put('hello', 'world');
  await db.close();
  return fs.readFileSync(path.join(folder, '000000000001.wal'));
}

void t.test('the worked example of docs/format.md', async (t) => {
  const folder = tempFolder(t);
  const written = await makeExample(folder);
  t.equal(FORMAT_VERSION, 3, 'a new version needs a new example, a new golden store and a line in CHANGELOG.md');
  const header = example('### Segment header, worked');
  const frame = example('### Frame, worked');
  const identity = example('### Identity file, worked');
  t.equal(written.subarray(0, header.length).toString('hex'), header.toString('hex'));
  t.ok(written.subarray(header.length, SEGMENT_HEADER_BYTES).every((byte) => byte === 0));
  t.equal(written.subarray(SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + frame.length).toString('hex'), frame.toString('hex'));
  t.equal(fs.readFileSync(path.join(folder, 'store.fv')).toString('hex'), identity.toString('hex'));
});

void t.test('the golden store opens', async (t) => {
  const folder = tempFolder(t);
  fs.cpSync(path.join(root, 'test/golden/store-v1'), folder, { recursive: true });
  const db = await open(folder, { walSegmentBytes: 65_536 });
  t.equal(db.get('hello'), 'world');
  t.same(db.get('object'), { id: 7, name: 'seven', nested: { list: [1, 2, 3] } });
  t.same(db.get('object2'), { id: 8, name: 'eight', nested: { list: [] } });
  t.same(db.get(Buffer.from([0, 255])), new Uint8Array([1, 2, 3]));
  t.equal(db.get('gone'), undefined);
  t.equal(db.get('float'), 0.5);
  t.equal(db.get('utf8'), 'ž🐎');
  t.equal(db.size, 7);
  await db.close();
});

void t.test('the worked example of a checkpoint', async (t) => {
  const folder = tempFolder(t);
  fs.writeFileSync(path.join(folder, 'store.fv'), encodeIdentity(checksum, STORE_ID, 1_700_000_000_000));
  const db = await open(folder, { walSegmentBytes: 65_536 });
  await db.put('hello', 'world');
  await db.checkpoint();
  await db.close();
  t.equal(fs.readFileSync(path.join(folder, '000000000001-000.part')).toString('hex'), example('### Part, worked').toString('hex'));
  const file = path.join(folder, '000000000001.checkpoint');
  const manifest = decodeManifest(checksum, fs.readFileSync(file), STORE_ID, 1, file);
  const fixed = encodeManifest(checksum, { ...manifest, createdMs: 1_700_000_000_000 });
  t.equal(fixed.toString('hex'), example('### Manifest, worked').toString('hex'));
  t.equal(fixed.readUInt32LE(16), 3, 'a new version needs a new example, a new golden store and a line in CHANGELOG.md');
});

void t.test('the golden store with a checkpoint opens', async (t) => {
  const folder = tempFolder(t);
  fs.cpSync(path.join(root, 'test/golden/store-v1-checkpoint'), folder, { recursive: true });
  const db = await open(folder, { walSegmentBytes: 65_536 });
  t.same(db.get('object0'), { id: 0, name: 'n0', nested: { list: [0] } });
  t.same(db.get('object1'), { id: 11, name: 'after', nested: { list: [] } });
  t.same(db.get('object2'), { id: 2, name: 'n2', nested: { list: [2] } });
  t.same(db.get(Buffer.from([0, 255])), new Uint8Array([1, 2, 3]));
  t.equal(db.get('gone'), undefined);
  t.equal(db.get('float'), 0.5);
  t.equal(db.get('utf8'), 'ž🐎');
  t.equal(db.get('new'), null);
  t.equal(db.size, 7);
  await db.close();
});

void t.test('the golden stores of version 2 open', async (t) => {
  for (const name of ['store-v2', 'store-v2-checkpoint']) {
    const folder = tempFolder(t);
    fs.cpSync(path.join(root, 'test/golden', name), folder, { recursive: true });
    const db = await open(folder, { walSegmentBytes: 65_536 });
    t.equal(db.get('hello'), name === 'store-v2' ? 'world' : 'after');
    t.same(db.get('object'), { id: 7, name: 'seven', nested: { list: [1, 2, 3] } });
    t.same(db.get('far'), { id: 9, name: 'nine', nested: { list: [] } });
    t.equal(db.getEntry('far')?.expiresAt, 8e15);
    t.equal(db.get('past'), undefined, 'it had expired');
    t.equal(db.has('object2'), name === 'store-v2');
    t.equal(db.get('gone'), undefined);
    t.same([...db.keys({ gte: 'f', lt: 'g' })], ['far', 'float']);
    await db.close();
  }
});

void t.test('the golden stores of version 3 open', async (t) => {
  const typed = Buffer.from('07000b', 'hex');
  for (const name of ['store-v3', 'store-v3-checkpoint']) {
    const folder = tempFolder(t);
    fs.cpSync(path.join(root, 'test/golden', name), folder, { recursive: true });
    const hasCheckpoint = name !== 'store-v3';
    const written = fs.readFileSync(path.join(folder, hasCheckpoint ? '000000000001-000.part' : '000000000001.wal'));
    t.ok(written.includes(Buffer.concat([typed, Buffer.from([hasCheckpoint ? 0 : 1])])), 'a value of type 11 under a key of 7 bytes');
    const db = await open(folder, { walSegmentBytes: 65_536 });
    t.same(db.get('object0'), { id: 0, name: 'zero', nested: { list: [] } });
    t.same(
      db.get('object1'),
      hasCheckpoint ? { id: 11, name: 'after', nested: { list: ['c'] } } : { id: 1, name: 'one', nested: { list: ['a', 'b'] } },
    );
    t.same(db.get('object2'), hasCheckpoint ? undefined : { id: 2, name: 'two', nested: { list: [1, 2, 3] } });
    t.same(db.get('foreign'), { id: 3, name: 'drei ž', nested: { list: ['🐎'] } });
    t.same(
      db.get('record'),
      Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`field${i}`, String.fromCharCode(97 + i).repeat(100)])),
    );
    t.equal(db.getEntry('far')?.expiresAt, 8e15);
    t.equal(db.get('gone'), undefined);
    t.equal(db.size, hasCheckpoint ? 9 : 10);
    await db.close();
  }
});

void t.test('stores of versions 1 and 2 go on in a segment of version 3', async (t) => {
  for (const name of ['store-v1', 'store-v2']) {
    const folder = tempFolder(t);
    fs.cpSync(path.join(root, 'test/golden', name), folder, { recursive: true });
    const before = fs.readFileSync(path.join(folder, '000000000001.wal'));
    const db = await open(folder, { walSegmentBytes: 65_536 });
    await db.put('new', 'value', { ttl: 100_000 });
    const objects = ['u', 'v', 'w', 'x', 'y', 'z'].map((text) => ({ text }));
    for (const object of objects) await db.put(object.text, object);
    await db.close();
    t.same(fs.readFileSync(path.join(folder, '000000000001.wal')), before, 'the old segment is as it was');
    const next = fs.readFileSync(path.join(folder, '000000000002.wal'));
    t.equal(next.readUInt32LE(16), 3);
    t.ok(next.includes(Buffer.from('01000b01', 'hex')), 'a value of type 11 under a key of 1 byte');
    const again = await open(folder, { walSegmentBytes: 65_536 });
    t.equal(again.get('hello'), 'world');
    t.equal(again.get('new'), 'value');
    for (const object of objects) t.same(again.get(object.text), object);
    await again.close();
  }
});

void t.test('headers survive encoding and decoding', (t) => {
  const header = { version: FORMAT_VERSION, storeId: STORE_ID, number: 2 ** 33 + 5, firstLsn: 2 ** 40 + 1, bytes: 2 ** 31 };
  t.same(decodeSegmentHeader(checksum, encodeSegmentHeader(checksum, header), 'f'), header);
  t.not(segmentSeed(checksum, STORE_ID, 1), segmentSeed(checksum, STORE_ID, 2));
  t.equal(decodeFrameHeader(Buffer.alloc(FRAME_HEADER_BYTES), 0), undefined);
  t.equal(lsnLow(2 ** 32 + 5), 5);
  t.end();
});
