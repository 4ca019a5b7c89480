/**
 * Clients that mean no good, or do not know better: random and mutated frames, pieces of frames, clients that vanish, do not read, or only sit there.
 *
 * FV_FUZZ_FRAMES and FV_FUZZ_SECONDS set how much is sent; in the suite it is time-boxed, a million frames by hand.
 */

import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ProtocolError } from '../../src/server/protocol-error.js';
import { RespParser } from '../../src/server/resp-parser.js';
import { startNode } from '../support/node-harness.js';
import { randomFrom, testSeed } from '../support/random.js';
import { encodeCommand, textOf } from '../support/resp-client.js';

const FRAMES = Number(process.env['FV_FUZZ_FRAMES'] ?? 1_000_000);
const SECONDS = Number(process.env['FV_FUZZ_SECONDS'] ?? 20);
const LIMITS = { argumentsMax: 1024 * 1024, bulkBytesMax: 1024 * 1024 };
const MIB = 1024 * 1024;

type Draw = (below: number) => number;

const WORDS = [
  'GET',
  'SET',
  'SET',
  'DEL',
  'MULTI',
  'EXEC',
  'DISCARD',
  'WATCH',
  'SCAN',
  'KEYS',
  'EXPIRE',
  'BITFIELD',
  'SETRANGE',
  'SETBIT',
  'APPEND',
  'LCS',
  'COPY',
  'HELLO',
  'CLIENT',
  'CONFIG',
  'COMMAND',
  'OBJECT',
  'SUBSCRIBE',
  'PSUBSCRIBE',
  'UNSUBSCRIBE',
  'PUBLISH',
  'PUBSUB',
  'MEMORY',
  'INFO',
  'SELECT',
  'FV.RANGE',
  'FV.COUNT',
  'RESET',
  'AUTH',
  'PING',
  'ECHO',
  'FLUSHDB',
  'BITOP',
  'GETEX',
  'MSETNX',
  'RANDOMKEY',
  'SORT',
  'NOPE',
  'DBSIZE',
  'INCRBYFLOAT',
];
const ARGS = [
  'a',
  'b',
  'c',
  '0',
  '1',
  '-1',
  '3',
  '100',
  'EX',
  'PX',
  'NX',
  'XX',
  'GET',
  'LIST',
  'ID',
  'IDX',
  'MATCH',
  'COUNT',
  '*',
  'u8',
  'i64',
  '#1',
  'OVERFLOW',
  'SAT',
  'LIMIT',
  'REVERSE',
  'PREFIX',
  '9223372036854775807',
  '1e400',
  '',
  '\0',
  '\r\n',
  '*1',
  '$5',
  'x'.repeat(300),
  '\xff\xfe',
];

/** A frame: a command that may make sense, then changed at random, or bytes without any sense. */
function makeFrame(draw: Draw): Buffer {
  const kind = draw(10);
  if (kind === 0) return Buffer.from(Array.from({ length: draw(40) }, () => draw(256)));
  if (kind === 1)
    return Buffer.from(
      ['*', '$', ':', '+', '\r', '\n', '1', '0', '-', '99999999999', ' ', '"'].map((word) => (draw(2) === 0 ? word : '')).join(''),
    );
  const args = [WORDS[draw(WORDS.length)], ...Array.from({ length: draw(6) }, () => ARGS[draw(ARGS.length)])];
  const frame = kind === 2 ? Buffer.from(`${args.join(' ')}\r\n`, 'latin1') : encodeCommand(args.map((arg) => Buffer.from(arg, 'latin1')));
  for (let changes = kind < 7 ? 0 : 1 + draw(3); changes > 0 && frame.length > 0; changes--) frame[draw(frame.length)] = draw(256);
  return kind === 9 ? frame.subarray(0, draw(frame.length + 1)) : frame;
}

