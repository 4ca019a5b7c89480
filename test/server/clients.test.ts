/** Clients that others have written: redis-cli, redis-benchmark, ioredis and node-redis, in RESP2 and RESP3. */

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { createClient, RESP_TYPES } from 'redis';
import t from 'tap';
import { NO_REDIS, startNode } from '../support/node-harness.js';
import { encodeCommand } from '../support/resp-client.js';

const run = promisify(execFile);
const binary = Buffer.from([0, 1, 0xff, 0x0d, 0x0a, 0x80]);

async function hasTools(): Promise<boolean> {
  return run('redis-cli', ['--version']).then(
    () => true,
    () => false,
  );
}

void t.test('redis-cli', async (t) => {
  if (!(await hasTools())) {
    t.pass(NO_REDIS, { skip: NO_REDIS }); // Debian's redis packages; CI installs them, elsewhere there is nothing to ask.
    return;
  }
  const { port } = await startNode(t, { RequirePass: 'secret' });
  const cli = async (...args: string[]): Promise<string> =>
    (await run('redis-cli', ['-p', String(port), '--no-auth-warning', '-a', 'secret', ...args])).stdout.trimEnd();
  t.equal(await cli('SET', 'greeting', 'hello world'), 'OK');
  t.equal(await cli('GET', 'greeting'), 'hello world');
  t.equal(await cli('-3', 'INCRBYFLOAT', 'pi', '3.25'), '3.25');
  t.equal(await cli('--scan', '--pattern', 'g*'), 'greeting');
  t.match(await cli('INFO', 'server'), /redis_version:7\.0/);
  t.match(await cli('-3', 'HELLO'), /proto/);
  t.match(await cli('--bigkeys'), /Biggest string/);
  t.match(await cli('--memkeys'), /greeting/);
  t.match(await cli('COMMAND', 'DOCS', 'get'), /summary/);
  t.equal(await cli('-n', '2', 'DBSIZE'), '0');
  t.match(await cli('--latency', '--raw', '-i', '1').catch(() => 'ok'), /./);
  // What comes on its standard input is a pipeline of commands on one connection: a transaction, and a subscription that hears another client.
  const session = (input: string, ...args: string[]): Promise<string> => {
    const child = execFile('redis-cli', ['-p', String(port), '--no-auth-warning', '-a', 'secret', ...args]);
    let out = '';
    child.stdout?.on('data', (chunk) => (out += String(chunk)));
    child.stdin?.end(input);
    return once(child, 'close').then(() => out);
  };
  t.equal(await session('MULTI\nSET m 1\nINCR m\nEXEC\n'), 'OK\nQUEUED\nQUEUED\nOK\n2\n');
  t.match(
    await session(Buffer.concat([encodeCommand(['SET', 'p', 'piped']), encodeCommand(['GET', 'p'])]).toString(), '--pipe'),
    /errors: 0, replies: 2/,
  );
  const listener = execFile('redis-cli', ['-p', String(port), '--no-auth-warning', '-a', 'secret', 'SUBSCRIBE', 'news']);
  let heard = '';
  listener.stdout?.on('data', (chunk) => (heard += String(chunk)));
  for (let i = 0; i < 200 && (await cli('PUBLISH', 'news', 'hello')) === '0'; i++);
  for (let i = 0; i < 100 && !heard.includes('hello'); i++) await new Promise((resolve) => setTimeout(resolve, 20));
  t.match(heard, /message\nnews\nhello/);
  listener.kill();
});

