/** What was once wrong with the node, by name. */

import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FlashVectorNode } from '../../src/server/node.js';
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