void t.test('the parser takes anything, in pieces of any size', async (t) => {
  const random = randomFrom(testSeed(t));
  const draw: Draw = (below) => Math.floor(random() * below);
  const until = Date.now() + (SECONDS * 1000) / 2;
  let frames = 0;
  let errors = 0;
  while (frames < FRAMES && Date.now() < until) {
    const stream = Buffer.concat(Array.from({ length: 20 }, () => makeFrame(draw)));
    frames += 20;
    const whole = parseAll(new RespParser(LIMITS), [stream]);
    const pieces: Buffer[] = [];
    for (let at = 0; at < stream.length;) {
      const size = 1 + draw(30);
      pieces.push(stream.subarray(at, at + size));
      at += size;
    }
    const inPieces = parseAll(new RespParser(LIMITS), pieces);
    if (whole !== inPieces) {
      t.equal(inPieces, whole, `in pieces of ${stream.toString('hex')}`);
      break;
    }
    if (whole.includes('ERR')) errors++;
  }
  t.ok(errors > 0, `${frames} frames, ${errors} streams ended with an error`);
});

function parseAll(parser: RespParser, pieces: readonly Buffer[]): string {
  parser.isTrusted = true;
  const out: string[] = [];
  try {
    for (const piece of pieces) {
      parser.push(piece);
      for (let args = parser.next(); args !== undefined; args = parser.next()) out.push(args.map((arg) => arg.toString('hex')).join(','));
    }
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    out.push(error.message);
  }
  return out.join('\n');
}

void t.test('regression: what an argument needed is forgotten once it has come', async (t) => {
  const parser = new RespParser(LIMITS);
  const take = (text: string): string | undefined => {
    parser.push(Buffer.from(text));
    return parser.next()?.join(' ');
  };
  t.equal(take('*2\r\n$4\r\nECHO\r\n$30\r\n'), undefined);
  t.equal(take(`${'x'.repeat(30)}\r\nPI`), `ECHO ${'x'.repeat(30)}`);
  t.equal(parser.next(), undefined);
  t.equal(take('NG\r\n'), 'PING');
});

void t.test('regression: a line that ends in an escape', async (t) => {
  for (const line of ['"\\', '"\\x', '"\\x4', "'\\"]) {
    const parser = new RespParser(LIMITS);
    parser.push(Buffer.from(`${line}\r\n`));
    t.throws(() => parser.next(), { message: 'ERR Protocol error: unbalanced quotes in request' });
  }
});

/** Connections after which growth is watched. */
const WARMUP_CONNECTIONS = 20;

