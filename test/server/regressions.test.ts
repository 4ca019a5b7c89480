/** What was once wrong with the node, by name. */

import { once } from 'node:events';
import { spawnSync } from 'node:child_process';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FlashVectorNode } from '../../src/server/node.js';
import { Passwords } from '../../src/server/passwords.js';
import { startNode, settingsWith, MemoryLog } from '../support/node-harness.js';
import { encodeCommand, RespClient, textOf, type Reply } from '../support/resp-client.js';
import { tempFolder } from '../support/temp.js';

const bulk = (text: string): Reply => ({ bulk: text });
const commands = (...list: (string | number)[][]): Buffer => Buffer.concat(list.map(encodeCommand));

void t.test('replies of one client never go to another: a message wakes a subscriber with half a command', async (t) => {
  const { client } = await startNode(t);
  const [speaker, listener] = [await client(), await client()];
  await speaker.call('SET', 'secret', 'TOP-SECRET');
  await listener.call('SUBSCRIBE', 'ch');
  listener.socket.write('*1\r\n$4\r\nPI');
  await sleep(20);
  const replies = speaker.pipeline([
    ['SET', 'a', 1],
    ['GET', 'secret'],
    ['PUBLISH', 'ch', 'm'],
    ['ECHO', 'end'],
  ]);
  t.same(await replies, ['+OK', bulk('TOP-SECRET'), 1, bulk('end')]);
  t.same(await listener.next(), [bulk('message'), bulk('ch'), bulk('m')]);
  listener.socket.write('NG\r\n');
  t.same(await listener.next(), [bulk('pong'), bulk('')]);
});

void t.test('replies of one client never go to another: SHUTDOWN ends the others', async (t) => {
  const { client, node } = await startNode(t, { RequirePass: 'x' });
  const [master, stranger] = [await client(), await client()];
  await master.call('AUTH', 'x');
  await master.call('SET', 's', 'TOP');
  await stranger.call('PING').catch(() => undefined);
  let strangerGot = '';
  stranger.socket.on('data', (chunk: Buffer) => (strangerGot += String(chunk)));
  node.onShutdown = () => void node.stop('a test');
  master.socket.write(commands(['GET', 's'], ['SHUTDOWN'], ['SET', 's', 'too late']));
  t.same(await master.next(), bulk('TOP'));
  await Promise.all([master.closed(), stranger.closed()]);
  t.equal(strangerGot, '');
});

void t.test('CLIENT REPLY SKIP and OFF leave the replies before them as they are', async (t) => {
  const { client } = await startNode(t, { MaxMemoryBytes: 24 * 1024 * 1024 });
  const redis = await client();
  const large = 'v'.repeat(1_000_000);
  for (let i = 0; i < 100; i++) if ((await redis.call('SET', `k${i}`, large)) !== '+OK') break;
  redis.socket.write(commands(['SET', 'x', large], ['CLIENT', 'REPLY', 'SKIP'], ['PING'], ['EXISTS', 'x']));
  t.match(await redis.next(), /^-OOM/);
  t.equal(await redis.next(), 0);
  redis.socket.write(commands(['SET', 'x', large], ['CLIENT', 'REPLY', 'OFF'], ['PING'], ['CLIENT', 'REPLY', 'ON'], ['PING']));
  t.match(await redis.next(), /^-OOM/);
  t.equal(await redis.next(), '+OK');
  t.equal(await redis.next(), '+PONG');
  // As in Redis: SKIP twice skips the command behind the second one; inside MULTI it skips what is queued next.
  redis.socket.write(commands(['CLIENT', 'REPLY', 'SKIP'], ['CLIENT', 'REPLY', 'SKIP'], ['ECHO', 'skipped'], ['ECHO', 'shown']));
  t.same(await redis.next(), bulk('shown'));
});

