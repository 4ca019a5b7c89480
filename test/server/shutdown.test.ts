/**
 * Stopping a node: SIGTERM under load, again and again, loses nothing that was acknowledged; a second signal and the time-out end it at once, and lose nothing
 * either; SHUTDOWN does as a signal does. TLS, protected mode and real documents, as a process of its own serves them.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { open } from '../../src/index.js';
import { CLI, freePort, untilListening } from '../support/node-harness.js';
import { randomFrom, testSeed } from '../support/random.js';
import { RespClient, textOf } from '../support/resp-client.js';
import { tempFolder } from '../support/temp.js';

const ROUNDS = Number(process.env['FV_SIGTERM_ROUNDS'] ?? 100);
const ROUNDS_PER_STORE = 10;
const CLIENTS = 4;

interface Served {
  child: ChildProcess;
  port: number;
  output: () => string;
  exited: Promise<number | null>;
}

/** A module that makes `stop` of a node endless. */
const NODE_MODULE = new URL('../../src/server/node.js', import.meta.url).href;
const ENDLESS_STOP = `data:text/javascript,${encodeURIComponent(
  `import { FlashVectorNode } from '${NODE_MODULE}'; FlashVectorNode.prototype.stop = () => new Promise(() => undefined);`,
)}`;

async function serve(t: Tap.Test, folder: string, ...parameters: (string | Record<string, string>)[]): Promise<Served> {
  const flags = parameters.filter((parameter) => typeof parameter === 'string');
  const environment = Object.assign({}, ...parameters.filter((parameter) => typeof parameter !== 'string')) as Record<string, string>;
  const listen = flags.indexOf('--listen-addr');
  const port = listen < 0 ? await freePort() : Number(flags[listen + 1].split(':').at(-1));
  const child = spawn(
    process.execPath,
    [
      CLI,
      'serve',
      '--config',
      path.resolve('test/fixture/empty-config.json'),
      '--data-dir',
      folder,
      '--listen-addr',
      `:${port}`,
      '--http-addr',
      'off',
      ...flags,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env['PATH'], ...environment } },
  );
  let output = '';
  child.stdout.on('data', (chunk) => (output += String(chunk)));
  child.stderr.on('data', (chunk) => (output += String(chunk)));
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  t.teardown(() => child.exitCode ?? child.kill('SIGKILL'));
  await untilListening(port, child);
  return { child, port, output: () => output, exited };
}

/** Writes until the connection ends. @returns what was acknowledged */
async function writeUntilCut(port: number, name: string): Promise<Map<string, string>> {
  const acknowledged = new Map<string, string>();
  const client = await RespClient.connect(port);
  try {
    for (let i = 0; ; i++) {
      const keys = Array.from({ length: 10 }, (_, j) => `${name}:${i}:${j}`);
      for (const key of keys) client.send('SET', key, key.repeat(3));
      for (const key of keys) if ((await client.next()) === '+OK') acknowledged.set(key, key.repeat(3));
    }
  } catch {
    // The server has ended the connection.
  }
  return acknowledged;
}

async function missing(folder: string, acknowledged: Iterable<Map<string, string>>): Promise<string[]> {
  const db = await open(folder);
  const lost: string[] = [];
  for (const map of acknowledged) for (const [key, value] of map) if (db.get(key) !== value) lost.push(key);
  await db.close();
  return lost;
}

void t.test(`SIGTERM under load, ${ROUNDS} rounds: exit 0, and every acknowledged write is there`, { timeout: 600_000 }, async (t) => {
  const random = randomFrom(testSeed(t));
  let writes = 0;
  let badExits = 0;
  let lost = 0;
  let slowestMs = 0;
  let folder = '';
  let acknowledged: Map<string, string>[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    // Ten rounds on one folder, so stores are recovered that were stopped before. What one of them loses stays lost: no round writes another one's keys.
    if (round % ROUNDS_PER_STORE === 0) folder = path.join(tempFolder(t), 'data');
    const { child, port, exited, output } = await serve(t, folder, '--shutdown-timeout-seconds', '20');
    const writers = Array.from({ length: CLIENTS }, (_, i) => writeUntilCut(port, `r${round}c${i}`));
    await sleep(20 + random() * 80);
    const started = performance.now();
    child.kill('SIGTERM');
    const code = await exited;
    slowestMs = Math.max(slowestMs, performance.now() - started);
    if (code !== 0) {
      badExits++;
      t.comment(`round ${round}: exit ${code}\n${output()}`);
    }
    acknowledged.push(...(await Promise.all(writers)));
    if ((round + 1) % ROUNDS_PER_STORE !== 0 && round + 1 !== ROUNDS) continue;
    writes += acknowledged.reduce((sum, map) => sum + map.size, 0);
    const keys = await missing(folder, acknowledged);
    if (keys.length > 0) t.comment(`lost: ${keys.slice(0, 20).join()}`);
    lost += keys.length;
    acknowledged = [];
  }
  t.equal(badExits, 0);
  t.equal(lost, 0, `${writes} acknowledged writes`);
  t.ok(writes > ROUNDS * 10);
  t.ok(slowestMs < 20_000, `slowest stop ${Math.round(slowestMs)} ms`);
});