void t.test('redis-benchmark', async (t) => {
  if (!(await hasTools())) {
    t.pass(NO_REDIS, { skip: NO_REDIS }); // Debian's redis packages; CI installs them, elsewhere there is nothing to ask.
    return;
  }
  const { port } = await startNode(t);
  for (const pipeline of ['1', '16']) {
    const { stdout } = await run('redis-benchmark', [
      '-p',
      String(port),
      '-n',
      '20000',
      '-c',
      '50',
      '-P',
      pipeline,
      '-d',
      '100',
      '-t',
      'ping,set,get,incr,mset',
      '--csv',
    ]);
    t.match(stdout, /"SET"/);
    t.match(stdout, /"MSET/);
    t.notMatch(stdout, /error/i);
  }
});

void t.test('ioredis', async (t) => {
  const { port } = await startNode(t, { RequirePass: 'secret' });
  const redis = new Redis({ port, host: '127.0.0.1', password: 'secret', retryStrategy: () => 20 });
  t.teardown(() => redis.disconnect());
  t.equal(await redis.set('a', '1', 'EX', 100, 'NX'), 'OK');
  t.equal(await redis.set('a', '2', 'NX'), null);
  t.equal(await redis.incrby('a', 41), 42);
  t.equal(await redis.set(binary, binary), 'OK');
  t.same(await redis.getBuffer(binary), binary);
  const results = await redis.pipeline().set('p', 1).incr('p').get('p').ttl('a').exec();
  t.same(
    results?.map(([error, value]) => [error, value]),
    [
      [null, 'OK'],
      [null, 2],
      [null, '2'],
      [null, 100],
    ],
  );
  t.same(
    (await redis.multi().set('m', 1).incr('m').exec())?.map(([, value]) => value),
    ['OK', 2],
  );
  await redis.mset(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`scan:${i}`, String(i)])));
  const found: string[] = [];
  for await (const keys of redis.scanStream({ match: 'scan:*', count: 7 }) as AsyncIterable<string[]>) found.push(...keys);
  t.equal(new Set(found).size, 100);
  t.equal(found.length, 100);
  const listener = redis.duplicate();
  t.teardown(() => listener.disconnect());
  await listener.subscribe('news');
  const message = once(listener, 'message');
  await redis.publish('news', 'hello');
  t.same(await message, ['news', 'hello']);
  // Cut off, it comes back and goes on.
  const id = await redis.client('ID');
  const reconnected = once(redis, 'ready');
  const killer = redis.duplicate();
  await killer.call('CLIENT', 'KILL', 'ID', id);
  killer.disconnect();
  await reconnected;
  t.equal(await redis.get('a'), '42');
});

for (const RESP of [2, 3] as const) {
  void t.test(`node-redis, RESP${RESP}`, async (t) => {
    const { port } = await startNode(t);
    const client = createClient({ url: `redis://127.0.0.1:${port}`, RESP });
    client.on('error', () => undefined);
    await client.connect();
    t.teardown(() => client.destroy());
    t.equal(await client.set('a', '1', { EX: 100 }), 'OK');
    t.equal(await client.incr('a'), 2);
    t.equal(await client.get('a'), '2');
    t.equal(await client.get('absent'), null);
    const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    await client.set(binary, binary);
    t.same(await buffers.get(binary), binary);
    t.same(await client.multi().set('m', '1').incr('m').get('m').exec(), ['OK', 2, '2']);
    t.same(await client.mGet(['a', 'm', 'absent']), ['2', '2', null]);
    await Promise.all(Array.from({ length: 100 }, (_, i) => client.set(`scan:${i}`, `${i}`)));
    let count = 0;
    for await (const keys of client.scanIterator({ MATCH: 'scan:*' })) count += keys.length;
    t.equal(count, 100);
    const listener = client.duplicate();
    listener.on('error', () => undefined);
    await listener.connect();
    t.teardown(() => listener.destroy());
    const messages: string[] = [];
    await listener.subscribe('news', (message) => void messages.push(message));
    await listener.pSubscribe('n*', (message) => void messages.push(`p ${message}`));
    t.equal(await client.publish('news', 'hello'), 2);
    for (let i = 0; i < 100 && messages.length < 2; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    t.same(messages.sort(), ['hello', 'p hello']);
    await client.set(binary, 'under a binary key');
    t.equal(await client.get(binary), 'under a binary key');
    // Cut off, both come back, the listener with what it had subscribed to.
    const clients = (await client.sendCommand(['CLIENT', 'LIST'])) as unknown as string;
    // Not `once` of node:events: being cut off is an error event.
    const back = [client, listener].map((each) => new Promise<void>((resolve) => each.once('ready', () => resolve())));
    const killer = client.duplicate();
    await killer.connect();
    for (const [, id] of clients.matchAll(/^id=(\d+)/gm)) await killer.sendCommand(['CLIENT', 'KILL', 'ID', id]);
    killer.destroy();
    await Promise.all(back);
    t.equal(await client.get('a'), '2');
    for (let i = 0; i < 100 && (await client.publish('news', 'again')) < 2; i++) await new Promise((resolve) => setTimeout(resolve, 20));
    for (let i = 0; i < 100 && !messages.includes('again'); i++) await new Promise((resolve) => setTimeout(resolve, 10));
    t.ok(messages.includes('again') && messages.includes('p again'));
  });
}