void t.test('a silent client that publishes to itself gets whole messages', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  await redis.call('HELLO', 3);
  await redis.call('SUBSCRIBE', 'x');
  redis.socket.write(commands(['ECHO', 'hello-hello-hello-hello'], ['CLIENT', 'REPLY', 'SKIP'], ['PUBLISH', 'x', 'm'], ['PING']));
  t.same(await redis.next(), bulk('hello-hello-hello-hello'));
  t.same(await redis.next(), { push: [bulk('message'), bulk('x'), bulk('m')] });
  t.equal(await redis.next(), '+PONG');
});

void t.test('a command that fails inside MULTI has done nothing', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  for (const to of ['', '!db1!x', 'x'.repeat(70_000)]) {
    await redis.call('SET', 'a', 1);
    const [, , replies] = await redis.pipeline([['MULTI'], ['RENAME', 'a', to], ['EXEC']]);
    t.match((replies as Reply[])[0], /^-ERR/);
    t.same(await redis.call('GET', 'a'), bulk('1'));
  }
  await redis.pipeline([['MULTI'], ['MSET', 'p', 1, '', 2], ['EXEC']]);
  t.equal(await redis.call('EXISTS', 'p'), 0);
});

void t.test('a node that is told to stop while it starts does not come up', async (t) => {
  const node = new FlashVectorNode(settingsWith({ DataDir: tempFolder(t), HttpAddr: ':0' }), new MemoryLog(), '0.0.0-test');
  const started = node.start();
  const stopped = node.stop('a test');
  await t.rejects(started, { code: 'FV_ABORTED' });
  await stopped;
  t.equal(node.phase, 'stopped');
  t.not(node.db?.status, 'open');
});

void t.test('a client that closes its half gets everything that it has asked for, at its own pace', async (t) => {
  const { client, port, node } = await startNode(t, { Durability: 'memory' });
  const redis = await client();
  const value = 'x'.repeat(40_000);
  await redis.call('SET', 'k', value);
  const half = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  await once(half, 'connect');
  half.pause();
  half.end(Buffer.concat([...Array.from({ length: 500 }, () => encodeCommand(['GET', 'k'])), encodeCommand(['SET', 'last', 1])]));
  await sleep(1500);
  let received = 0;
  for await (const chunk of half) received += (chunk as Buffer).length;
  t.equal(received, 500 * (value.length + '$40000\r\n\r\n'.length) + 5);
  t.equal(node.db?.get('last'), '1');
});

void t.test('what follows QUIT is not run', async (t) => {
  const { client, node } = await startNode(t);
  const redis = await client();
  redis.socket.write(commands(['QUIT'], ['SET', 'after', 1]));
  t.equal(await redis.next(), '+OK');
  await redis.closed();
  t.equal(node.db?.has('after'), false);
});

void t.test('lengths below zero, as Redis takes them', async (t) => {
  const { client } = await startNode(t);
  for (const head of ['*-1', '*-2', '*-3', '*0']) {
    const redis = await client();
    redis.socket.write(`${head}\r\n*1\r\n$4\r\nPING\r\n`);
    t.equal(await redis.next(), '+PONG', head);
  }
  for (const length of ['-1', '-2', '-3']) {
    const redis = await client();
    redis.socket.write(`*1\r\n$${length}\r\n`);
    t.equal(await redis.next(), '-ERR Protocol error: invalid bulk length');
  }
});