void t.test('a second signal, and the time-out, end it with 1 and lose nothing', async (t) => {
  for (const how of ['second signal', 'time-out'] as const) {
    const folder = path.join(tempFolder(t), 'data');
    // Nothing that a client does makes a shutdown take too long, so here it does not end by itself.
    const environment: Record<string, string> = how === 'time-out' ? { NODE_OPTIONS: `--import ${ENDLESS_STOP}` } : {};
    const { child, port, exited, output } = await serve(
      t,
      folder,
      '--shutdown-timeout-seconds',
      how === 'time-out' ? '1' : '60',
      environment,
    );
    const stuck = await RespClient.connect(port);
    const acknowledged = new Map<string, string>();
    for (let i = 0; i < 100; i++) if ((await stuck.call('SET', `k${i}`, `v${i}`)) === '+OK') acknowledged.set(`k${i}`, `v${i}`);
    const idle = net.connect(port, '127.0.0.1');
    idle.on('error', () => undefined);
    // Replies that nobody reads keep the connection from ending.
    const large = await RespClient.connect(port);
    await large.call('SET', 'large', Buffer.alloc(8 * 1024 * 1024, 'x'));
    idle.pause();
    idle.write('*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n'.repeat(20));
    await sleep(200);
    child.kill('SIGTERM');
    if (how === 'second signal') {
      await sleep(300);
      t.equal(child.exitCode, null, 'it waits for what is in flight');
      child.kill('SIGTERM');
    }
    t.equal(await exited, 1, output().slice(-300));
    idle.destroy();
    t.same(await missing(folder, [acknowledged]), []);
  }
});

void t.test('SHUTDOWN stops it as a signal does; a port that is taken and a folder in use are told', async (t) => {
  const folder = path.join(tempFolder(t), 'data');
  const { port, exited, output } = await serve(t, folder);
  const second = spawnSync(process.execPath, [CLI, 'serve', '--data-dir', folder, '--listen-addr', ':0', '--http-addr', 'off'], {
    encoding: 'utf8',
  });
  t.equal(second.status, 2);
  t.match(second.stderr, /in use by process/);
  const taken = spawnSync(process.execPath, [CLI, 'serve', '--data-dir', `${folder}2`, '--listen-addr', `:${port}`, '--http-addr', 'off'], {
    encoding: 'utf8',
  });
  t.equal(taken.status, 2);
  t.match(taken.stderr, /cannot listen on :\d+: .*EADDRINUSE/);
  const client = await RespClient.connect(port);
  t.equal(await client.call('SET', 'a', 1), '+OK');
  client.send('SHUTDOWN', 'NOSAVE');
  await client.closed();
  t.equal(await exited, 0);
  const events = output()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { msg: string; ms?: number; level: number });
  t.match(
    events.map(({ msg }) => msg),
    ['starting', 'store opened', 'ready', 'a client asked for shutdown', 'stopping', 'stopped'],
  );
  t.ok(events.filter(({ msg }) => ['store opened', 'ready', 'stopped'].includes(msg)).every(({ ms }) => typeof ms === 'number'));
});

