/** The command line's verify, repair and inspect, on stores that are whole and stores that are not. */

import t from 'tap';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { open } from '../../src/index.js';
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