void t.test('database 0 does not go through the keys of the others', async (t) => {
  const { client, node } = await startNode(t, { Durability: 'memory' });
  const redis = await client();
  const { db } = node;
  if (db === undefined) return;
  for (const key of ['!da', '!db0!x', '!db10', '!db16!x', '!db2', '!dc', 'a', '~']) await redis.call('SET', key, key);
  for (let n = 1; n < 16; n++) for (let i = 0; i < 200; i++) void db.sublevel(`db${n}`).put(`k${i}`, i);
  const before = db.stats().operations.reads;
  const sorted = ['!da', '!db0!x', '!db10', '!db16!x', '!db2', '!dc', 'a', '~'].map(bulk);
  t.same(await redis.call('FV.RANGE', 'KEYS'), sorted);
  t.same(await redis.call('FV.RANGE', 'KEYS', 'REVERSE'), [...sorted].reverse());
  t.same(await redis.call('FV.RANGE', 'KEYS', 'PREFIX', '!db1'), [bulk('!db10'), bulk('!db16!x')]);
  t.same(await redis.call('FV.RANGE', 'KEYS', 'GT', '!db10', 'LTE', '!dc'), ['!db16!x', '!db2', '!dc'].map(bulk));
  t.equal(await redis.call('FV.COUNT'), 8);
  t.equal(await redis.call('FV.COUNT', 'PREFIX', '!db1'), 2);
  t.equal(await redis.call('FV.COUNT', 'GT', '!db10', 'LTE', '!dc'), 3);
  t.equal(await redis.call('DBSIZE'), 8);
  t.ok(sorted.map(textOf).includes(textOf(await redis.call('RANDOMKEY'))));
  t.ok(db.stats().operations.reads - before < 3000);
});

void t.test('the version that a PUT tells is that of its own write', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  const put = async (i: number): Promise<string | null> =>
    (
      await fetch(`http://127.0.0.1:${node.httpPort}/kv/k`, {
        method: 'PUT',
        body: String(i),
        headers: { 'Content-Type': 'application/json' },
      })
    ).headers.get('etag');
  const tags = await Promise.all(Array.from({ length: 40 }, (_, i) => put(i)));
  t.equal(new Set(tags).size, 40);
  const { lsn } = node.node.db?.getEntry('k') ?? {};
  t.ok(tags.includes(`"${lsn}"`));
});

void t.test('an HTTP client that sends half a request does not hold up the end', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  const half = net.connect(node.httpPort, '127.0.0.1');
  half.on('error', () => undefined);
  await once(half, 'connect');
  half.write('GET /healthz HT');
  await sleep(50);
  const started = performance.now();
  await node.node.stop('a test');
  t.ok(performance.now() - started < 10_000);
  t.equal(node.node.db?.status, 'closed');
});

void t.test('a page from elsewhere cannot reach the node through a name of its own', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  const status = (host: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      http
        .get({ port: node.httpPort, host: '127.0.0.1', path: '/kv', headers: { Host: host } }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
        .on('error', reject);
    });
  t.equal(await status('evil.example.com'), 403);
  for (const host of ['localhost:1', '127.0.0.1', `127.0.0.1:${node.httpPort}`, '[::1]:80']) t.equal(await status(host), 200, host);
});

void t.test('guesses of a password come one after the other, however many connections there are', async (t) => {
  const { port } = await startNode(t, { RequirePass: 'right' });
  let answers = 0;
  const guess = async (): Promise<void> => {
    const client = await RespClient.connect(port);
    await client.call('AUTH', 'wrong').then(
      () => answers++,
      () => undefined,
    );
    client.close();
  };
  await guess();
  const started = performance.now();
  void Promise.all(Array.from({ length: 50 }, guess));
  await sleep(1000);
  t.ok(answers < 10, `${answers} answers in ${Math.round(performance.now() - started)} ms`);
});

void t.test('what a client may make the server keep is bounded', async (t) => {
  const { client, node } = await startNode(t, { Durability: 'memory' });
  const redis = await client();
  for (let i = 0; i < 3; i++) await redis.call('SET', `${i}${'k'.repeat(60_000)}`, 1);
  let first: string | undefined;
  for (let i = 0; i < 400; i++) {
    const [cursor] = (await redis.call('SCAN', 0, 'COUNT', 1)) as Reply[];
    first ??= textOf(cursor);
  }
  t.match(await redis.call('SCAN', first ?? ''), /^-ERR the cursor is unknown/, 'old cursors go when keys are long');
  await redis.call('MULTI');
  const chunk = 'x'.repeat(8 * 1024 * 1024);
  let last: Reply = '+QUEUED';
  for (let i = 0; i < 40 && last === '+QUEUED'; i++) last = await redis.call('SET', 'k', chunk);
  t.match(last, /^-ERR a transaction takes at most/);
  t.match(await redis.call('EXEC'), /^-EXECABORT/);
  t.equal(node.db?.has('k'), false);
});