void t.test('TLS, with and without client certificates', async (t) => {
  const cwd = tempFolder(t);
  const openssl = (...args: string[]): boolean => spawnSync('openssl', args, { cwd }).status === 0;
  const isMade =
    openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=ca', '-days', '2') &&
    openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'me.key', '-out', 'me.csr', '-subj', '/CN=localhost') &&
    openssl('x509', '-req', '-in', 'me.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'me.pem', '-days', '2');
  if (!isMade) {
    t.pass('openssl is not installed', { skip: 'openssl is not installed' }); // Node cannot make certificates, and none may lie in the repository to expire.
    return;
  }
  const read = (name: string): Buffer => fs.readFileSync(path.join(cwd, name));
  const certificates = [
    '--tls-cert-file',
    path.join(cwd, 'me.pem'),
    '--tls-key-file',
    path.join(cwd, 'me.key'),
    '--tls-ca-file',
    path.join(cwd, 'ca.pem'),
  ];
  const { port } = await serve(t, path.join(cwd, 'data'), ...certificates, '--tls-client-auth', 'required');
  const talk = async (options: tls.ConnectionOptions): Promise<string> => {
    const socket = tls.connect({ port, host: '127.0.0.1', ca: read('ca.pem'), servername: 'localhost', ...options });
    return new Promise((resolve) => {
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
      socket.on('close', () => resolve('closed'));
      socket.on('data', (chunk) => {
        resolve(String(chunk));
        socket.destroy();
      });
      socket.write('PING\r\n');
    });
  };
  t.equal(await talk({ cert: read('me.pem'), key: read('me.key') }), '+PONG\r\n');
  t.not(await talk({}), '+PONG\r\n', 'without a certificate');
  const plain = net.connect(port, '127.0.0.1');
  plain.on('error', () => undefined);
  let plainGot = '';
  plain.on('data', (chunk: Buffer) => (plainGot += chunk.toString('latin1')));
  plain.write('PING\r\n');
  await once(plain, 'close');
  t.notMatch(plainGot, /PONG|^[-+]/, 'a client without TLS is cut off without a reply');
  const missingFile = spawnSync(
    process.execPath,
    [CLI, 'serve', '--data-dir', path.join(cwd, 'x'), '--tls-cert-file', 'absent', '--tls-key-file', 'absent'],
    { encoding: 'utf8', cwd },
  );
  t.match(missingFile, { status: 2, stderr: /TlsCertFile is "absent", which cannot be read/ });
});

void t.test('protected mode refuses other machines while no password is set', async (t) => {
  const { networkInterfaces } = await import('node:os');
  const outside = Object.values(networkInterfaces())
    .flat()
    .find((address) => address !== undefined && !address.internal && address.family === 'IPv4')?.address;
  if (outside === undefined) {
    t.pass('no address but loopback', { skip: 'this machine has no address but loopback' }); // Nobody can come from outside here.
    return;
  }
  const ask = async (...flags: string[]): Promise<string> => {
    const { child, port, exited } = await serve(
      t,
      path.join(tempFolder(t), 'data'),
      '--listen-addr',
      `0.0.0.0:${await freePort()}`,
      ...flags,
    );
    const socket = net.connect(port, outside);
    socket.on('error', () => undefined);
    socket.write('PING\r\n');
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    socket.destroy();
    child.kill('SIGTERM');
    await exited;
    return String(chunk);
  };
  t.match(await ask(), /^-DENIED FlashVector is running in protected mode/);
  t.equal(await ask('--require-pass', 'secret'), '-NOAUTH Authentication required.\r\n');
  t.equal(await ask('--protected-mode', 'false'), '+PONG\r\n');
});

void t.test('real documents, loaded and read over every interface', { timeout: 120_000 }, async (t) => {
  const folder = path.join(tempFolder(t), 'data');
  const httpPort = await freePort();
  const { child, port, exited } = await serve(t, folder, '--http-addr', `:${httpPort}`);
  // The package files of every module that is installed, as one would get them anywhere.
  const lines: string[] = [];
  const modules = path.resolve('node_modules');
  for (const name of fs.readdirSync(modules)) {
    try {
      const document = JSON.parse(fs.readFileSync(path.join(modules, name, 'package.json'), 'utf8')) as { name: string };
      if (typeof document.name === 'string') lines.push(JSON.stringify(document));
    } catch {
      // A scope, or no package.
    }
  }
  const file = path.join(path.dirname(folder), 'documents.ndjson.gz');
  fs.writeFileSync(file, gzipSync(lines.join('\n')));
  const loaded = spawnSync(process.execPath, [CLI, 'load', file, '--key', 'name', '--json', '--connect', `127.0.0.1:${port}`], {
    encoding: 'utf8',
  });
  t.equal((JSON.parse(loaded.stdout) as { entries: number }).entries, lines.length);
  const { name } = JSON.parse(lines[0]) as { name: string };
  const redis = await RespClient.connect(port);
  t.equal(Buffer.from(textOf(await redis.call('GET', name)), 'latin1').toString(), lines[0]);
  const overHttp = (await (await fetch(`http://127.0.0.1:${httpPort}/kv/${encodeURIComponent(name)}`)).json()) as string;
  t.equal(overHttp, lines[0]);
  const size = Number(await redis.call('DBSIZE'));
  t.equal(((await (await fetch(`http://127.0.0.1:${httpPort}/kv`)).json()) as unknown[]).length, size);
  redis.close();
  child.kill('SIGTERM');
  t.equal(await exited, 0);
  const scanned = spawnSync(process.execPath, [CLI, 'scan', '--keys', '--dir', folder], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  t.equal(scanned.stdout.trimEnd().split('\n').length, size);
});
