/** Checkpoints as users meet them: calls, triggers, events, statistics, failures, what is left in the folder. */

import t from 'tap';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { FlashVectorError, open, type CheckpointReport, type FlashVector } from '../../src/index.js';
import { openIn } from '../../src/engine/open.js';
import { faultyFiles } from '../support/faulty-files.js';
import { tempFolder } from '../support/temp.js';

const SEGMENT = 65_536;

function names(folder: string, ending: string): string[] {
  return fs.readdirSync(folder).filter((name) => name.endsWith(ending));
}

async function fill(db: FlashVector, from: number, to: number): Promise<void> {
  let last: Promise<number> | undefined;
  for (let i = from; i < to; i++) last = db.put(`key${i}`, { id: i, text: 't'.repeat(i % 200) });
  await last;
}

/** The next checkpoint that ends. Waiting for it keeps the process. */
async function nextReport(db: FlashVector): Promise<CheckpointReport> {
  const alive = setInterval(() => undefined, 1000);
  const [report] = await once(db, 'checkpoint');
  clearInterval(alive);
  return report as CheckpointReport;
}

function verify(t: Tap.Test, db: FlashVector, count: number): void {
  let wrong = 0;
  for (let i = 0; i < count; i++) {
    const value = db.get(`key${i}`) as { id: number; text: string } | undefined;
    if (value?.id !== i || value.text.length !== i % 200) wrong++;
  }
  t.equal(wrong, 0, `${count} values are right`);
}

void t.test('a checkpoint holds everything, the log before it goes, recovery takes both', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { walSegmentBytes: SEGMENT });
  // In pieces: one group that takes all of them would go into one segment.
  for (let from = 0; from < 3000; from += 500) await fill(db, from, from + 500);
  await db.put('long', 'l'.repeat(900_000));
  await db.put('bytes', Buffer.alloc(70_000, 3));
  const segments = names(folder, '.wal').length;
  t.ok(segments > 5, `${segments} segments`);
  const event = nextReport(db);
  const lsn = await db.checkpoint();
  const report = await event;
  t.match(report, { reason: 'call', lsn, entries: 3002, error: undefined });
  t.ok(report.bytes > 970_000 && report.segmentsRetired > 0 && report.durationMs > 0);
  t.ok(names(folder, '.wal').length <= 2, 'the segments since it began');
  t.equal(names(folder, '.checkpoint').length, 1);
  const { checkpoints } = db.stats();
  t.match(checkpoints, { running: false, completed: 1, failed: 0, lsn, entries: 3002, lastError: undefined });
  await fill(db, 3000, 3500);
  await db.del('bytes');
  await db.close();

  const phases = new Set<string>();
  db = await open(folder, { walSegmentBytes: SEGMENT, shards: 4, onProgress: (progress) => phases.add(progress.phase) });
  t.same([...phases], ['load', 'replay', 'index', 'done']);
  verify(t, db, 3500);
  t.equal((db.get('long') as string).length, 900_000);
  t.equal(db.get('bytes'), undefined);
  t.equal(db.size, 3501);
  t.ok((db.getEntry('key7')?.lsn ?? 0) < lsn, 'versions survive');
  await db.checkpoint();
  t.equal(names(folder, '.checkpoint').length, 1, 'the one before is gone');
  t.ok(names(folder, '.part').every((name) => name.startsWith('000000000002')));
  await db.close();
});

void t.test('entries as long as a block of a part and longer, keys as long as they may be', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { shards: 1 });
  const model = new Map<string, string>();
  const put = (key: string, length: number): void => void model.set(key, key[0].repeat(length));
  for (let length = 65_400; length <= 65_560; length += 4) put(`value of ${length}`, length);
  for (const length of [262_100, 262_144, 262_200]) put(`value of ${length}`, length);
  for (const bytes of [65_400, 65_500, 65_534, 65_535]) {
    for (const length of [0, 5, 40_000, 300_000]) put(`${length} ${bytes} `.padEnd(bytes, 'k'), length);
  }
  await Promise.all([...model].map(([key, value]) => db.put(key, value)));
  await db.checkpoint();
  t.equal(db.stats().checkpoints?.entries, model.size);
  await db.close();
  db = await open(folder, { shards: 1 });
  t.equal(db.size, model.size);
  for (const [key, value] of model) if (db.get(key) !== value) t.fail(`${key.slice(0, 20)} has another value`);
  await db.close();
});

