/** Bugs that were found, each by its name. */

import t from 'tap';
import * as L from '../../src/memory/layout.js';
import fs from 'node:fs';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { FlashVectorError, open } from '../../src/index.js';
import { openIn } from '../../src/engine/open.js';
import { CONTROL_RING_TAIL } from '../../src/memory/layout.js';
import { createControl } from '../../src/memory/control.js';
import { CHUNK_BYTES, REGION_TOP, createRegionBuffer } from '../../src/memory/region.js';
import { Staging } from '../../src/memory/staging.js';
import { FRAME_CLEAN, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, decodeFrameHeader } from '../../src/wal/format.js';
import { faultyFiles } from '../support/faulty-files.js';
import { tempFolder } from '../support/temp.js';

const fixture = (name: string): URL => new URL(`../fixture/${name}.js`, import.meta.url);

void t.test('a record that ends exactly at the end of the ring has no pad behind it', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { ringBytes: 65_536 });
  for (let i = 0; i < 3000; i += 100) {
    // 64 bytes a record: they fill the ring without a rest.
    await Promise.all(Array.from({ length: 100 }, (_, n) => db.put(`k${String(i + n).padStart(7, '0')}`, 'v'.repeat(32))));
  }
  await db.close();
  db = await open(folder);
  t.equal(db.size, 3000);
  await db.close();
});

void t.test('a delete of a key too long for the ring is a delete', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { ringBytes: 65_536 });
  for (const length of [8_100, 8_192, 65_535]) {
    const key = 'x'.repeat(length);
    await db.put(key, { a: 1 });
    await db.del(key);
    await db.del(`${key.slice(1)}y`);
    t.equal(db.get(key), undefined);
  }
  t.equal(db.size, 0);
  await db.close();
  db = await open(folder);
  t.equal(db.size, 0);
  await db.close();
});

