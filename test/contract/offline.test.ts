/** The command line's verify, repair and inspect, on stores that are whole and stores that are not. */

import t from 'tap';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { open } from '../../src/index.js';
import { Checksum } from '../../src/platform/checksum.js';
import { decodeSegmentHeader, segmentSeed } from '../../src/wal/format.js';
import { tempFolder } from '../support/temp.js';

const main = new URL('../../src/cli/main.js', import.meta.url).pathname;

function run(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  return { code: status, out: stdout, err: stderr };
}

/** A closed store: entries in a checkpoint of several blocks, records behind it in several segments. */
async function makeStore(t: Tap.Test): Promise<string> {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: 65_536 });
  for (let i = 0; i < 4000; i++) void db.put(`key${i}`, { id: i, text: 'x'.repeat(100) });
  await db.flush();
  await db.checkpoint();
  for (let i = 0; i < 400; i++) await db.put(`later${i}`, Buffer.alloc(700, i));
  await db.del('key0');
  await db.batch([
    { type: 'put', key: 'pair1', value: 'p' },
    { type: 'put', key: new Uint8Array([0, 255]), value: 2.5 },
  ]);
  await db.close();
  return folder;
}

function names(folder: string, ending: string): string[] {
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .sort();
}

function damage(file: string, offset: number, bytes = 1): void {
  const content = fs.readFileSync(file);
  for (let i = offset; i < offset + bytes; i++) content[i] ^= 0x5a;
  fs.writeFileSync(file, content);
}

void t.test('a store that is whole', async (t) => {
  const folder = await makeStore(t);
  const picture = (): string =>
    fs
      .readdirSync(folder)
      .map((name) => `${name}:${fs.statSync(path.join(folder, name)).mtimeMs}`)
      .join();
  const before = picture();
  const verified = run('verify', folder);
  t.equal(verified.code, 0, verified.out + verified.err);
  t.match(verified.out, /no problems; the last record is 4403/);
  const inspected = run('inspect', folder);
  t.equal(inspected.code, 0);
  t.match(inspected.out, /structure 0: \["id","text"\]/);
  t.match(inspected.out, /put "later7": Buffer, 700 bytes/);
  t.match(inspected.out, /del "key0"/);
  t.match(inspected.out, /put <00ff>: float64/);
  t.match(inspected.out, /"key17": msgpack/);
  t.match(inspected.out, /closed in order/);
  t.equal(picture(), before, 'nothing was changed');
  const out = path.join(tempFolder(t), 'out');
  const repaired = run('repair', folder, '--out', out);
  t.equal(repaired.code, 0, repaired.out + repaired.err);
  t.match(repaired.out, /4401 entries saved/);
  t.match(repaired.out, /nothing was lost/);
  const db = await open(out);
  t.equal(db.size, 4401);
  t.same(db.get('key17'), { id: 17, text: 'x'.repeat(100) });
  t.equal(db.get('key0'), undefined);
  t.equal(db.get(new Uint8Array([0, 255])), 2.5);
  t.ok((await db.put('new', 1)) > 4403, 'LSNs go on');
  await db.close();
});

void t.test('a damaged block of the checkpoint', async (t) => {
  const folder = await makeStore(t);
  const part = path.join(folder, names(folder, '.part')[0]);
  damage(part, 300_000);
  await t.rejects(open(folder), { code: 'FV_CORRUPT', file: part });
  const verified = run('verify', folder);
  t.equal(verified.code, 1);
  t.match(verified.out, /part:\d+ \(\d+ bytes\): .*no block verifies here/);
  const out = path.join(tempFolder(t), 'out');
  const repaired = run('repair', folder, '--out', out, '--json');
  t.equal(repaired.code, 1);
  const report = JSON.parse(repaired.out) as { entries: number; losses: { file: string; message: string }[] };
  t.ok(report.losses.some((loss) => loss.file === part));
  const db = await open(out);
  t.equal(db.size, report.entries);
  t.ok(db.size > 2000 && db.size < 4401, `${db.size} entries saved`);
  t.same(db.get('later7'), Buffer.alloc(700, 7));
  let wrong = 0;
  for (let i = 0; i < 4000; i++) {
    const value = db.get(`key${i}`) as { id: number } | undefined;
    if (value !== undefined && value.id !== i) wrong++;
  }
  t.equal(wrong, 0);
  await db.close();
});

void t.test('a damaged frame, a missing segment, no manifest, no identity', async (t) => {
  const folder = await makeStore(t);
  const segments = names(folder, '.wal');
  t.ok(segments.length > 3);
  damage(path.join(folder, segments[1]), 20_000);
  fs.rmSync(path.join(folder, segments[2]));
  const verified = run('verify', folder);
  t.equal(verified.code, 1);
  t.match(verified.out, new RegExp(`${segments[1]}:\\d+`));
  t.match(verified.out, new RegExp(`${segments[2]} is missing`));
  const out = path.join(tempFolder(t), 'out');
  const repaired = run('repair', folder, '--out', out);
  t.equal(repaired.code, 1);
  t.match(repaired.out, /LSN \d+ to \d+ are lost/);
  const db = await open(out);
  t.ok(db.size > 4000, 'the checkpoint and the other segments');
  t.same(db.get('key17'), { id: 17, text: 'x'.repeat(100) });
  await db.close();

  fs.rmSync(path.join(folder, 'store.fv'));
  const bare = path.join(tempFolder(t), 'bare');
  t.equal(run('verify', folder).code, 1);
  const again = run('repair', folder, '--out', bare);
  t.equal(again.code, 1, again.err);
  const from = await open(bare);
  t.ok(from.size > 4000, 'without the identity file');
  await from.close();
});