void t.test('an empty store, an unchanged store, several calls at once', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder);
  t.equal(await db.checkpoint(), 1);
  const ended: CheckpointReport[] = [];
  db.on('checkpoint', (report) => ended.push(report));
  const calls = await Promise.all([db.checkpoint(), db.checkpoint(), db.checkpoint()]);
  t.same(calls, [1, 1, 1]);
  await new Promise((resolve) => setImmediate(resolve));
  t.ok(ended.length <= 2, 'calls that wait share the next one');
  await db.close();
  db = await open(folder);
  t.equal(db.size, 0);
  await db.close();
});

void t.test('of a small store after 40 MiB of log, and not before', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  const reports: CheckpointReport[] = [];
  db.on('checkpoint', (report) => reports.push(report));
  const MIB = 1024 * 1024;
  const write = async (mebibytes: number): Promise<void> => {
    for (let i = 0; i < mebibytes * 16; i++) await db.put(`k${i % 10}`, Buffer.alloc(65_536, i));
    await db.flush();
  };
  await write(38);
  // Longer than the owner takes to look again.
  await new Promise((resolve) => setTimeout(resolve, 700));
  t.equal(reports.length, 0);
  t.ok((db.stats().checkpoints?.logBytes ?? 0) >= 38 * MIB);
  const bySize = nextReport(db);
  await write(4);
  t.match(await bySize, { reason: 'log size', error: undefined });
  await db.close();
});

void t.test('by the size of the log, and by time', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: SEGMENT, checkpointLogBytes: 200_000, snapshotIntervalSeconds: 0 });
  const bySize = nextReport(db);
  await fill(db, 0, 3000);
  t.match(await bySize, { reason: 'log size', error: undefined });
  t.ok((db.stats().checkpoints?.logBytes ?? Infinity) < 600_000);
  await db.close();

  const timed = await open(folder, { snapshotIntervalSeconds: 1 });
  const byTime = nextReport(timed);
  await timed.put('a', 1);
  t.match(await byTime, { reason: 'interval', error: undefined });
  await timed.close();
});