void t.test('a subscriber that does not read is cut off while its own command waits', async (t) => {
  const { client, node } = await startNode(t, { RequirePass: 'x', MaxOutputBytes: 64 * 1024 });
  const [speaker, listener] = [await client(), await client()];
  await speaker.call('AUTH', 'x');
  await listener.call('HELLO', '3', 'AUTH', 'default', 'x');
  await listener.call('SUBSCRIBE', 'ch');
  listener.socket.pause();
  // The answer to a wrong password takes its time.
  for (let i = 0; i < 5; i++) listener.socket.write(commands(['AUTH', 'wrong']));
  await sleep(30);
  const message = 'm'.repeat(10_000);
  for (let i = 0; i < 200; i++) await speaker.call('PUBLISH', 'ch', message);
  t.equal(await speaker.call('PUBLISH', 'ch', 'last'), 0, 'it is gone');
  t.equal(node.db?.status, 'open');
});

void t.test('what is queued in MULTI does not keep the pieces that it came in', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  await redis.call('SET', 'a', 'v');
  await redis.call('MULTI');
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  // Empty lines are no commands, so each piece of 64 KiB brings one.
  const piece = Buffer.concat([Buffer.alloc(64 * 1024 - 64, '\r\n'), Buffer.from('\r\n'), encodeCommand(['GET', 'a'])]);
  for (let i = 0; i < 3000; i++) {
    redis.socket.write(piece);
    if ((await redis.next()) !== '+QUEUED') t.fail(`command ${i} was not queued`);
  }
  const grownMb = (process.memoryUsage().rss - before) / 2 ** 20;
  t.ok(grownMb < 120, `${Math.round(grownMb)} MB more, of 190 that came`);
  t.equal(((await redis.call('EXEC')) as Reply[]).length, 3000);
});

void t.test('others get their turn between slow commands that came together', async (t) => {
  const { client, node } = await startNode(t, { Durability: 'memory' });
  const [slow, other] = [await client(), await client()];
  for (let i = 0; i < 50_000; i++) void node.db?.put(`key:${i}`, 1);
  await node.db?.flush();
  let isOver = false;
  const all = slow.pipeline(Array.from({ length: 200 }, () => ['KEYS', '*zz'])).then(() => {
    isOver = true;
  });
  await sleep(20);
  t.equal(await other.call('PING'), '+PONG');
  t.notOk(isOver, 'the answer came in between');
  await all;
});

void t.test('a client whose command waits at the gate is not idle', async (t) => {
  const { client } = await startNode(t, { TimeoutSeconds: 1 });
  const [pauser, waiting] = [await client(), await client()];
  await pauser.call('SET', 'a', 'v');
  await pauser.call('CLIENT', 'PAUSE', 2500);
  t.same(await waiting.call('GET', 'a'), bulk('v'));
});

void t.test('right passwords are answered while a host has been wrong', async (t) => {
  const { client, httpPort } = await startNode(t, { RequirePass: 'right', HttpAddr: ':0' });
  const wrong = await client();
  for (let i = 0; i < 4; i++) t.match(await wrong.call('AUTH', 'no'), /^-WRONGPASS/);
  const ask = (token: string): Promise<number> =>
    fetch(`http://127.0.0.1:${httpPort}/kv`, { headers: { Authorization: `Bearer ${token}` } }).then(async (response) => {
      await response.text();
      return response.status;
    });
  t.same(new Set(await Promise.all(Array.from({ length: 100 }, () => ask('right')))), new Set([200]));
  const clients = await Promise.all(Array.from({ length: 80 }, client));
  t.same(new Set(await Promise.all(clients.map((each) => each.call('AUTH', 'right')))), new Set(['+OK']));
});

