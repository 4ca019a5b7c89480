/** The RESP server, as its clients meet it: what the comparison with Redis does not show. */

import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { crc64, dumpString, restoreString } from '../../src/server/rdb-string.js';
import { NO_REDIS, startNode, startRedis } from '../support/node-harness.js';
import { randomFrom, testSeed } from '../support/random.js';
import { RespClient, encodeCommand, textOf, type Reply } from '../support/resp-client.js';

const bulk = (text: string): Reply => ({ bulk: text });

void t.test('a saturating bit field takes the least of all integers for its own least, where Redis 7.0.15 takes its largest', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  for (const [field, least] of [
    ['i8', -128],
    ['i40', -549755813888],
  ] as const) {
    await redis.call('BITFIELD', 'bits', 'OVERFLOW', 'SAT', 'SET', field, 0, '-9223372036854775808');
    t.same(await redis.call('BITFIELD', 'bits', 'GET', field, 0), [least]);
  }
});

void t.test('what the library puts is read through RESP, and the other way round', async (t) => {
  const { node, client } = await startNode(t);
  const { db } = node;
  if (db === undefined) return;
  const redis = await client();
  await db.put('object', { name: 'Ada', tags: ['a'], n: 1n, at: new Date(0), set: new Set([1]), map: new Map([['x', 2]]) });
  await db.put('number', 1.5);
  await db.put('null', null);
  await db.put('bytes', Buffer.from([0xff, 0]));
  t.same(JSON.parse(textOf(await redis.call('GET', 'object'))), {
    name: 'Ada',
    tags: ['a'],
    n: '1',
    at: '1970-01-01T00:00:00.000Z',
    set: [1],
    map: { x: 2 },
  });
  t.same(await redis.call('MGET', 'number', 'null', 'bytes', 'absent'), [bulk('1.5'), bulk('null'), bulk('\xff\0'), null]);
  t.equal(await redis.call('SET', 'text', 'grüße'), '+OK');
  t.equal(await redis.call('SET', 'binary', Buffer.from([0xc3, 0x28])), '+OK');
  t.equal(db.get('text'), 'grüße');
  t.same(db.get('binary'), new Uint8Array([0xc3, 0x28]));
  t.ok([...db.keys()].every((key) => typeof key === 'string'));
  t.equal(await redis.call('SET', Buffer.from([0xff, 1]), 'x'), '+OK');
  t.equal(db.get(new Uint8Array([0xff, 1])), 'x');
  t.equal(await redis.call('INCR', 'number'), '-ERR value is not an integer or out of range');
  await db.put('count', 41);
  t.equal(await redis.call('INCR', 'count'), 42);
  // Expiry and an object's own kind survive EXPIRE, COPY and RENAME.
  await redis.call('EXPIRE', 'object', 1000);
  await redis.call('COPY', 'object', 'copy');
  await redis.call('RENAME', 'copy', 'renamed');
  t.equal((db.get('renamed') as { name: string }).name, 'Ada');
  t.ok(db.ttl('renamed') > 990_000);
});

void t.test('databases are separate, and sublevels of the store', async (t) => {
  const { node, client } = await startNode(t);
  const redis = await client();
  await redis.pipeline([
    ['SET', 'a', 0],
    ['SET', '!x', 0],
    ['SELECT', 3],
    ['SET', 'a', 3],
    ['SET', 'b', 3],
  ]);
  t.equal(node.db?.sublevel('db3').get('a'), '3');
  t.same(await redis.pipeline([['DBSIZE'], ['KEYS', '*'], ['SELECT', 0], ['DBSIZE'], ['KEYS', '*'], ['FV.COUNT'], ['FV.RANGE', 'KEYS']]), [
    2,
    [bulk('a'), bulk('b')],
    '+OK',
    2,
    [bulk('!x'), bulk('a')],
    2,
    [bulk('!x'), bulk('a')],
  ]);
  t.match(await redis.call('SET', '!db3!a', 1), /^-ERR keys that begin/);
  t.match(await redis.call('GET', ''), /^-ERR a key has 1 to/);
  t.match(textOf(await redis.call('INFO', 'keyspace')), /db0:keys=2,.*\r\ndb3:keys=2,/s);
  t.same(await redis.pipeline([['FLUSHDB'], ['DBSIZE'], ['SELECT', 3], ['DBSIZE'], ['FLUSHALL'], ['DBSIZE']]), [
    '+OK',
    0,
    '+OK',
    2,
    '+OK',
    0,
  ]);
  t.equal(node.db?.size, 0);
});