void t.test('an attached thread asks for one', async (t) => {
  const db = await open(tempFolder(t));
  await db.put('a', 1);
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(async ({ attach }) => {
      const db = await attach(workerData.handle);
      parentPort.postMessage({ lsn: await db.checkpoint(), stats: db.stats().checkpoints });
      await db.close();
    });`;
  const module = new URL('../../src/index.js', import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { module, handle: db.handle } });
  const message = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  t.same(message, { lsn: 2, stats: undefined });
  t.equal(db.stats().checkpoints?.completed, 1);
  await db.close();
});

void t.test('writers go on, and close stops a checkpoint that is being written', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder);
  await fill(db, 0, 20_000);
  const stopped = db.checkpoint();
  stopped.catch(() => undefined);
  const writing = fill(db, 20_000, 21_000);
  await writing;
  await db.close();
  await stopped.then(
    () => t.equal(names(folder, '.checkpoint').length, 1, 'it was faster: then it is there'),
    (error: unknown) => t.match(error, { code: /FV_ABORTED|FV_CLOSED/ }),
  );
  await t.rejects(db.checkpoint(), { code: 'FV_CLOSED' });
  db = await open(folder);
  verify(t, db, 21_000);
  t.ok(names(folder, '.part').length === 0 || names(folder, '.checkpoint').length === 1, 'no debris');
  await db.close();
});

/** After its first checkpoint has failed a store of 2,000 keys is as if it had not been tried: nothing is left of it, and the next one works. */
async function goesOn(t: Tap.Test, db: FlashVector, folder: string): Promise<void> {
  t.same([...names(folder, '.part'), ...names(folder, '.checkpoint'), ...names(folder, '.tmp')], [], 'no debris');
  t.equal(db.status, 'open');
  await db.put('goes on', true);
  await db.checkpoint();
  t.match(db.stats().checkpoints, { failed: 1, completed: 1, lastError: undefined });
  await db.close();
  const again = await open(folder);
  verify(t, again, 2000);
  t.equal(again.get('goes on'), true);
  await again.close();
}

void t.test('one that fails is told, leaves nothing behind and loses nothing; the next one works', async (t) => {
  for (const fault of [{ failPartWrite: 2 }, { failPartSync: 1 }, { failManifestRename: 1 }]) {
    const folder = tempFolder(t);
    const marker = path.join(tempFolder(t), 'failed');
    const db = await openIn({ files: faultyFiles({ ...fault, once: marker, code: 'ENOSPC' }) }, folder, { walSegmentBytes: SEGMENT });
    await fill(db, 0, 2000);
    const told = nextReport(db);
    await t.rejects(db.checkpoint(), { code: 'FV_IO', message: /ENOSPC/ }, JSON.stringify(fault));
    t.match(await told, { error: { code: 'FV_IO' } });
    t.match(db.stats().checkpoints, { failed: 1, completed: 0, lastError: { code: 'FV_IO' } });
    await goesOn(t, db, folder);
  }
});

void t.test('one whose thread dies is told with a code; the store goes on, and the next one works', async (t) => {
  // While it writes a part, before the manifest gets its name, and while the part is read back.
  for (const fault of [{ failPartWrite: 2 }, { failManifestRename: 1 }, { failRead: 1 }]) {
    const folder = tempFolder(t);
    const marker = path.join(tempFolder(t), 'died');
    const db = await openIn({ files: faultyFiles({ ...fault, once: marker, code: 'THREAD' }) }, folder, { walSegmentBytes: SEGMENT });
    await fill(db, 0, 2000);
    const told = nextReport(db);
    const error = await db.checkpoint().then(
      () => t.fail('its thread died'),
      (reason: unknown) => reason,
    );
    t.ok(error instanceof FlashVectorError, JSON.stringify(fault));
    t.match(error, { code: 'FV_ABORTED', message: /thread of the task checkpoint ended/, cause: Error });
    t.equal((await told).error, error);
    t.match(db.stats().checkpoints, { failed: 1, completed: 0, lastError: { code: 'FV_ABORTED' } });
    await goesOn(t, db, folder);
  }
});

void t.test('an attached thread that has asked for one whose thread dies gets the same code', async (t) => {
  const marker = path.join(tempFolder(t), 'died');
  const db = await openIn({ files: faultyFiles({ failPartWrite: 1, once: marker, code: 'THREAD' }) }, tempFolder(t));
  await fill(db, 0, 100);
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(async ({ attach }) => {
      const db = await attach(workerData.handle);
      const first = await db.checkpoint().catch((error) => error.code);
      parentPort.postMessage([first, await db.checkpoint().catch((error) => error.code)]);
      await db.close();
    });`;
  const module = new URL('../../src/index.js', import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { module, handle: db.handle } });
  const [first, second] = await new Promise<unknown[]>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  t.equal(first, 'FV_ABORTED');
  t.type(second, 'number');
  await db.close();
});

void t.test('one whose thread dies while it removes what it replaces counts, and tells what it left', async (t) => {
  const folder = tempFolder(t);
  const marker = path.join(tempFolder(t), 'died');
  const db = await openIn({ files: faultyFiles({ failManifestRemove: 1, once: marker, code: 'THREAD' }) }, folder, {
    walSegmentBytes: SEGMENT,
  });
  await fill(db, 0, 2000);
  const first = await db.checkpoint();
  await fill(db, 2000, 3000);
  const told = nextReport(db);
  const second = await db.checkpoint();
  t.ok(fs.existsSync(marker) && second > first);
  t.match(await told, { lsn: second, error: undefined, leftover: { code: 'FV_ABORTED' } });
  t.match(db.stats().checkpoints, { failed: 0, completed: 2, lsn: second });
  t.equal(names(folder, '.checkpoint').length, 2, 'the one before is still there');
  await db.put('goes on', true);
  await db.checkpoint();
  t.equal(names(folder, '.checkpoint').length, 1);
  await db.close();
  const again = await open(folder);
  verify(t, again, 3000);
  await again.close();
});