void t.test('the server takes anything, lives on, and does not grow', async (t) => {
  const { port, client, node } = await startNode(t, { Durability: 'memory', MaxMemoryBytes: 64 * MIB });
  const random = randomFrom(testSeed(t));
  const draw: Draw = (below) => Math.floor(random() * below);
  const until = Date.now() + SECONDS * 1000;
  const control = await client();
  let frames = 0;
  let connections = 0;
  let answered = 0;
  let rssAfterWarmup = 0;
  while (frames < FRAMES && Date.now() < until) {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    let received = 0;
    socket.on('data', (chunk: Buffer) => (received += chunk.length));
    await once(socket, 'connect');
    connections++;
    for (let burst = 0; burst < 10 && !socket.destroyed; burst++) {
      const batch = Array.from({ length: 50 }, () => makeFrame(draw));
      frames += batch.length;
      socket.write(Buffer.concat(batch));
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (draw(2) === 0) socket.destroy();
    else socket.end();
    if (connections % 100 === 0) {
      t.equal(await Promise.race([control.call('PING'), sleep(5000)]), '+PONG');
      await control.call('FLUSHALL');
    }
    answered += received;
    if (connections === WARMUP_CONNECTIONS) rssAfterWarmup = process.memoryUsage().rss;
  }
  t.ok(answered > 0, `${answered} bytes of replies`);
  t.ok(connections > WARMUP_CONNECTIONS, `${connections} connections`);
  t.equal(await control.call('PING'), '+PONG');
  for (let i = 0; i < 200 && Number(/connected_clients:(\d+)/.exec(textOf(await control.call('INFO', 'clients')))?.[1]) > 1; i++)
    await sleep(20);
  t.match(textOf(await control.call('INFO', 'clients')), /connected_clients:1\r/);
  const grownBy = process.memoryUsage().rss - rssAfterWarmup;
  t.ok(grownBy < 400 * MIB, `${frames} frames over ${connections} connections; ${Math.round(grownBy / MIB)} MiB more`);
  t.equal(node.db?.status, 'open');
});

void t.test('5,000 idle connections cost little, and serve on', async (t) => {
  const { port, client } = await startNode(t, { Durability: 'memory' });
  const before = process.memoryUsage().rss;
  const sockets: net.Socket[] = [];
  t.teardown(() => sockets.forEach((socket) => socket.destroy()));
  for (let i = 0; i < 5000; i += 100) {
    const batch = Array.from({ length: 100 }, () => net.connect(port, '127.0.0.1'));
    sockets.push(...batch);
    await Promise.all(batch.map((socket) => once(socket, 'connect')));
  }
  const redis = await client();
  t.match(textOf(await redis.call('INFO', 'clients')), /connected_clients:5001\r/);
  t.equal(await redis.call('SET', 'a', 1), '+OK');
  const eachBytes = (process.memoryUsage().rss - before) / 5000;
  // Both ends of each are in this process.
  t.ok(eachBytes < 64 * 1024, `${Math.round(eachBytes / 1024)} KiB for each`);
});

void t.test('a client that never reads stops being served, and holds nobody up', async (t) => {
  const { port, client } = await startNode(t, { Durability: 'memory' });
  const redis = await client();
  await redis.call('SET', 'large', Buffer.alloc(MIB, 'x'));
  const lazy = net.connect(port, '127.0.0.1');
  lazy.on('error', () => undefined);
  t.teardown(() => lazy.destroy());
  await once(lazy, 'connect');
  lazy.pause();
  lazy.write(Buffer.concat(Array.from({ length: 1000 }, () => encodeCommand(['GET', 'large']))));
  await sleep(300);
  const held = Math.max(...[...textOf(await redis.call('CLIENT', 'LIST')).matchAll(/omem=(\d+)/g)].map((match) => Number(match[1])));
  t.ok(held < 8 * MIB, `${held} bytes wait for it`);
  t.equal(await redis.call('PING'), '+PONG');
  // Once it reads it gets everything.
  let received = 0;
  lazy.on('data', (chunk: Buffer) => (received += chunk.length));
  lazy.resume();
  for (let i = 0; i < 1000 && received < 1000 * (MIB + 12); i++) await sleep(10);
  t.equal(received, 1000 * (MIB + '$1048576\r\n\r\n'.length));
});

void t.test('a subscriber that never reads is cut off', async (t) => {
  const { port, client } = await startNode(t, { Durability: 'memory', MaxOutputBytes: MIB });
  const redis = await client();
  const lazy = net.connect(port, '127.0.0.1');
  lazy.on('error', () => undefined);
  await once(lazy, 'connect');
  lazy.write(encodeCommand(['SUBSCRIBE', 'x']));
  await once(lazy, 'data');
  lazy.pause();
  const message = Buffer.alloc(100_000, 'x');
  let receivers = 1;
  for (let i = 0; i < 1000 && receivers === 1; i++) receivers = Number(await redis.call('PUBLISH', 'x', message));
  t.equal(receivers, 0);
});

void t.test('clients that vanish, and that close only their half', async (t) => {
  const { port, client, node } = await startNode(t);
  for (let i = 0; i < 50; i++) {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(
      Buffer.concat([
        encodeCommand(['MULTI']),
        encodeCommand(['SET', `gone${i}`, 1]),
        encodeCommand(['EXEC']),
        Buffer.from('*3\r\n$3\r\nSET'),
      ]),
    );
    if (i % 2 === 0) socket.resetAndDestroy();
    else socket.destroy();
  }
  const half = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  await once(half, 'connect');
  half.end(Buffer.concat(Array.from({ length: 100 }, (_, i) => encodeCommand(['SET', `half${i}`, i]))));
  let text = '';
  for await (const chunk of half) text += String(chunk);
  t.equal(text, '+OK\r\n'.repeat(100));
  t.equal(node.db?.get('half99'), '99');
  const redis = await client();
  for (let i = 0; i < 100 && !/connected_clients:1\r/.test(textOf(await redis.call('INFO', 'clients'))); i++) await sleep(10);
  t.match(textOf(await redis.call('INFO', 'clients')), /connected_clients:1\r/);
});
