/** A log that fails under a live store: what is pending rejects, nothing acknowledged is lost, reads go on. */

import t from 'tap';
import { FlashVectorError, open } from '../../src/index.js';
import { openIn } from '../../src/engine/open.js';
import { faultyFiles, type Faults } from '../support/faulty-files.js';
import { tempFolder } from '../support/temp.js';

const cases: [name: string, faults: Faults][] = [
  ['EIO from write', { failWrite: 12, code: 'EIO' }],
  ['ENOSPC from write', { failWrite: 12, code: 'ENOSPC' }],
  ['EIO from sync', { failSync: 8, code: 'EIO' }],
  ['ENOSPC from sync, short writes', { failSync: 8, code: 'ENOSPC', shortWrites: 3 }],
];

for (const [name, faults] of cases) {
  for (const durability of ['sync', 'interval'] as const) {
    void t.test(`${name}, durability ${durability}`, async (t) => {
      const folder = tempFolder(t);
      const db = await openIn({ files: faultyFiles(faults) }, folder, { durability, syncIntervalMs: 5 });
      const events: string[] = [];
      db.on('error', (error) => events.push(`error ${(error as FlashVectorError).code}`));
      db.on('readonly', () => events.push('readonly'));
      const acknowledged: number[] = [];
      let failure: unknown;
      for (let i = 0; failure === undefined && i < 5000; i++) {
        try {
          await db.put(`key${i}`, i);
          acknowledged.push(i);
        } catch (error) {
          failure = error;
        }
      }
      t.match(failure, { name: 'FlashVectorError' });
      t.match((failure as FlashVectorError).code, /FV_IO|FV_READONLY/);
      await new Promise((resolve) => setTimeout(resolve, 20));
      t.same(events.sort(), ['error FV_IO', 'readonly']);
      t.equal(db.status, 'readonly');
      await t.rejects(db.put('x', 1), { code: 'FV_READONLY', cause: { code: 'FV_IO', cause: { code: faults.code } } });
      await t.rejects(db.batch([{ type: 'put', key: 'x', value: 1 }]), { code: 'FV_READONLY' });
      t.equal(db.get('key0'), 0, 'reads go on');
      await t.rejects(db.close(), { code: 'FV_IO' });
      t.equal(db.status, 'closed');
      const again = await open(folder);
      for (const i of acknowledged) if (again.get(`key${i}`) !== i) t.fail(`key${i} was acknowledged`);
      t.ok(acknowledged.length > 0);
      await again.put('works', true);
      await again.close();
    });
  }
}

void t.test('many pending writes all reject', async (t) => {
  const folder = tempFolder(t);
  const db = await openIn({ files: faultyFiles({ failSync: 3, delayMs: 5 }) }, folder, { ringBytes: 65_536 });
  const results = await Promise.allSettled(Array.from({ length: 3000 }, (_, i) => db.put(`key${i}`, 'x'.repeat(200))));
  const kept = results.filter((result) => result.status === 'fulfilled').length;
  for (const result of results) {
    if (result.status === 'rejected' && !['FV_IO', 'FV_READONLY'].includes((result.reason as FlashVectorError).code))
      t.fail(String(result.reason));
  }
  t.ok(kept < 3000, `${kept} were acknowledged`);
  await t.rejects(db.close(), { code: 'FV_IO' });
  const again = await open(folder);
  for (let i = 0; i < kept; i++) if (!again.has(`key${i}`)) t.fail(`key${i} was acknowledged`);
  await again.close();
});

void t.test('a producer that outruns the disk is slowed, and the event loop turns', async (t) => {
  const folder = tempFolder(t);
  const db = await openIn({ files: faultyFiles({ delayMs: 2 }) }, folder, { ringBytes: 65_536 });
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  let sum = 0;
  await Promise.all(
    Array.from({ length: 64 }, async (_, n) => {
      for (let i = 0; i < 60; i++) {
        await db.put(`key${n}/${i}`, 'y'.repeat(1500));
        sum++;
      }
    }),
  );
  clearInterval(timer);
  t.equal(sum, 64 * 60);
  t.ok(turns > 20, `${turns} turns`);
  t.ok(db.stats().contention.deferrals > 0, 'writes had to wait for room');
  // In order although deferred: the last write of each key wins.
  const order = Array.from({ length: 500 }, (_, i) => db.put('same', `${i}`.padEnd(1000)));
  void db.put('same', 'last');
  await Promise.all(order);
  await db.flush();
  t.equal(db.get('same'), 'last');
  await db.close();
  const again = await open(folder);
  t.equal(again.size, 64 * 60 + 1);
  t.equal(again.get('same'), 'last');
  await again.close();
});

void t.test('values larger than the ring, alone and in batches', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { ringBytes: 65_536, walSegmentBytes: 1024 * 1024 });
  const sizes = [8_000, 8_170, 8_192, 40_000, 65_536, 70_000, 1_000_000, 20_000_000];
  for (const size of sizes) {
    await db.put(`bytes${size}`, new Uint8Array(size).fill(size & 255));
    await db.put(`text${size}`, 'ž'.repeat(size / 2));
  }
  await db.batch(sizes.map((size) => ({ type: 'put' as const, key: `batch${size}`, value: Buffer.alloc(size, 3) })));
  await Promise.all(Array.from({ length: 40 }, (_, i) => db.put('large', Buffer.alloc(5_000_000, i))));
  const check = (): void => {
    for (const size of sizes) {
      t.ok(Buffer.from(db.get(`bytes${size}`) as Uint8Array).equals(Buffer.alloc(size, size & 255)), `${size} bytes`);
      t.ok(db.get(`text${size}`) === 'ž'.repeat(size / 2));
      t.ok((db.get(`batch${size}`) as Buffer).equals(Buffer.alloc(size, 3)));
    }
    t.ok((db.get('large') as Buffer).equals(Buffer.alloc(5_000_000, 39)));
  };
  check();
  await db.close();
  db = await open(folder);
  check();
  await db.close();
});

void t.test('a full memory refuses writes and keeps what is there', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { maxMemoryBytes: 5 * 1024 * 1024, ringBytes: 65_536, shards: 4 });
  let stored = 0;
  let error: unknown;
  for (; error === undefined; stored++) await db.put(`key${stored}`, 'z'.repeat(1000)).catch((cause: unknown) => (error = cause));
  t.match(error, { code: 'FV_MEMORY_FULL' });
  t.ok(db.stats().memory.shardBytes <= 4 * 1024 * 1024);
  await t.rejects(db.batch(Array.from({ length: 2000 }, (_, i) => ({ type: 'put' as const, key: `batch${i}`, value: 'z'.repeat(1000) }))), {
    code: 'FV_MEMORY_FULL',
  });
  await t.rejects(db.put('big', Buffer.alloc(8_000_000)), { code: 'FV_MEMORY_FULL' });
  t.notOk(db.has('batch0'), 'nothing of the batch is there');
  for (let i = 0; i < stored - 1; i++) if (!db.has(`key${i}`)) t.fail(`key${i}`);
  for (let i = 0; i < stored - 1; i += 2) await db.del(`key${i}`);
  for (let i = 0; i < stored - 1; i += 4) await db.put(`key${i}`, 'again');
  t.equal(db.get('key0'), 'again', 'what is deleted makes room');
  const size = db.size;
  await db.close();
  const again = await open(folder);
  t.equal(again.size, size);
  await again.close();
});