void t.test('wrong usage, and what is no store', async (t) => {
  t.equal(run().code, 2);
  t.equal(run('verify').code, 2);
  t.equal(run('repair', '/nowhere').code, 2);
  t.equal(run('destroy', '/nowhere').code, 2);
  t.equal(run('verify', '/nowhere', '--fast').code, 2);
  t.match(run('verify', '/nowhere'), { code: 2, err: /FV_IO/ });
  t.match(run('--help'), { code: 0, out: /usage/ });
  const folder = tempFolder(t);
  const db = await open(folder);
  t.match(run('verify', folder), { code: 2, err: /FV_LOCKED/ });
  t.match(run('repair', folder, '--out', path.join(folder, 'out')), { code: 2, err: /FV_LOCKED/ });
  await db.close();
  const out = tempFolder(t);
  fs.writeFileSync(path.join(out, 'kept'), '');
  t.match(run('repair', folder, '--out', out), { code: 2, err: /not empty/ });
  t.same(fs.readdirSync(out), ['kept']);
  t.match(run('verify', tempFolder(t)), { code: 1, out: /there is no store/ });
});

void t.test('what a damaged store lost is told: the first segment, the whole log, the manifest', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: 65_536 });
  for (let i = 0; i < 100; i++) await db.put(`old${i}`, i);
  await db.checkpoint();
  for (let i = 0; i < 300; i++) await db.put(`new${i}`, Buffer.alloc(500, i));
  await db.close();
  const variant = (
    change: (copy: string) => void,
  ): { copy: string; code: number | null; report: { entries: number; lastLsn: number; losses: unknown[] }; out: string } => {
    const copy = path.join(tempFolder(t), 'copy');
    const out = path.join(tempFolder(t), 'out');
    fs.cpSync(folder, copy, { recursive: true, filter: (file) => !file.endsWith('.sock') });
    change(copy);
    const { code, out: text } = run('repair', copy, '--out', out, '--json');
    return { copy, code, report: JSON.parse(text) as { entries: number; lastLsn: number; losses: unknown[] }, out };
  };
  const first = variant((copy) => fs.rmSync(path.join(copy, names(copy, '.wal')[0])));
  t.equal(first.code, 1);
  t.match(JSON.stringify(first.report.losses), /LSN 101 to \d+ are lost/);
  const noLog = variant((copy) => {
    for (const name of names(copy, '.wal')) fs.rmSync(path.join(copy, name));
  });
  t.equal(noLog.code, 1);
  t.equal(noLog.report.entries, 100);
  t.equal(noLog.report.lastLsn, 100, 'LSNs go on behind those of the entries');
  const saved = await open(noLog.out);
  t.ok((await saved.put('next', 1)) > 100);
  await saved.close();
  const manifest = (copy: string): string => path.join(copy, names(copy, '.checkpoint')[0]);
  let kept = Buffer.alloc(0);
  const noManifest = variant((copy) => {
    kept = fs.readFileSync(manifest(copy));
    fs.rmSync(manifest(copy));
  });
  t.equal(noManifest.code, 1);
  t.equal(noManifest.report.entries, 400, 'the parts are used all the same');
  // Opening such a folder refuses, and removes nothing: with its manifest back it is whole.
  await t.rejects(open(noManifest.copy), { code: 'FV_CORRUPT' });
  fs.writeFileSync(path.join(noManifest.copy, '000000000001.checkpoint'), kept);
  const whole = await open(noManifest.copy);
  t.equal(whole.size, 400);
  await whole.close();
});

void t.test('what was cut off once stays cut off: verify finds no problem there, repair does not bring it back', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { walSegmentBytes: 65_536 });
  await db.put('k', 'first');
  await db.put('k', 'LOST');
  await db.put('k', 'NEVER DURABLE');
  await db.close();
  // A power cut that keeps a later frame of a group that was never synced, and loses the one before it.
  const file = path.join(folder, names(folder, '.wal')[0]);
  const content = fs.readFileSync(file);
  const frames: number[] = [];
  for (let at = content.indexOf('VFRM', 4096); at !== -1; at = content.indexOf('VFRM', at + 1)) frames.push(at - 8);
  content.fill(0, frames[1], frames[2]);
  content.fill(0, frames[3]);
  // The frame that is kept must not say that the lost one had been durable.
  const checksum = await Checksum.load();
  const header = decodeSegmentHeader(checksum, content.subarray(0, 4096), file);
  content.writeUInt32LE(1, frames[2] + 40);
  const end = frames[3];
  content.writeBigUInt64LE(checksum.of(content.subarray(frames[2] + 8, end), segmentSeed(checksum, header.storeId, 1)), frames[2]);
  fs.writeFileSync(file, content);
  const again = await open(folder, { walSegmentBytes: 65_536 });
  t.equal(again.get('k'), 'first');
  await again.put('k', 'ACKNOWLEDGED');
  await again.put('more', 1);
  await again.close();
  t.equal(run('verify', folder).code, 0, run('verify', folder).out);
  const out = path.join(tempFolder(t), 'out');
  const repaired = run('repair', folder, '--out', out);
  t.equal(repaired.code, 0, repaired.out);
  const saved = await open(out);
  t.equal(saved.get('k'), 'ACKNOWLEDGED');
  t.equal(saved.size, 2);
  await saved.close();
});

void t.test('a pipe in the place of a file holds nobody up', async (t) => {
  const folder = await makeStore(t);
  spawnSync('mkfifo', [path.join(folder, '000000000099.wal')]);
  t.not(run('verify', folder).code, null);
  await t.rejects(open(folder), { code: 'FV_IO' });
});
