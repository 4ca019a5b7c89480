/** Opening: options, folders, locks, other threads. */

import t from 'tap';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { open } from '../../src/index.js';
import { openIn } from '../../src/engine/open.js';
import { faultyFiles } from '../support/faulty-files.js';
import { tempFolder } from '../support/temp.js';

const code = (wanted: string): { name: string; code: string } => ({ name: 'FlashVectorError', code: wanted });
const fixture = (name: string): URL => new URL(`../fixture/${name}.js`, import.meta.url);

void t.test('options are checked, and named', async (t) => {
  const folder = path.join(tempFolder(t), 'never');
  const bad: [object, RegExp][] = [
    [{ durabilty: 'sync' }, /"durabilty".*durability/],
    [{ durability: 'often' }, /durability is "often"/],
    [{ shards: 3 }, /shards is 3; allowed is a power of two/],
    [{ shards: 512 }, /shards/],
    [{ shards: '16' }, /shards is "16"/],
    [{ ringBytes: 100_000 }, /ringBytes/],
    [{ ringBytes: 1024 }, /ringBytes/],
    [{ walSegmentBytes: 1 }, /walSegmentBytes/],
    [{ syncIntervalMs: 0 }, /syncIntervalMs/],
    [{ maxMemoryBytes: 5 }, /maxMemoryBytes/],
    [{ maxMemoryBytes: 1024 * 1024, shards: 256 }, /maxMemoryBytes/],
    [{ poolThreads: 0 }, /poolThreads/],
    [{ ackPollUs: 1001 }, /ackPollUs is 1001; allowed is an integer from 0 to 1000/],
    [{ onProgress: 1 }, /onProgress/],
    [{ readOnly: 'yes' }, /readOnly/],
    [{ readOnly: true, errorIfExists: true }, /exclude/],
  ];
  for (const [options, message] of bad) await t.rejects(open(folder, options), { ...code('FV_OPTION'), message });
  for (const misuse of [null, 5, [], 'x']) await t.rejects(open(folder, misuse as never), TypeError);
  for (const misuse of [undefined, 5, '', 'a\0b']) await t.rejects(open(misuse as never), TypeError);
  t.notOk(fs.existsSync(folder), 'nothing was made');
});

void t.test('folders that cannot be', async (t) => {
  const folder = tempFolder(t);
  const file = path.join(folder, 'file');
  fs.writeFileSync(file, 'x');
  await t.rejects(open(file), { ...code('FV_IO'), file });
  await t.rejects(open(path.join(file, 'below')), code('FV_IO'));
  await t.rejects(open('/proc/flashvector-cannot-be'), code('FV_IO'));
  await t.rejects(open(path.join(folder, 'none'), { createIfMissing: false }), { ...code('FV_IO'), message: /no store/ });
  await t.rejects(open(path.join(folder, 'none'), { readOnly: true }), { ...code('FV_IO'), message: /no store/ });
  t.notOk(fs.existsSync(path.join(folder, 'none')));
  const store = path.join(folder, 'deep', 'er', 'store');
  await (await open(store)).close();
  await t.rejects(open(store, { errorIfExists: true }), code('FV_IO'));
  await (await open(store)).close();
  t.same(fs.readdirSync(store), ['000000000001.wal', 'store.fv'], 'no lock and no temporary file stays');
});

void t.test('a folder that is not writable', async (t) => {
  const folder = tempFolder(t);
  const files = faultyFiles({ failCreate: 1, code: 'EACCES' });
  await t.rejects(openIn({ files }, folder), { ...code('FV_IO'), cause: { code: 'EACCES' } });
  await (await open(folder)).close();
});

void t.test('no room for the first segment', async (t) => {
  const folder = tempFolder(t);
  for (const faults of [{ failWrite: 1 }, { failWrite: 2 }, { failSync: 1 }, { failRename: 1 }, { failDirectorySync: 1 }]) {
    await t.rejects(openIn({ files: faultyFiles({ ...faults, code: 'ENOSPC' }) }, folder), { ...code('FV_IO'), cause: { code: 'ENOSPC' } });
  }
  const db = await open(folder);
  await db.put('a', 1);
  await db.close();
  t.same(
    fs.readdirSync(folder).filter((name) => name.endsWith('.tmp')),
    [],
  );
});

void t.test('a second opener is told who has the folder', async (t) => {
  const folder = path.join(tempFolder(t), 'a folder with a name so long that the address of a Unix socket cannot hold it'.repeat(2));
  const db = await open(folder);
  await t.rejects(open(folder), { ...code('FV_LOCKED'), pid: process.pid });
  await db.close();
  const child = spawn(process.execPath, [fixture('hold-store').pathname, folder], { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  await t.rejects(open(folder), { ...code('FV_LOCKED'), pid: child.pid });
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const again = await open(folder);
  t.equal(again.get('held'), true, 'the lock went with its process');
  await again.close();
});

void t.test('of many that open at once, exactly one gets the folder', async (t) => {
  const folder = tempFolder(t);
  const results = await Promise.allSettled(Array.from({ length: 6 }, () => open(folder)));
  const opened = results.filter((result) => result.status === 'fulfilled');
  t.equal(opened.length, 1);
  for (const result of results) if (result.status === 'rejected') t.match(result.reason, code('FV_LOCKED'));
  for (const result of opened) await result.value.close();
});

void t.test('read-only opens change nothing and refuse writes', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder);
  await db.put('a', { x: 1 });
  await db.close();
  const before = fs.readdirSync(folder).map((name) => [name, fs.statSync(path.join(folder, name)).mtimeMs]);
  const reader = await open(folder, { readOnly: true });
  t.equal(reader.status, 'readonly');
  t.same(reader.get('a'), { x: 1 });
  await t.rejects(reader.put('a', 2), code('FV_READONLY'));
  await t.rejects(reader.flush(), code('FV_READONLY'));
  await reader.close();
  t.same(
    fs.readdirSync(folder).map((name) => [name, fs.statSync(path.join(folder, name)).mtimeMs]),
    before,
  );
});

void t.test('a worker reads and writes, and leaves', async (t) => {
  const db = await open(tempFolder(t));
  await db.put('from', 'main');
  const worker = new Worker(fixture('attached'), { workerData: { handle: db.handle } });
  const answer = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  t.same(answer, { from: 'main', shape: { a: 1, b: 'two' }, error: { name: 'FlashVectorError', code: 'FV_CONFLICT' } });
  await new Promise((resolve) => worker.once('exit', resolve));
  t.same(db.get('worker'), { a: 1, b: 'two' });
  t.equal(db.stats().threads, 1, 'its slot is free');
  await db.close();
});

void t.test('an attached thread meets the end of the store', async (t) => {
  const db = await open(tempFolder(t));
  const worker = new Worker(fixture('write-until-closed'), { workerData: { handle: db.handle } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const ended = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await db.close();
  t.same(await ended, { code: 'FV_CLOSED' });
  await worker.terminate();
});

void t.test('a store that is not closed does not keep the process alive, a pending write does', async (t) => {
  const folder = tempFolder(t);
  const child = spawn(process.execPath, [fixture('forget-to-close').pathname, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  t.equal(await new Promise((resolve) => child.once('exit', resolve)), 0);
  t.equal(output, 'durable\n');
  const db = await open(folder);
  t.equal(db.get('last'), 'words');
  await db.close();
});