void t.test('a large value read in vain leaves nothing behind for a small one', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  await db.put('k', { s: 'small' });
  const worker = new Worker(fixture('alternate'), { workerData: { handle: db.handle } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  for (const until = performance.now() + 1500; performance.now() < until;) {
    const value = db.get('k') as { s: string };
    if (value.s !== 'small' && value.s !== 'large'.repeat(20_000)) t.fail(`got ${value.s.slice(0, 20)}`);
    if ((performance.now() & 15) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  worker.postMessage('stop');
  await ended;
  await db.close();
});

/** Offset of the first frame behind the closing frame, found by walking the frames. */
function behindClosingFrame(bytes: Buffer): number {
  for (let at = SEGMENT_HEADER_BYTES; ;) {
    const header = decodeFrameHeader(bytes, at);
    if (header === undefined) throw new Error('no closing frame');
    at += FRAME_HEADER_BYTES + header.payloadBytes;
    if ((header.flags & FRAME_CLEAN) !== 0) return at;
  }
}

void t.test('damage behind an earlier closing frame is damage', async (t) => {
  const folder = tempFolder(t);
  const first = await open(folder);
  await first.put('first', 1);
  await first.close();
  const child = spawn(process.execPath, [fixture('put-and-hang').pathname, folder, '20'], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const file = path.join(folder, '000000000001.wal');
  const bytes = fs.readFileSync(file);
  const offset = behindClosingFrame(bytes);
  bytes[offset + 80] ^= 1;
  fs.writeFileSync(file, bytes);
  await t.rejects(open(folder), { code: 'FV_CORRUPT', file, offset });
  bytes[offset + 80] ^= 1;
  fs.writeFileSync(file, bytes);
  const db = await open(folder);
  t.equal(db.size, 21);
  await db.close();
});

void t.test('what was cut off behind a closing frame never comes back', async (t) => {
  const folder = tempFolder(t);
  const first = await open(folder);
  await first.put('first', 1);
  await first.close();
  const child = spawn(process.execPath, [fixture('put-and-hang').pathname, folder, '1'], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const file = path.join(folder, '000000000001.wal');
  const bytes = fs.readFileSync(file);
  const offset = behindClosingFrame(bytes);
  const torn = Buffer.from(bytes);
  torn[offset + 80] ^= 1;
  fs.writeFileSync(file, torn);
  const db = await open(folder);
  t.equal(db.size, 1, 'the torn frame was the very last: it is cut off');
  await db.put('other', 2);
  await db.close();
  t.ok(fs.existsSync(path.join(folder, '000000000002.wal')), 'writing went on in a new segment');
  const again = await open(folder);
  t.same(new Set(again.keys()), new Set(['first', 'other']));
  await again.close();
});

void t.test('large values above 2 GiB in a region', async (t) => {
  const db = await open(tempFolder(t), { shards: 1 });
  const region = new Int32Array(db.handle.shards[0], 0, 65_536 / 4);
  // Memory that nothing touches costs nothing: pretend that the first 2 GiB are in use.
  db.handle.shards[0].grow(2 ** 31 + 4 * 1024 * 1024);
  region[0] = db.handle.shards[0].byteLength / 65_536;
  const top = region[REGION_TOP];
  const map = region[256];
  region[2] = 64;
  for (let i = 1; i < 64; i++) region[256 + i] = top + i;
  t.ok(map > 0);
  region[REGION_TOP] = 2 ** 31 / CHUNK_BYTES + 10;
  for (const size of [100, 70_001, 100_002, 1_000_003]) {
    const value = Buffer.alloc(size, size & 255);
    await db.put(`v${size}`, value);
    t.ok((db.get(`v${size}`) as Buffer).equals(value), `${size} bytes`);
  }
  await db.close();
});

void t.test('keys prepared to collide under any seed do not', async (t) => {
  const db = await open(tempFolder(t), { shards: 1, maxMemoryBytes: 8 * 1024 * 1024, ringBytes: 65_536, durability: 'memory' });
  const operations = Array.from({ length: 600 }, (_, n) => {
    const key = new Uint8Array(80);
    const words = new Uint32Array(key.buffer);
    for (let bit = 0; bit < 10; bit++) {
      if ((n >>> bit) & 1) {
        words[bit * 2] ^= 0x8000_0000;
        words[bit * 2 + 1] ^= 0x8001_0000;
      }
    }
    return { type: 'put' as const, key, value: n };
  });
  await db.batch(operations);
  t.equal(db.size, 600);
  t.ok(db.stats().shards[0].segments < 32, 'their hashes differ');
  await db.close();
});

void t.test('at the memory cap, batches that need no memory go through', async (t) => {
  const folder = tempFolder(t);
  const options = { shards: 4, maxMemoryBytes: 5 * 1024 * 1024, ringBytes: 65_536 };
  let db = await open(folder, options);
  let count = 0;
  for (let full = false; !full;) {
    await db.put(`key${count}`, 'x'.repeat(500)).then(
      () => count++,
      () => (full = true),
    );
  }
  await db.batch([
    { type: 'del', key: 'key0' },
    { type: 'del', key: 'none' },
  ]);
  await db.batch(
    Array.from({ length: count - 1 }, (_, i) => ({ type: 'del' as const, key: `key${i + 1}` })).slice(0, Math.floor(count * 0.9)),
  );
  await db.batch(Array.from({ length: 100 }, (_, i) => ({ type: 'put' as const, key: `new${i}`, value: 'y'.repeat(500) })));
  for (let i = 0; ; i++)
    if (
      !(await db.put(`fill${i}`, 'z'.repeat(500)).then(
        () => true,
        () => false,
      ))
    )
      break;
  const size = db.size;
  await db.close();
  for (let round = 0; round < 3; round++) {
    db = await open(folder, options);
    t.equal(db.size, size, 'a store at its cap can be opened again');
    await db.close();
  }
});

void t.test('a staged record is done with however far the ring has gone round', (t) => {
  const control = createControl({ shards: 1, hashSeed: 1, durability: 2, maxMemoryBytes: Number.MAX_SAFE_INTEGER, indexed: false });
  const staging = new Staging(createRegionBuffer(2 ** 30), control, 0);
  const unit = staging.take(40 * 1024 * 1024);
  staging.bind(unit, 100, 1, 0);
  t.equal(staging.take(40 * 1024 * 1024), 0, 'not yet');
  control.storeLsn(96, 1);
  Atomics.store(control.words, CONTROL_RING_TAIL, (100 + 2 ** 31 + 5) | 0);
  t.not(staging.take(40 * 1024 * 1024), 0);
  t.end();
});

void t.test('a reader does not open a store that is being written', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder);
  await t.rejects(open(folder, { readOnly: true }), { code: 'FV_LOCKED', pid: process.pid });
  await db.close();
});

void t.test('deferred conditional writes resolve with their own LSN', async (t) => {
  const db = await openIn({ files: faultyFiles({ delayMs: 1 }) }, tempFolder(t), { ringBytes: 65_536 });
  const lsns = await Promise.all(Array.from({ length: 300 }, (_, i) => db.put(`k${i}`, 'x'.repeat(1000), { ifAbsent: true })));
  lsns.forEach((lsn, i) => {
    if (db.getEntry(`k${i}`)?.lsn !== lsn) t.fail(`k${i}`);
  });
  t.ok(db.stats().contention.deferrals > 0);
  await db.close();
});

void t.test('closing finishes deferred updates', async (t) => {
  const db = await openIn({ files: faultyFiles({ delayMs: 1 }) }, tempFolder(t), { ringBytes: 65_536 });
  const calls = Array.from({ length: 100 }, (_, i) => [
    db.put(`p${i}`, 'x'.repeat(1000)),
    db.update(`u${i}`, () => 'y'.repeat(1000)),
    db.increment(`n${i}`),
  ]).flat();
  const results = Promise.allSettled(calls);
  await db.close();
  for (const result of await results) if (result.status === 'rejected') t.fail(String(result.reason));
});

void t.test('objects that cannot be stored are refused, not emptied', async (t) => {
  const db = await open(tempFolder(t));
  for (const value of [Promise.resolve(1), new WeakMap(), new WeakSet(), new SharedArrayBuffer(8)]) {
    await t.rejects(db.put('k', value), { code: 'FV_VALUE' });
  }
  await t.rejects(
    db.update('k', async () => 1),
    { code: 'FV_VALUE' },
  );
  await db.put('n', 1e308);
  await t.rejects(db.increment('n', 1e308), { code: 'FV_VALUE' });
  await db.close();
});

void t.test('flush does not take back the LSN of writes that share its promise', async (t) => {
  const db = await open(tempFolder(t), { durability: 'interval' });
  for (let i = 0; i < 300; i++) {
    void db.put('m', i, { durability: 'memory' });
    const flushed = db.flush();
    let own = 0;
    await new Promise<void>((resolve, reject) => {
      queueMicrotask(() => {
        void db.put('i', i).then(async () => {
          const lsn = db.put('b', i, { durability: 'sync' });
          own = db.getEntry('b')?.lsn ?? Infinity;
          if ((await lsn) < own) reject(new Error(`resolved with ${await lsn}, its LSN is ${own}`));
          else resolve();
        }, reject);
      });
    });
    if (db.stats().log.durableLsn < own) t.fail('acknowledged before it was durable');
    await flushed;
  }
  await db.close();
});

void t.test('a record that ends exactly at the end of the ring is acknowledged at once', async (t) => {
  // Were it not, each of these would wait for the interval, a minute.
  for (const durability of ['sync', 'interval'] as const) {
    const db = await open(tempFolder(t), { durability, ringBytes: 65_536, syncIntervalMs: 60_000 });
    for (let i = 0; i < 2100; i++) await db.put(`k${String(i).padStart(7, '0')}`, 'v'.repeat(32));
    t.equal(db.size, 2100);
    await db.close();
  }
});

void t.test('staged records of one turn are one group', async (t) => {
  const db = await open(tempFolder(t));
  await Promise.all(Array.from({ length: 200 }, (_, i) => db.put(`k${i}`, Buffer.alloc(70_000, i))));
  const { syncs } = db.stats().log;
  t.ok(syncs < 100, `${syncs} syncs for 200 records`);
  await db.close();
});

void t.test('a getter may write a value that takes another buffer', async (t) => {
  const db = await open(tempFolder(t));
  const value = {
    before: 'x'.repeat(100),
    get inner(): string {
      void db.put('large', { text: 'y'.repeat(2_000_000) });
      return 'seen';
    },
    after: Array.from({ length: 100 }, (_, i) => i),
  };
  await db.put('outer', value);
  t.same(db.get('outer'), { before: 'x'.repeat(100), inner: 'seen', after: Array.from({ length: 100 }, (_, i) => i) });
  t.equal((db.get('large') as { text: string }).text.length, 2_000_000);
  await db.close();
});

void t.test('a getter may write while a value is searched for lone surrogates', async (t) => {
  const db = await open(tempFolder(t));
  // A Map is packed by msgpackr, and U+FFFD is what it makes of a lone surrogate: the value is looked at once more.
  for (const text of ['\ufffd', '\ufffd'.repeat(3000)]) {
    let runs = 0;
    const value = {
      map: new Map([['x', 1]]),
      text,
      get inner(): number {
        runs++;
        void db.put('inner', { other: text });
        return 1;
      },
    };
    await db.put('outer', value);
    t.ok(runs > 1, 'it was');
    t.same(db.get('outer'), { map: new Map([['x', 1]]), text, inner: 1 });
    t.same(db.get('inner'), { other: text });
  }
  await t.rejects(db.put('outer', { map: new Map(), text: '\ud800' }), { code: 'FV_VALUE' });
  t.ok(db.has('inner'));
  await db.close();
});

void t.test('increment takes every key that put takes', async (t) => {
  const db = await open(tempFolder(t), { ringBytes: 65_536 });
  for (const key of ['x'.repeat(9000), 'x'.repeat(65_535)]) {
    t.equal(await db.increment(key, 2), 2);
    t.equal(await db.increment(key, 3), 5);
  }
  await db.close();
});

void t.test('a thread that dies in a large put leaves nothing staged', async (t) => {
  const db = await open(tempFolder(t));
  for (let round = 0; round < 4; round++) {
    const worker = new Worker(fixture('large-puts'), { workerData: { handle: db.handle } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await new Promise((resolve) => setTimeout(resolve, 20 + round * 13));
    await worker.terminate();
    await db.put('own', Buffer.alloc(10_000_000, round));
  }
  t.equal(db.status, 'open');
  await db.close();
});

void t.test('a thread that dies inside a batch: the batch is whole, the store goes on', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder);
  for (let round = 0; round < 12; round++) {
    const worker = new Worker(fixture('large-batches'), { workerData: { handle: db.handle } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await new Promise((resolve) => setTimeout(resolve, 30 + round * 7));
    await worker.terminate();
    await db.put('own', round);
    const found = new Set(Array.from({ length: 20_000 }, (_, n) => db.get(`key${n}`)));
    t.ok(found.size <= 1, 'a batch is there as a whole');
  }
  t.equal(db.status, 'open');
  await db.close();
});

void t.test('a thread that died while it stored the oldest snapshot does not stop its burial', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const words = new Int32Array(db.handle.control);
  const kept = db.snapshot();
  // The first of the three words of another LSN: all that the dead thread came to.
  words[L.CONTROL_SNAPSHOT_OLDEST] = 77;
  const next = db.snapshot();
  next.close();
  kept.close();
  await db.put('a', 1);
  t.equal(db.stats().snapshots.open, 0);
  t.equal(words[L.CONTROL_SNAPSHOT_OLDEST], words[L.CONTROL_SNAPSHOT_OLDEST + 2]);
  await db.close();
});

void t.test('a key encoding of its own does not stop expired entries from being removed', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', keyEncoding: 'ordered' });
  await db.put([1, 'a'] as never, 1, { ttl: 5 });
  for (let i = 0; i < 300 && db.size > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  t.equal(db.size, 0);
  await db.close();
});

void t.test('clear works at the memory cap', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4, maxMemoryBytes: 5 * 1024 * 1024, ringBytes: 65_536 });
  let full = false;
  for (let i = 0; !full; i++) await db.put(`key${i}`, 'x'.repeat(500)).catch(() => (full = true));
  await db.clear();
  t.equal(db.size, 0);
  t.equal(db.count(), 0);
  await db.put('again', 1);
  await db.close();
});

void t.test('what cannot even be looked at is refused with the error that the call has for it', async (t) => {
  const db = await open(tempFolder(t));
  const trap = (): never => {
    throw new Error('a trap');
  };
  const { proxy, revoke } = Proxy.revocable([], {});
  revoke();
  const { proxy: called, revoke: revokeCalled } = Proxy.revocable(() => undefined, {});
  revokeCalled();
  for (const odd of [new Proxy({}, { getPrototypeOf: trap }), proxy, called]) {
    await t.rejects(db.put('key', 1, { durability: odd as never }), FlashVectorError);
    await t.rejects(open(odd as never), { name: 'TypeError', message: /directory must be a path/ });
  }
  await db.close();
});

void t.test('a time to live that is too long is refused with the longest', async (t) => {
  const db = await open(tempFolder(t));
  await t.rejects(db.put('a', 1, { ttl: Number.MAX_SAFE_INTEGER }), { code: 'FV_OPTION', message: /at most 8640000000000000/ });
  await t.rejects(db.put('a', 1, { expiresAt: Number.MAX_SAFE_INTEGER }), { code: 'FV_OPTION', message: /at most 8640000000000000/ });
  await db.put('a', 1, { ttl: 8.64e15 });
  t.equal(db.get('a'), 1);
  await db.close();
});