void t.test('who guesses fast is made to wait, and is not told wrong what was not looked at', async (t) => {
  const passwords = new Passwords('right');
  const verdicts = new Map<string, number>();
  const tries = Array.from({ length: 200 }, async (_, i) => {
    const verdict = await passwords.check('10.0.0.1:1', `guess ${i}`);
    verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
  });
  await sleep(50);
  t.ok((verdicts.get('busy') ?? 0) >= 100, 'not all are looked at');
  t.equal(await passwords.check('10.0.0.2:1', 'right'), 'right', 'another host is not concerned');
  t.equal(await passwords.check('10.0.0.1:1', 'right'), 'busy', 'so many wait that even this is not heard');
  passwords.close();
  await Promise.all(tries);
  t.notOk(verdicts.has('right'));
});

void t.test('a silent connection to a TLS port holds up no shutdown', async (t) => {
  const folder = tempFolder(t);
  const made = spawnSync(
    'openssl',
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'k.pem', '-out', 'c.pem', '-subj', '/CN=localhost', '-days', '2'],
    { cwd: folder },
  );
  if (made.status !== 0) {
    t.pass('openssl is not installed', { skip: 'openssl is not installed' }); // Node cannot make certificates, and none may lie in the repository to expire.
    return;
  }
  const files = { TlsCertFile: path.join(folder, 'c.pem'), TlsKeyFile: path.join(folder, 'k.pem') };
  const { node, port, httpPort } = await startNode(t, { ...files, HttpAddr: ':0', MaxClients: 10, ShutdownTimeoutSeconds: 60 });
  const silent = [port, httpPort].flatMap((each) => Array.from({ length: 30 }, () => net.connect(each, '127.0.0.1')));
  let ended = 0;
  for (const socket of silent) socket.on('error', () => undefined).on('close', () => ended++);
  await sleep(200);
  t.ok(ended >= 20, `${ended} of those that are too many are ended`);
  const started = performance.now();
  await node.stop('a test');
  t.ok(performance.now() - started < 5000, 'it stops at once');
  await sleep(100);
  t.equal(ended, silent.length);
});

for (const [seconds, within, why] of [
  [60, 15_000, 'it took nothing for five seconds'],
  [3, 2900, 'seven tenths of the time are over'],
] as const)
  void t.test(`a client that never reads is cut off at a shutdown, though more of its commands wait: ${why}`, async (t) => {
    const { node, port, client } = await startNode(t, { ShutdownTimeoutSeconds: seconds });
    const redis = await client();
    await redis.call('SET', 'large', 'x'.repeat(100_000));
    const deaf = net.connect(port, '127.0.0.1');
    deaf.on('error', () => undefined);
    deaf.pause();
    deaf.write(commands(...Array.from({ length: 600 }, () => ['GET', 'large'])));
    await sleep(300);
    const started = performance.now();
    await node.stop('a test');
    t.ok(performance.now() - started < within, 'before the time is up');
    deaf.destroy();
  });

void t.test('without a password only real names of this machine are answered', async (t) => {
  const { httpPort } = await startNode(t, { HttpAddr: ':0' });
  const status = async (host: string): Promise<number> => {
    const request = http.get({ port: httpPort, host: '127.0.0.1', path: '/stats', headers: { Host: host } });
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    response.resume();
    return response.statusCode ?? 0;
  };
  for (const host of ['localhost', '127.0.0.1', `127.0.0.1:${httpPort}`, '127.1.2.3', '[::1]']) t.equal(await status(host), 200, host);
  for (const host of ['127.evil.com', '127.0.0.1.evil.com', 'evil.com', '127.0.0.1x']) t.equal(await status(host), 403, host);
});

