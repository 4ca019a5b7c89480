/** The command line: data commands on a folder and on a node, exit codes, loading and dumping real documents. */

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { open } from '../../src/index.js';
import { CLI, startNode } from '../support/node-harness.js';
import { tempFolder } from '../support/temp.js';

interface Result {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Not spawnSync where the node is in this process: it has to answer meanwhile. */
function run(cwd: string, ...args: string[]): Promise<Result> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [CLI, ...args], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => (stdout += String(chunk)));
    child.stderr.on('data', (chunk) => (stderr += String(chunk)));
    child.on('close', (status) => resolve({ status, stdout, stderr }));
  });
}

const documents = Array.from({ length: 500 }, (_, i) => ({
  Package: `package-${String(i).padStart(4, '0')}`,
  Size: i,
  Tags: ['x', i % 7],
}));
const ndjson = documents.map((document) => JSON.stringify(document)).join('\n');

for (const where of ['a folder', 'a node'] as const) {
  void t.test(`data commands on ${where}`, async (t) => {
    const cwd = tempFolder(t);
    const target = where === 'a node' ? ['--connect', `127.0.0.1:${(await startNode(t)).port}`] : ['--dir', path.join(cwd, 'store')];
    const flashvector = (...args: string[]): Promise<Result> => run(cwd, ...args, ...target);
    t.same(await flashvector('put', 'greeting', 'hello'), { status: 0, stdout: '', stderr: '' });
    t.same(await flashvector('get', 'greeting'), { status: 0, stdout: 'hello\n', stderr: '' });
    t.equal((await flashvector('put', 'object', '{"a":[1]}', '--value-json')).status, 0);
    t.equal((await flashvector('get', 'absent')).status, 1);
    t.equal((await flashvector('del', 'greeting')).status, 0);
    t.equal((await flashvector('del', 'greeting')).status, 1);
    fs.writeFileSync(path.join(cwd, 'packages.ndjson.gz'), gzipSync(ndjson));
    const loaded = JSON.parse((await flashvector('load', 'packages.ndjson.gz', '--key', 'Package', '--json')).stdout) as {
      entries: number;
    };
    t.equal(loaded.entries, 500);
    t.match((await flashvector('scan', '--prefix', 'package-01', '--limit', '2', '--keys')).stdout, 'package-0100\npackage-0101\n');
    t.match((await flashvector('scan', '--gt', 'package-0497', '--reverse', '--keys')).stdout, 'package-0499\npackage-0498\n');
    t.equal((await flashvector('scan', '--json')).stdout.trimEnd().split('\n').length, 501);
    t.equal((await flashvector('dump', '--out', 'dump.ndjson.gz')).status, 0);
    const dumped = gunzipSync(fs.readFileSync(path.join(cwd, 'dump.ndjson.gz')))
      .toString()
      .trimEnd()
      .split('\n');
    t.equal(dumped.length, 501);
    const first = JSON.parse(dumped[1]) as { key: string; value: unknown };
    t.equal(first.key, 'package-0000');
    t.same(typeof first.value === 'string' ? JSON.parse(first.value) : first.value, documents[0]);
    t.equal((await flashvector('dump', '--out', 'dump.ndjson.gz')).status, 2, 'what is there is not overwritten');
    t.match((await flashvector('stats')).stdout, /entries +501/);
    t.equal(
      (
        JSON.parse((await flashvector('load', 'dump.ndjson.gz', '--dumped', '--key-prefix', 'again:', '--json')).stdout) as {
          entries: number;
        }
      ).entries,
      501,
    );
    t.equal((await flashvector('get', 'again:package-0000')).stdout, (await flashvector('get', 'package-0000')).stdout);
    t.match(JSON.parse((await flashvector('bench', '--count', '2000', '--json')).stdout), { count: 2000 });
    fs.writeFileSync(path.join(cwd, 'bad.ndjson'), '{"Package":"a"}\n{"x":1}\n');
    t.match((await flashvector('load', 'bad.ndjson', '--key', 'Package')).stderr, /bad\.ndjson:2 has no field "Package"/);
    fs.writeFileSync(path.join(cwd, 'worse.ndjson'), '{');
    t.match(await flashvector('load', 'worse.ndjson'), { status: 2, stderr: /worse\.ndjson:1 is no JSON/ });
    t.match(await flashvector('load', 'absent.ndjson'), { status: 2, stderr: /ENOENT/ });
  });
}