void t.test('ranges, counts, statistics, checkpoints', async (t) => {
  const { client } = await startNode(t);
  const redis = await client();
  await redis.pipeline(Array.from({ length: 100 }, (_, i) => ['SET', `k${String(i).padStart(3, '0')}`, i]));
  t.same(await redis.call('FV.RANGE', 'GTE', 'k010', 'LT', 'k012'), [bulk('k010'), bulk('10'), bulk('k011'), bulk('11')]);
  t.same(await redis.call('FV.RANGE', 'PREFIX', 'k09', 'REVERSE', 'LIMIT', 2, 'KEYS'), [bulk('k099'), bulk('k098')]);
  t.equal(await redis.call('FV.COUNT', 'GT', 'k010'), 89);
  t.match(await redis.call('FV.RANGE', 'NOPE'), /syntax error/);
  t.match(await redis.call('FV.RANGE', 'LIMIT', -1), /LIMIT is/);
  t.equal(JSON.parse(textOf(await redis.call('FV.STATS'))).entries, 100);
  t.equal(typeof (await redis.call('FV.CHECKPOINT')), 'number');
  t.equal(await redis.call('SAVE'), '+OK');
  t.equal(await redis.call('BGSAVE'), '+Background saving started');
  t.ok(Number(await redis.call('LASTSAVE')) > 1_700_000_000);
  t.match(await redis.call('DEBUG', 'SLEEP', 1), /^-ERR DEBUG command not allowed/);
  t.equal(await redis.call('FUNCTION', 'FLUSH'), '+OK');
  t.equal(await redis.call('WAIT', 0, 100), 0);
  t.ok(Number(await redis.call('MEMORY', 'USAGE', 'k001')) > 60);
});

void t.test('SCAN meets every key once that is there all the time, while others come and go', async (t) => {
  const { client } = await startNode(t, { Durability: 'memory' });
  const redis = await client();
  for (let i = 0; i < 500; i++) redis.send('SET', `stay:${i}`, i);
  for (let i = 0; i < 500; i++) await redis.next();
  const seen = new Map<string, number>();
  let cursor = '0';
  let step = 0;
  do {
    const [next, keys] = (await redis.call('SCAN', cursor, 'MATCH', 'stay:*', 'COUNT', 37)) as [Reply, Reply[]];
    for (const key of keys) seen.set(textOf(key), (seen.get(textOf(key)) ?? 0) + 1);
    await redis.call('SET', `come:${step}`, 1);
    await redis.call('DEL', `come:${step - 1}`);
    step++;
    cursor = textOf(next);
  } while (cursor !== '0');
  t.equal(seen.size, 500);
  t.ok([...seen.values()].every((count) => count === 1));
  t.match(await redis.call('SCAN', '12345678'), /^-ERR the cursor is unknown/);
});