void t.test('a store whose thread dies while it is recovered is not opened, with a code, and can be opened afterwards', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: SEGMENT });
  await fill(db, 0, 2000);
  await db.checkpoint();
  await fill(db, 2000, 3000);
  await db.close();
  await t.rejects(openIn({ files: faultyFiles({ failRead: 1, code: 'THREAD' }) }, folder, { walSegmentBytes: SEGMENT }), {
    name: 'FlashVectorError',
    code: 'FV_ABORTED',
    message: /thread of the task recover ended/,
  });
  const again = await open(folder);
  verify(t, again, 3000);
  await again.close();
});

void t.test('once the log has failed, every call is refused at once, of attached threads too', async (t) => {
  const db = await openIn({ files: faultyFiles({ failSync: 6 }) }, tempFolder(t));
  const failed = nextFailure(db);
  for (let i = 0; i < 10; i++) await db.put('a', i).catch(() => undefined);
  await failed;
  await t.rejects(db.checkpoint(), { code: /FV_IO|FV_READONLY/ });
  await t.rejects(db.backup('/nowhere'), { code: /FV_IO|FV_READONLY/ });
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(async ({ attach }) => {
      const db = await attach(workerData.handle);
      parentPort.postMessage(await db.checkpoint().catch((error) => error.code));
      await db.close();
    });`;
  const module = new URL('../../src/index.js', import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { module, handle: db.handle } });
  t.match(await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)), /FV_IO|FV_READONLY/);
  await t.rejects(db.close(), { code: 'FV_IO' });
});

async function nextFailure(db: FlashVector): Promise<void> {
  const alive = setInterval(() => undefined, 1000);
  await once(db, 'readonly');
  clearInterval(alive);
}

void t.test('read-only changes no byte', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: SEGMENT });
  await fill(db, 0, 2000);
  await db.checkpoint();
  await fill(db, 2000, 2100);
  await db.close();
  fs.writeFileSync(path.join(folder, '000000000077-000.part'), 'left by an interrupted checkpoint');
  const picture = (): string[] => fs.readdirSync(folder).map((name) => `${name} ${fs.statSync(path.join(folder, name)).mtimeMs}`);
  const before = picture();
  const reader = await open(folder, { readOnly: true });
  verify(t, reader, 2100);
  await t.rejects(reader.checkpoint(), { code: 'FV_READONLY' });
  t.equal(reader.stats().checkpoints, undefined);
  await reader.close();
  t.same(picture(), before);
  const writer = await open(folder);
  t.notOk(fs.existsSync(path.join(folder, '000000000077-000.part')), 'opening to write sweeps');
  await writer.checkpoint();
  t.same(names(folder, '.checkpoint').length, 1);
  await writer.close();
});

void t.test('a store rewritten over and over keeps its size on disk', { timeout: 120_000 }, async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: 1024 * 1024, checkpointLogBytes: 2 * 1024 * 1024 });
  const live = 2000 * 1030;
  let largest = 0;
  for (let round = 0; round < 30; round++) {
    let last: Promise<number> | undefined;
    for (let i = 0; i < 2000; i++) last = db.put(`key${i}`, Buffer.alloc(1000, round));
    await last;
    const bytes = fs.readdirSync(folder).reduce((sum, name) => {
      // Files come and go meanwhile.
      return sum + (fs.statSync(path.join(folder, name), { throwIfNoEntry: false })?.size ?? 0);
    }, 0);
    if (bytes > largest) largest = bytes;
    await db.checkpoint();
  }
  t.ok(largest <= 3 * live + 4 * 1024 * 1024, `${largest} bytes at most for ${live} of data`);
  await db.close();
});

void t.test('the thread that writes checkpoints is kept for those that follow', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  await fill(db, 0, 1000);
  await db.checkpoint();
  let threads = 0;
  const count = (): void => void threads++;
  process.on('worker', count);
  t.teardown(() => process.off('worker', count));
  for (let i = 0; i < 2; i++) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await db.checkpoint();
  }
  t.equal(threads, 0, 'no new thread, a second and a half later');
  await db.close();
});