void t.test('regression: a write that is refused while more is read ends `load` properly', async (t) => {
  const { port } = await startNode(t, { MaxMemoryBytes: 16 * 1024 * 1024 });
  const cwd = tempFolder(t);
  fs.writeFileSync(
    path.join(cwd, 'many.ndjson'),
    Array.from({ length: 3000 }, (_, i) => JSON.stringify({ i, text: 'x'.repeat(10_000) })).join('\n'),
  );
  t.match(await run(cwd, 'load', 'many.ndjson', '--connect', `127.0.0.1:${port}`), {
    status: 2,
    stderr: /^OOM command not allowed[^\n]*\n$/,
  });
});

void t.test('regression: what follows `--` is no option', (t) => {
  const cwd = tempFolder(t);
  const flashvector = (...args: string[]): Result => spawnSync(process.execPath, [CLI, ...args], { cwd, encoding: 'utf8' });
  t.equal(flashvector('put', '--dir', 'store', '--', 'x', '--help').status, 0);
  t.match(flashvector('get', 'x', '--dir', 'store'), { status: 0, stdout: '--help\n' });
  t.end();
});

void t.test('usage, help, versions, and what cannot be reached', async (t) => {
  const cwd = tempFolder(t);
  const flashvector = (...args: string[]): Result => spawnSync(process.execPath, [CLI, ...args], { cwd, encoding: 'utf8' });
  t.match(flashvector('--help'), { status: 0, stdout: /usage: flashvector COMMAND/ });
  t.match(flashvector('--version'), { status: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
  t.match(flashvector(), { status: 2, stderr: /a command is missing/ });
  t.match(flashvector('nope'), { status: 2, stderr: /no command "nope"/ });
  t.match(flashvector('get'), { status: 2, stderr: /get takes a key/ });
  t.match(flashvector('scan', '--limit', 'x'), { status: 2, stderr: /--limit is "x"/ });
  t.match(flashvector('get', 'a', '--dir', 'absent'), { status: 2, stderr: /FV_/ });
  t.match(flashvector('get', 'a', '--connect', '127.0.0.1:1'), { status: 2, stderr: /ECONNREFUSED|closed/ });
  t.equal(fs.existsSync(path.join(cwd, 'absent')), false);
});

void t.test('backup, verify and inspect', async (t) => {
  const cwd = tempFolder(t);
  const flashvector = (...args: string[]): Result => spawnSync(process.execPath, [CLI, ...args], { cwd, encoding: 'utf8' });
  flashvector('put', 'a', '1', '--dir', 'store');
  t.match(flashvector('backup', 'store', '--out', 'copy'), { status: 0, stdout: /1 entries copied/ });
  t.match(flashvector('verify', 'copy'), { status: 0, stdout: /no problems/ });
  t.match(flashvector('get', 'a', '--dir', 'copy'), { status: 0, stdout: '1\n' });
  t.ok(Array.isArray(JSON.parse(flashvector('inspect', 'copy', '--json').stdout)));
});

void t.test('regression: what dump writes, load makes again: bytes, keys that are not UTF-8, expiry, what JSON cannot tell', async (t) => {
  const cwd = tempFolder(t);
  const db = await open(path.join(cwd, 'from'));
  const later = Date.now() + 1_000_000;
  const values: [string | Uint8Array, unknown][] = [
    ['bytes', Buffer.from([0xff, 0xfe, 0, 1])],
    [Buffer.from([0xff, 0xfe]), 'under a key that is not UTF-8'],
    ['text', 'base64://8='],
    ['object', { a: [1, null, { b: 'c' }] }],
    ['map', new Map([[1, new Date(5)]])],
    ['big', 2n ** 70n],
    ['nothing', null],
    ['negative zero', -0],
    ['not a number', NaN],
    ['endless', -Infinity],
    ['lone surrogate', 'a\ud800b'],
    ['plain bytes', new Uint8Array([1, 2])],
    ['object with a date', { when: new Date(5), n: NaN, big: 2n, list: [{ bytes: Buffer.from('x') }] }],
    ['set of objects', new Set([{ a: 1 }])],
  ];
  for (const [key, value] of values) await db.put(key, value);
  await db.put('expires', 1, { expiresAt: later });
  // A moment that follows from the clock is one that can be said again, too.
  await db.put('lives for a while', 2, { ttl: 1_000_000.5 });
  const moment = db.getEntry('lives for a while')?.expiresAt;
  await db.put('briefly', 3, { ttl: 1 });
  await db.close();
  t.equal((await run(cwd, 'dump', '--dir', 'from', '--out', 'all.ndjson.gz')).status, 0);
  t.equal((await run(cwd, 'load', 'all.ndjson.gz', '--dumped', '--dir', 'to')).status, 0);
  const copy = await open(path.join(cwd, 'to'));
  for (const [key, value] of values) {
    const found = copy.get(key);
    t.ok(isDeepStrictEqual(found, value), String(key));
    if (typeof value === 'number') t.ok(Object.is(found, value), `${String(key)} to the sign`);
  }
  t.equal(copy.getEntry('expires')?.expiresAt, later);
  t.equal(copy.getEntry('lives for a while')?.expiresAt, moment);
  t.equal(copy.size, values.length + 2, 'what has expired is not there, not even for good');
  await copy.close();

  const { port } = await startNode(t);
  const node = ['--connect', `127.0.0.1:${port}`];
  t.equal((await run(cwd, 'load', 'all.ndjson.gz', '--dumped', ...node)).status, 0);
  t.equal((await run(cwd, 'dump', '--out', 'remote.ndjson', ...node)).status, 0);
  t.equal((await run(cwd, 'load', 'remote.ndjson', '--dumped', '--dir', 'again')).status, 0);
  const again = await open(path.join(cwd, 'again'));
  t.same(again.get('bytes'), Buffer.from([0xff, 0xfe, 0, 1]));
  t.equal(again.get(Buffer.from([0xff, 0xfe])), 'under a key that is not UTF-8');
  t.equal(again.get('object'), '{"a":[1,null,{"b":"c"}]}', 'RESP has strings only');
  t.equal(again.getEntry('expires')?.expiresAt, later);
  await again.close();
  const refused = [
    { key: 'x'.repeat(70_000), value: 1, expiresAt: later },
    { key: 'fine', value: 1, expiresAt: later },
  ];
  fs.writeFileSync(path.join(cwd, 'refused.ndjson'), refused.map((line) => JSON.stringify(line)).join('\n'));
  t.match(await run(cwd, 'load', 'refused.ndjson', '--dumped', '--dir', 'to'), { status: 2, stderr: /FV_KEY/ });
  fs.writeFileSync(path.join(cwd, 'no-dump.ndjson'), '{"key":1,"value":2}');
  t.match((await run(cwd, 'load', 'no-dump.ndjson', '--dumped', '--dir', 'to')).stderr, /no-dump\.ndjson:1 is no line of a dump/);
});

void t.test('with --json errors and writes answer in JSON; a node that is not there is named', async (t) => {
  const cwd = tempFolder(t);
  t.same(JSON.parse((await run(cwd, 'put', 'a', 'b', '--json')).stdout), { key: 'a', stored: true });
  t.same(JSON.parse((await run(cwd, 'del', 'a', '--json')).stdout), { key: 'a', deleted: true });
  t.match(JSON.parse((await run(cwd, 'nonsense', '--json')).stderr), { error: { code: 'usage', message: /nonsense/ } });
  t.match(await run(cwd, 'get', 'a', '--connect', '127.0.0.1:1'), {
    status: 2,
    stderr: /cannot connect to 127\.0\.0\.1:1: connect ECONNREFUSED/,
  });
  const wrong = await run(cwd, 'serve', '--bogus', '1', '--listen-addr', 'foo', '--config', 'absent.json', '--eviction', 'lru');
  t.equal(wrong.status, 2);
  for (const part of [
    '4 settings are wrong',
    'there is no flag --bogus',
    'ListenAddr from flag',
    'absent.json cannot be read',
    'Eviction is "lru"',
  ])
    t.match(wrong.stderr, part);
  t.match(JSON.parse((await run(cwd, 'config', '--listen-addr', ':7000', '--json')).stdout), {
    HttpAddr: { value: '127.0.0.1:8000', origin: 'default' },
  });
  t.match((await run(cwd, 'serve', '--help')).stdout, /Examples/);
});