void t.test('requests that come together over HTTP see what those before them have done', async (t) => {
  const { httpPort } = await startNode(t, { HttpAddr: ':0' });
  const socket = net.connect(httpPort, '127.0.0.1');
  let got = '';
  socket.on('data', (chunk: Buffer) => (got += String(chunk)));
  const request = (method: string, body = ''): string =>
    `${method} /kv/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  socket.write(request('PUT', '1') + request('GET') + request('PUT', '2') + request('DELETE') + request('GET'));
  for (let i = 0; i < 100 && (got.match(/HTTP\/1\.1/g) ?? []).length < 5; i++) await sleep(20);
  t.same(
    [...got.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status)),
    [201, 200, 204, 204, 404],
  );
  socket.destroy();
});

void t.test('options are not looked for in what every object has', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  await redis.call('SET', 'k', 'v');
  t.match(await redis.call('EXPIRE', 'k', 10, 'constructor'), /^-ERR Unsupported option/);
  t.match(await redis.call('CLIENT', 'constructor'), /^-ERR unknown subcommand/);
  t.match(await redis.call('SHUTDOWN', 'SAVE', 'NOSAVE'), /^-ERR syntax error/);
  t.match(await redis.call('FUNCTION', 'FLUSH', 'FOO'), /^-ERR FUNCTION FLUSH only supports/);
  t.match(await redis.call('CLIENT', 'LIST', 'TYPE', 'foo'), /^-ERR Unknown client type/);
  t.equal(await redis.call('CLIENT', 'KILL', 'TYPE', 'PUBSUB', 'SKIPME', 'YES'), 0);
});

void t.test('INFO says how many keys expire', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  await redis.call('SET', 'a', 1, 'EX', 100);
  await redis.call('SET', 'b', 1);
  await redis.call('SELECT', 3);
  await redis.call('SET', 'c', 1, 'EX', 100);
  const text = textOf(await redis.call('INFO', 'keyspace'));
  t.match(text, 'db0:keys=2,expires=1,');
  t.match(text, 'db3:keys=1,expires=1,');
});

void t.test('what makes no sense behind a request over HTTP does not get into its answer', async (t) => {
  const { httpPort, node } = await startNode(t, { HttpAddr: ':0', Durability: 'memory' });
  for (let i = 0; i < 20_000; i++) void node.db?.put(`k${i}`, 'v'.repeat(500));
  await node.db?.flush();
  const talk = (text: string): Promise<string> =>
    new Promise((resolve) => {
      const socket = net.connect(httpPort, '127.0.0.1');
      let got = '';
      socket.on('data', (chunk: Buffer) => (got += String(chunk)));
      socket.on('close', () => resolve(got));
      socket.write(text);
    });
  const list = await talk('GET /kv HTTP/1.1\r\nHost: localhost\r\n\r\n\0\0garbage\r\n\r\n');
  t.equal(list.match(/HTTP\/1\.1/g)?.length, 1);
  t.match(list.slice(-20), /0\r\n\r\n$/, 'the list came to its end');
  const put = await talk('PUT /kv/pg HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1\0\0garbage\r\n\r\n');
  t.match(put, /^HTTP\/1\.1 201/);
  t.notMatch(put, ' 400 ');
  t.match(await talk('\0\0garbage\r\n\r\n'), /^HTTP\/1\.1 400 .*"bad_request"/s);
});

void t.test('a password need not be ASCII, over HTTP as over RESP', async (t) => {
  const { client, httpPort } = await startNode(t, { RequirePass: 'pässword', HttpAddr: ':0' });
  t.equal(await (await client()).call('AUTH', 'pässword'), '+OK');
  const request = http.get({
    port: httpPort,
    host: '127.0.0.1',
    path: '/kv',
    headers: { Authorization: `Bearer ${Buffer.from('pässword').toString('latin1')}` },
  });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  response.resume();
  t.equal(response.statusCode, 200);
});
