/** Hot backups: complete, verified, openable, made while writers run. */

import t from 'tap';
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { open, verify } from '../../src/index.js';
import { openIn } from '../../src/engine/open.js';
import { faultyFiles } from '../support/faulty-files.js';
import { tempFolder } from '../support/temp.js';

void t.test('a copy made while writers run is a store of its own', async (t) => {
  const folder = tempFolder(t);
  const target = path.join(tempFolder(t), 'copy');
  const db = await open(folder, { walSegmentBytes: 256 * 1024 });
  let last: Promise<number> | undefined;
  for (let i = 0; i < 5000; i++) last = db.put(`key${i}`, { id: i, text: 'x'.repeat(i % 100) });
  const acknowledged = await (last as Promise<number>);
  await db.put('long', 'l'.repeat(700_000));
  await db.checkpoint();
  let isRunning = true;
  let written = 0;
  const writer = (async () => {
    for (; isRunning; written++) {
      await db.batch([
        { type: 'put', key: 'left', value: written },
        { type: 'put', key: 'right', value: written },
        { type: 'put', key: `new${written % 50}`, value: written },
      ]);
    }
  })();
  const [lsn, second] = await Promise.all([db.backup(target), db.checkpoint()]);
  isRunning = false;
  await writer;
  t.ok(lsn > acknowledged && second > 0);
  await t.rejects(db.backup(target), { code: 'FV_IO', message: /not empty/ });
  const before = db.size;
  await db.close();

  const report = await verify(target);
  t.same(report.problems, []);
  t.ok((report.lastLsn ?? 0) >= lsn);
  const copy = await open(target);
  for (let i = 0; i < 5000; i += 7) t.equal((copy.get(`key${i}`) as { id: number }).id, i);
  t.equal((copy.get('long') as string).length, 700_000);
  t.equal(copy.get('left'), copy.get('right'), 'no batch is torn');
  t.ok(copy.size <= before);
  await copy.put('a life of its own', true);
  await copy.checkpoint();
  await copy.close();
  const original = await open(folder);
  t.equal(original.get('a life of its own'), undefined);
  t.equal(original.get('left'), written - 1);
  await original.close();
  // The two have different ids: a segment of one is refused by the other.
  const segment = fs.readdirSync(target).find((name) => name.endsWith('.wal')) as string;
  for (const name of fs.readdirSync(folder)) if (name.endsWith('.wal')) fs.rmSync(path.join(folder, name));
  fs.copyFileSync(path.join(target, segment), path.join(folder, segment));
  await t.rejects(open(folder), { code: 'FV_CORRUPT' });
});

void t.test('an empty store, and one without a checkpoint', async (t) => {
  for (const count of [0, 3]) {
    const target = path.join(tempFolder(t), 'copy');
    const db = await open(tempFolder(t));
    for (let i = 0; i < count; i++) await db.put(`key${i}`, i);
    t.equal(await db.backup(target), count);
    await db.close();
    const copy = await open(target);
    t.equal(copy.size, count);
    await copy.close();
  }
});

void t.test('what a backup refuses', async (t) => {
  const db = await open(tempFolder(t));
  await t.rejects(db.backup(''), TypeError);
  await t.rejects(db.backup(7 as unknown as string), TypeError);
  const full = tempFolder(t);
  fs.writeFileSync(path.join(full, 'something'), 'of the user');
  await t.rejects(db.backup(full), { code: 'FV_IO', message: /not empty/ });
  t.same(fs.readdirSync(full), ['something'], 'and touches nothing there');
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(async ({ attach }) => {
      const db = await attach(workerData.handle);
      parentPort.postMessage(await db.backup('/nowhere').catch((error) => error.code));
      await db.close();
    });`;
  const worker = new Worker(code, {
    eval: true,
    workerData: { module: new URL('../../src/index.js', import.meta.url).href, handle: db.handle },
  });
  t.equal(await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)), 'FV_OPTION');
  await db.close();
  await t.rejects(db.backup(path.join(full, 'late')), { code: 'FV_CLOSED' });
});

void t.test('one that fails leaves nothing behind', async (t) => {
  const target = path.join(tempFolder(t), 'copy');
  const marker = path.join(tempFolder(t), 'failed');
  const db = await openIn({ files: faultyFiles({ failManifestRename: 1, once: marker, code: 'ENOSPC' }) }, tempFolder(t));
  await db.put('a', 1);
  await t.rejects(db.backup(target), { code: 'FV_IO', message: /ENOSPC/ });
  t.same(fs.readdirSync(target), []);
  await db.backup(target);
  await db.close();
  const copy = await open(target);
  t.equal(copy.get('a'), 1);
  await copy.close();
});