void t.test('publish and subscribe, in both protocols', async (t) => {
  const { client } = await startNode(t);
  const [two, three, speaker] = [await client(), await client(), await client()];
  await three.call('HELLO', 3);
  t.same(await two.call('SUBSCRIBE', 'news'), [bulk('subscribe'), bulk('news'), 1]);
  t.same(await two.call('PSUBSCRIBE', 'n?ws'), [bulk('psubscribe'), bulk('n?ws'), 2]);
  t.same(await three.call('SUBSCRIBE', 'news'), { push: [bulk('subscribe'), bulk('news'), 1] });
  t.match(await two.call('GET', 'x'), /^-ERR Can't execute 'get'/);
  t.equal(await three.call('GET', 'x'), null);
  t.same(await two.call('PING'), [bulk('pong'), bulk('')]);
  t.equal(await speaker.call('PUBLISH', 'news', 'hello'), 3);
  t.same(await two.next(), [bulk('message'), bulk('news'), bulk('hello')]);
  t.same(await two.next(), [bulk('pmessage'), bulk('n?ws'), bulk('news'), bulk('hello')]);
  t.same(await three.next(), { push: [bulk('message'), bulk('news'), bulk('hello')] });
  t.same(await speaker.call('PUBSUB', 'CHANNELS'), [bulk('news')]);
  t.same(await speaker.call('PUBSUB', 'NUMSUB', 'news', 'old'), [bulk('news'), 2, bulk('old'), 0]);
  t.equal(await speaker.call('PUBSUB', 'NUMPAT'), 1);
  // In a transaction it goes out once, and only when the transaction does.
  t.same(await speaker.pipeline([['MULTI'], ['PUBLISH', 'news', 'in'], ['EXEC']]), ['+OK', '+QUEUED', [3]]);
  t.same(await two.next(), [bulk('message'), bulk('news'), bulk('in')]);
  await two.next();
  t.same(await two.call('UNSUBSCRIBE'), [bulk('unsubscribe'), bulk('news'), 1]);
  t.same(await two.call('PUNSUBSCRIBE'), [bulk('punsubscribe'), bulk('n?ws'), 0]);
  t.same(await two.call('UNSUBSCRIBE'), [bulk('unsubscribe'), null, 0]);
  t.equal(await two.call('PING'), '+PONG');
  three.close();
  for (let i = 0; i < 100 && (await speaker.call('PUBLISH', 'news', 'x')) !== 0; i++) await sleep(10);
  t.equal(await speaker.call('PUBLISH', 'news', 'x'), 0);
});

void t.test('a watched key changed by anybody ends the transaction', async (t) => {
  const { node, client } = await startNode(t);
  const [one, other] = [await client(), await client()];
  const attempt = async (change: () => Promise<unknown>): Promise<Reply> => {
    await one.call('WATCH', 'k');
    await one.call('MULTI');
    await one.call('SET', 'k', 'mine');
    await change();
    return one.call('EXEC');
  };
  t.equal(await attempt(() => other.call('SET', 'k', 'theirs')), null);
  t.equal(await attempt(async () => node.db?.put('k', 'the library')), null);
  t.equal(await attempt(() => other.call('DEL', 'k')), null);
  t.equal(
    await attempt(() =>
      other.pipeline([
        ['SET', 'k', 1],
        ['DEL', 'k'],
      ]),
    ),
    null,
    'also when it is as before',
  );
  t.same(await attempt(() => other.call('SET', 'another', 1)), ['+OK']);
  t.same(
    await one.pipeline([['MULTI'], ['NOPE'], ['SET', 'k', 1], ['EXEC']]).then((replies) => replies[3]),
    '-EXECABORT Transaction discarded because of previous errors.',
  );
  t.same(await one.call('GET', 'k'), bulk('mine'));
  // One record of the log, whatever it holds.
  const before = node.db?.stats().log.lastLsn ?? 0;
  await one.pipeline([['MULTI'], ['SET', 'x', 1], ['INCR', 'x'], ['MSET', 'y', 1, 'z', 2], ['DEL', 'y'], ['EXEC']]);
  t.equal(node.db?.stats().log.lastLsn, before + 1);
});

void t.test('password, protected commands, and how long a stranger may speak', async (t) => {
  const { client, log, port } = await startNode(t, { RequirePass: 'correct horse' });
  const redis = await client();
  t.equal(await redis.call('GET', 'a'), '-NOAUTH Authentication required.');
  t.match(await redis.call('AUTH', 'wrong'), /^-WRONGPASS/);
  t.match(await redis.call('HELLO', 3, 'AUTH', 'default', 'wrong'), /^-WRONGPASS/);
  t.match(await redis.call('HELLO', 3), /^-NOAUTH HELLO must/);
  t.match(await redis.call('AUTH', 'somebody', 'correct horse'), /^-WRONGPASS/);
  t.equal(await redis.call('AUTH', 'correct horse'), '+OK');
  t.equal(await redis.call('SET', 'a', 1), '+OK');
  t.same(await redis.call('CONFIG', 'GET', 'requirepass'), [bulk('requirepass'), bulk('')]);
  const another = await client();
  t.ok('map' in (((await another.call('HELLO', 3, 'AUTH', 'default', 'correct horse', 'SETNAME', 'me')) as object) ?? {}));
  t.same(await another.call('CLIENT', 'GETNAME'), bulk('me'));
  t.equal(await another.call('RESET'), '+RESET');
  t.equal(await another.call('GET', 'a'), '-NOAUTH Authentication required.');
  for (const [sent, expected] of [
    ['*11\r\n', 'unauthenticated multibulk length'],
    ['*1\r\n$20000\r\n', 'unauthenticated bulk length'],
  ]) {
    const stranger = await RespClient.connect(port);
    stranger.socket.write(sent);
    t.equal(await stranger.next(), `-ERR Protocol error: ${expected}`);
    await stranger.closed();
  }
  const said = JSON.stringify(log.lines) + textOf(await redis.call('INFO')) + textOf(await redis.call('CLIENT', 'LIST'));
  t.notMatch(said, /correct horse/);
});

void t.test('a follower refuses writes and names the leader', async (t) => {
  const { client } = await startNode(t, { Role: 'follower', LeaderAddr: '10.0.0.1:8080' });
  const redis = await client();
  t.equal(await redis.call('SET', 'a', 1), "-READONLY You can't write against a read only replica. The leader is 10.0.0.1:8080.");
  t.equal(await redis.call('GET', 'a'), null);
  t.same(await redis.call('ROLE'), [bulk('slave'), bulk('10.0.0.1'), 8080, bulk('connect'), 0]);
  t.match(textOf(await redis.call('INFO', 'replication')), /role:slave/);
});

void t.test('HTTP to the RESP port is cut off, and runs nothing', async (t) => {
  const { client, node, log } = await startNode(t);
  for (const request of [
    'POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET hacked 1\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET hacked 1\r\n',
  ]) {
    const browser = await client();
    browser.socket.write(request);
    await browser.closed();
  }
  t.equal(node.db?.has('hacked'), false);
  t.ok(log.lines.some(({ level, message }) => level === 'warn' && message.startsWith('an HTTP request came')));
});

void t.test('clients are listed, named, killed, and told to be silent', async (t) => {
  const { client } = await startNode(t, { MaxClients: 4 });
  const [redis, other] = [await client(), await client()];
  await other.call('CLIENT', 'SETNAME', 'other');
  const id = await other.call('CLIENT', 'ID');
  t.match(textOf(await redis.call('CLIENT', 'LIST')), /name=other .*cmd=client/);
  t.equal(await redis.call('CLIENT', 'KILL', 'ID', Number(id)), 1);
  await other.closed();
  redis.send('CLIENT', 'REPLY', 'SKIP');
  redis.send('SET', 'a', 1);
  redis.send('CLIENT', 'REPLY', 'OFF');
  redis.send('SET', 'a', 2);
  redis.send('CLIENT', 'REPLY', 'ON');
  t.equal(await redis.next(), '+OK');
  t.same(await redis.call('GET', 'a'), bulk('2'));
  const more = [await client(), await client(), await client()];
  t.equal(await more[2].call('PING'), '+PONG');
  const refused = await client();
  t.equal(await refused.next(), '-ERR max number of clients reached');
  await refused.closed();
  t.equal(await redis.call('CONFIG', 'SET', 'maxclients', 100), '+OK');
  t.equal(await (await client()).call('PING'), '+PONG');
  t.match(await redis.call('CONFIG', 'SET', 'maxclients', 0), /argument must be between/);
  t.match(await redis.call('CONFIG', 'SET', 'port', 1), /immutable/);
  t.match(await redis.call('CONFIG', 'SET', 'nope', 1), /Unknown option/);
});

void t.test('a client that is silent is cut off; who listens is not', async (t) => {
  const { client } = await startNode(t, { TimeoutSeconds: 1 });
  const [silent, listener] = [await client(), await client()];
  await listener.call('SUBSCRIBE', 'x');
  await silent.closed();
  t.equal(listener.isClosed, false);
});

void t.test('a command that comes byte by byte, and many in one piece', async (t) => {
  const { client } = await startNode(t, { Durability: 'memory' });
  const redis = await client();
  for (const byte of encodeCommand(['SET', 'slow', 'value\r\n$5'])) {
    redis.socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal(await redis.next(), '+OK');
  redis.socket.write('SET inline "a b\\x41"\r\n\r\nGET inline\r\n');
  t.equal(await redis.next(), '+OK');
  t.same(await redis.next(), bulk('a bA'));
  const replies = await redis.pipeline(
    Array.from({ length: 20_000 }, (_, i) => (i % 2 === 0 ? ['SET', `p${i}`, i] : ['GET', `p${i - 1}`])),
  );
  t.ok(replies.every((reply, i) => (i % 2 === 0 ? reply === '+OK' : textOf(reply) === String(i - 1))));
  const long = Buffer.alloc(20 * 1024 * 1024, 'x');
  t.equal(await redis.call('SET', 'long', long), '+OK');
  t.equal(await redis.call('STRLEN', 'long'), long.length);
  t.equal(textOf(await redis.call('GET', 'long')).length, long.length);
});

void t.test('writes that outrun the log wait, in order, and reads see them', async (t) => {
  const { client } = await startNode(t, { RingBytes: 65_536 });
  const redis = await client();
  const value = 'v'.repeat(2000);
  const replies = await redis.pipeline(
    Array.from({ length: 3000 }, (_, i) =>
      i % 3 === 0 ? ['SET', 'k', `${i}${value}`] : i % 3 === 1 ? ['APPEND', 'k', 'x'] : ['STRLEN', 'k'],
    ),
  );
  for (let i = 2; i < replies.length; i += 3) {
    const length = String(i - 2).length + value.length + 1;
    if (replies[i] !== length || replies[i - 1] !== length) t.fail(`reply ${i}: ${JSON.stringify(replies[i])}, expected ${length}`);
  }
  t.equal(replies.length, 3000);
});

void t.test('a read behind a write that waits for the log sees the write', async (t) => {
  const { client, node } = await startNode(t, { RingBytes: 65_536 });
  const redis = await client();
  const value = 'v'.repeat(2000);
  const replies = await redis.pipeline(Array.from({ length: 4000 }, (_, i) => (i % 2 === 0 ? ['SET', 'k', `${i}${value}`] : ['GET', 'k'])));
  const stale = replies.filter((reply, i) => i % 2 === 1 && textOf(reply) !== `${i - 1}${value}`);
  t.equal(stale.length, 0);
  t.ok((node.db?.stats().contention.deferrals ?? 0) > 0, 'writes have waited');
});

void t.test('nobody sees a database that is half flushed', async (t) => {
  const { client, node } = await startNode(t, { Durability: 'memory' });
  for (let i = 0; i < 50_000; i++) void node.db?.put(`k${i}`, i);
  await node.db?.drained();
  const [one, other] = [await client(), await client()];
  const flushed = one.call('FLUSHALL');
  const seen = new Set<Reply>();
  for (let size: Reply = 1; size !== 0;) {
    size = await other.call('DBSIZE');
    seen.add(size);
  }
  t.equal(await flushed, '+OK');
  seen.delete(50_000);
  t.same([...seen], [0]);
});

void t.test('a full memory is said, and nothing is broken', async (t) => {
  const { client } = await startNode(t, { MaxMemoryBytes: 24 * 1024 * 1024 });
  const redis = await client();
  const replies = await redis.pipeline(Array.from({ length: 400 }, (_, i) => ['SET', `k${i}`, 'v'.repeat(100_000)]));
  t.ok(replies.some((reply) => reply === '+OK'));
  t.ok(replies.some((reply) => typeof reply === 'string' && reply.startsWith('-OOM command not allowed')));
  t.equal(await redis.call('PING'), '+PONG');
  t.same(
    (await redis.pipeline(replies.map((_, i) => ['EXISTS', `k${i}`]))).map((found) => found === 1),
    replies.map((reply) => reply === '+OK'),
  );
});

void t.test('DUMP and RESTORE: values go to redis-server and come back', async (t) => {
  t.equal(crc64(Buffer.from('123456789')).toString('hex'), 'cad9b8c414d9c6e9');
  const redisPort = await startRedis(t);
  if (redisPort === undefined) {
    t.pass(NO_REDIS, { skip: NO_REDIS }); // Debian's redis packages; CI installs them, elsewhere there is nothing to ask.
    return;
  }
  const { client } = await startNode(t, { Durability: 'memory' });
  const ours = await client();
  const theirs = await RespClient.connect(redisPort);
  t.teardown(() => theirs.close());
  const random = randomFrom(testSeed(t));
  const values = [
    ...['', '0', '-128', '127', '128', '-32769', '32768', '2147483647', '2147483648', '-2147483648', '01', '-0', '99999999999'].map(
      (text) => Buffer.from(text),
    ),
    ...Array.from({ length: 60 }, (_, i) =>
      Buffer.from(Array.from({ length: i * 7 }, () => Math.floor(random() * (i % 3 === 0 ? 256 : 2)))),
    ),
    // Compressed, with long references.
    Buffer.from('abc'.repeat(10_000)),
    Buffer.alloc(100_000),
  ];
  let compressed = 0;
  for (const value of values) {
    await theirs.call('SET', 'k', value);
    const payload = Buffer.from(textOf(await theirs.call('DUMP', 'k')), 'latin1');
    if (payload[1] === 0xc3) compressed++;
    t.equal(await ours.call('RESTORE', 'k', 0, payload, 'REPLACE'), '+OK');
    t.same(await ours.call('GET', 'k'), bulk(value.toString('latin1')));
    const back = Buffer.from(textOf(await ours.call('DUMP', 'k')), 'latin1');
    if (payload[1] !== 0xc3) t.same(back, payload);
    t.equal(await theirs.call('RESTORE', 'k', 100_000, back, 'REPLACE'), '+OK');
    t.same(await theirs.call('GET', 'k'), bulk(value.toString('latin1')));
  }
  t.ok(compressed > 5);
  // Whatever is in a payload: refused, or a value.
  const whole = dumpString(Buffer.from('abc'.repeat(50)));
  for (let i = 0; i < 20_000; i++) {
    const body = Buffer.from(Array.from({ length: 1 + Math.floor(random() * 30) }, () => Math.floor(random() * 256)));
    body[0] = 0;
    if (random() < 0.5) body[1] = 0xc3;
    const framed = Buffer.concat([body, Buffer.from([10, 0])]);
    try {
      restoreString(Buffer.concat([framed, crc64(framed)]));
    } catch (error) {
      if ((error as Error).name !== 'CommandError') throw error;
    }
  }
  for (let i = 0; i < whole.length; i++) {
    const damaged = Buffer.from(whole);
    damaged[i] ^= 1;
    t.throws(() => restoreString(damaged), { message: /checksum/ });
  }
});
