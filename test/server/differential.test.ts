/**
 * The same commands to FlashVector and to a real redis-server 7: the same replies.
 *
 * Commands are drawn from a seed, with options that fit and options that do not, on few keys, so that they meet. What cannot be the same is left out or
 * compared loosely, each with its reason below.
 */

import t from 'tap';
import { randomFrom, testSeed } from '../support/random.js';
import { dumpString } from '../../src/server/rdb-string.js';
import { NO_REDIS, startNode, startRedis } from '../support/node-harness.js';
import { RespClient, type Reply } from '../support/resp-client.js';

type Arg = string | Buffer | number;
type Draw = (below: number) => number;

const SEQUENCES = 120;
const COMMANDS = 150;
/** How far the clocks of two servers may be apart when they set the same expiry, in ms. */
const CLOCK_SLACK_MS = 2000;

const KEYS: Arg[] = ['a', 'b', 'c', 'd', 'counter', 'bits', Buffer.from([0xff, 0x00, 0x0d, 0x0a]), 'ключ'];

function makeDraws(draw: Draw) {
  const pick = <T>(list: readonly T[]): T => list[draw(list.length)];
  const key = (): Arg => pick(KEYS);
  const integer = (): Arg =>
    pick([
      0,
      1,
      -1,
      5,
      7,
      10,
      100,
      -3,
      255,
      '9223372036854775807',
      '-9223372036854775808',
      '9223372036854775808',
      'x',
      '1.5',
      ' 1',
      '+1',
      '01',
      '',
    ]);
  const small = (): Arg => pick([0, 1, 2, 3, 5, 8, -1, -2, -5, 20, 'x']);
  const value = (): Arg =>
    pick([
      () => String(draw(1000) - 500),
      () => 'hello world'.slice(0, draw(12)),
      () => Buffer.from(Array.from({ length: draw(12) }, () => draw(256))),
      () => 'x'.repeat(draw(100)),
      () => '3.25',
      () => '10',
      () => '9223372036854775807',
      () => 'ü€𝄞',
      () => '',
    ])();
  const seconds = (): Arg => pick([1000, 5000, 100_000, -1, 0, 'x', '9223372036854775807']);
  const ms = (): Arg => pick([1_000_000, 5_000_000, -1, 0, 'x', '9223372036854775807']);
  const moment = (): Arg => pick([4_000_000_000, 5_000_000_000, 1, 0, -1, 'x']);
  const momentMs = (): Arg => pick([4_000_000_000_000, 5_000_000_000_000, 1, 0, -1, 'x']);
  // Not in the past: Redis keeps what has expired when it is set, and counts it, until somebody asks for it.
  const future = (at: number): Arg => pick([at, at + 1000, 0, -1, 'x']);
  const some = (make: () => Arg, most = 3): Arg[] => Array.from({ length: 1 + draw(most) }, make);
  const maybe = (...args: Arg[]): Arg[] => (draw(2) === 0 ? args : []);
  const rarely = (...args: Arg[]): Arg[] => (draw(8) === 0 ? args : []);
  const expiry = (): Arg[] =>
    pick<() => Arg[]>([
      () => ['EX', seconds()],
      () => ['PX', ms()],
      () => ['EXAT', future(4_000_000_000)],
      () => ['PXAT', future(4_000_000_000_000)],
      () => [],
      () => [],
    ])();
  const condition = (): Arg[] =>
    pick<Arg[]>([[], [], ['NX'], ['XX'], ['GT'], ['LT'], ['nx'], ['XX', 'GT'], ['NX', 'XX'], ['GT', 'LT'], ['FOO']]);
  const field = (): Arg => pick(['u8', 'i8', 'u4', 'i16', 'u63', 'i64', 'u1', 'u64', 'i65', 'x8']);
  const offset = (): Arg => pick([0, 1, 3, 8, 13, '#0', '#1', '#2', 100, -1, 'x']);
  // Of Redis itself: a number, a compressed string; and damaged ones.
  const payload = (): Arg =>
    pick([
      dumpString(Buffer.from('12345')),
      dumpString(Buffer.from('x'.repeat(70))),
      dumpString(Buffer.alloc(0)),
      Buffer.from('000c0afa0cb7ca6b9e5a3f16', 'hex'),
      Buffer.alloc(3),
      '',
    ]);
  // There the least of all integers overflows a field that is narrower upwards, and OVERFLOW SAT makes it the field's largest (7.0.15); here its least.
  const settable = (): Arg => {
    const drawn = integer();
    return drawn === '-9223372036854775808' ? '-9223372036854775' : drawn;
  };
  const fieldOperation = (): Arg[] =>
    pick<() => Arg[]>([
      () => ['GET', field(), offset()],
      () => ['SET', field(), offset(), settable()],
      () => ['INCRBY', field(), offset(), integer()],
      () => ['OVERFLOW', pick(['WRAP', 'SAT', 'FAIL', 'NOPE'])],
    ])();
  const commands: (() => Arg[])[] = [
    () => ['SET', key(), value()],
    () => ['SET', key(), value(), ...expiry(), ...maybe(pick(['NX', 'XX'])), ...rarely('GET'), ...rarely('KEEPTTL'), ...rarely('NOPE')],
    () => ['GET', key()],
    () => ['GET', ...rarely(key()), ...rarely(key())],
    () => ['GETSET', key(), value()],
    () => ['GETDEL', key()],
    () => ['GETEX', key(), ...expiry(), ...rarely('PERSIST')],
    () => ['SETNX', key(), value()],
    () => ['SETEX', key(), seconds(), value()],
    () => ['PSETEX', key(), ms(), value()],
    () => ['APPEND', key(), value()],
    () => ['STRLEN', key()],
    () => ['GETRANGE', key(), small(), small()],
    () => ['SUBSTR', key(), small(), small()],
    () => ['SETRANGE', key(), small(), value()],
    () => ['MGET', ...some(key)],
    () => ['MSET', ...some(key).flatMap((each) => [each, value()]), ...rarely(key())],
    () => ['MSETNX', ...some(key).flatMap((each) => [each, value()])],
    () => ['INCR', pick(['counter', key()])],
    () => ['DECR', pick(['counter', key()])],
    () => ['INCRBY', pick(['counter', key()]), integer()],
    () => ['DECRBY', pick(['counter', key()]), integer()],
    () => ['INCRBYFLOAT', 'float', pick([1, 0.5, -0.25, '1e2', 'x', '3.0e-1', 2, '', 'inf', 'nan'])],
    () => [
      'LCS',
      key(),
      key(),
      ...pick<Arg[]>([[], ['LEN'], ['IDX'], ['IDX', 'WITHMATCHLEN'], ['IDX', 'MINMATCHLEN', 2], ['LEN', 'IDX'], ['NOPE']]),
    ],
    () => ['SETBIT', 'bits', offset(), pick([0, 1, 1, 2, 'x'])],
    () => ['GETBIT', pick(['bits', key()]), offset()],
    () => [
      'BITCOUNT',
      pick(['bits', key()]),
      ...pick<Arg[]>([[], [small(), small()], [small(), small(), pick(['BIT', 'BYTE', 'NOPE'])], [small()]]),
    ],
    () => [
      'BITPOS',
      pick(['bits', key()]),
      pick([0, 1, 1, 0, 2, 'x']),
      ...pick<Arg[]>([[], [small()], [small(), small()], [small(), small(), pick(['BIT', 'BYTE', 'NOPE'])]]),
    ],
    () => ['BITOP', pick(['AND', 'OR', 'XOR', 'NOT', 'not', 'NOPE']), pick(['bits', key()]), ...some(key)],
    () => ['BITFIELD', 'bits', ...Array.from({ length: draw(4) }, fieldOperation).flat(), ...rarely('NOPE')],
    () => ['BITFIELD_RO', 'bits', ...Array.from({ length: draw(3) }, fieldOperation).flat()],
    () => ['DEL', ...some(key)],
    () => ['UNLINK', ...some(key)],
    () => ['EXISTS', ...some(key)],
    () => ['TOUCH', ...some(key)],
    () => ['TYPE', key()],
    () => [
      'RESTORE',
      key(),
      pick([0, 1_000_000, -1, 'x']),
      payload(),
      ...rarely('REPLACE'),
      ...rarely('REPLACE'),
      ...rarely('IDLETIME', pick([1, -1])),
      ...rarely('NOPE'),
    ],
    () => ['RENAME', key(), key()],
    () => ['RENAMENX', key(), key()],
    () => ['COPY', key(), key(), ...rarely('REPLACE'), ...rarely('DB', pick([0, 1, 15, 16, 'x']))],
    () => ['MOVE', key(), pick([0, 1, 2, 16, 'x'])],
    () => ['EXPIRE', key(), seconds(), ...condition()],
    () => ['PEXPIRE', key(), ms(), ...condition()],
    () => ['EXPIREAT', key(), moment(), ...condition()],
    () => ['PEXPIREAT', key(), momentMs(), ...condition()],
    () => ['PERSIST', key()],
    () => ['TTL', key()],
    () => ['PTTL', key()],
    () => ['EXPIRETIME', key()],
    () => ['PEXPIRETIME', key()],
    () => ['OBJECT', pick(['ENCODING', 'encoding']), pick(['absent', key()])],
    () => ['OBJECT', pick(['NOPE', 'FREQ', 'ENCODING'])],
    () => ['KEYS', pick(['*', 'a*', '?', '[a-c]', '[^a]', 'c*r', '\\a', 'nothing', '*o*', ''])],
    () => ['DBSIZE'],
    () => ['SELECT', pick([0, 0, 0, 1, 2, 15, 16, -1, 'x'])],
    () => ['RANDOMKEY', 'x'],
    () => ['SCAN', pick(['x', '0', '1.5']), ...pick<Arg[]>([['COUNT', 0], ['COUNT', 'x'], ['NOPE', 1], ['MATCH'], ['COUNT', 10_000]])],
    () => ['MULTI'],
    () => ['MULTI'],
    () => ['EXEC'],
    () => ['EXEC'],
    () => ['EXEC'],
    () => ['DISCARD'],
    () => ['WATCH', ...some(key)],
    () => ['UNWATCH'],
    () => ['PING', ...rarely(value()), ...rarely(value())],
    () => ['ECHO', value()],
    () => ['NOPE', value(), value()],
    () => ['HELLO', pick([2, 3, 4, 'x'])].slice(0, 2),
    () => ['FLUSHDB', ...rarely('ASYNC'), ...rarely('NOPE')],
    () => ['FLUSHALL', ...rarely('SYNC')].slice(0, draw(3) === 0 ? 2 : 1),
    () => ['CLIENT', pick(['NOPE', 'GETNAME', 'SETNAME']), ...rarely('x')],
    () => ['WAIT', 0, pick([0, 10, -1, 'x'])],
    () => ['LASTSAVE', 'x'],
    () => [
      'COMMAND',
      'GETKEYS',
      ...pick<Arg[]>([['GET', 'a'], ['MSET', 'a', 1, 'b', 2], ['PING'], ['NOPE'], ['BITOP', 'AND', 'd', 'a', 'b'], ['COPY', 'x', 'y']]),
    ],
  ];
  return (): Arg[] => pick(commands)();
}

/** Facts that two servers cannot share: who they are, and milliseconds. */
function isAlike(args: readonly Arg[], ours: Reply, theirs: Reply): boolean {
  const name = String(args[0]).toUpperCase();
  // The same time to live, set a millisecond later, may be longer.
  if (/^P?EXPIRE/.test(name) && args.slice(3).some((arg) => /^(?:GT|LT)$/i.test(String(arg))) && typeof ours === 'number') return true;
  if (typeof ours === 'number' && typeof theirs === 'number') {
    const slack = /^P?(TTL|EXPIRETIME)$/.test(name) ? (name.startsWith('P') ? CLOCK_SLACK_MS : CLOCK_SLACK_MS / 1000) : 0;
    return slack > 0 && ours > 0 && theirs > 0 ? Math.abs(ours - theirs) <= slack : ours === theirs;
  }
  // The order of keys is ours, and no order at all there.
  if (name === 'KEYS' && Array.isArray(ours) && Array.isArray(theirs)) return sorted(ours) === sorted(theirs);
  if (name === 'SCAN' && Array.isArray(ours) && Array.isArray(theirs))
    return ours.length === 2 && theirs.length === 2 && sorted(ours[1]) === sorted(theirs[1]);
  // Sums are exact here, and of 80 bits there.
  if (name === 'INCRBYFLOAT' && isBulk(ours) && isBulk(theirs)) return Math.abs(Number(ours.bulk) - Number(theirs.bulk)) < 1e-9;
  // There the encoding tells what was done to a string before, too.
  if (name === 'OBJECT' && /"(?:raw|embstr)"/.test(show(theirs)) && /"(?:int|embstr)"/.test(show(ours))) return true;
  // Identity of the server.
  if (name === 'HELLO' && typeof ours === 'object' && typeof theirs === 'object') return true;
  return show(ours) === show(theirs);
}

function isBulk(reply: Reply): reply is { bulk: string } {
  return typeof reply === 'object' && reply !== null && 'bulk' in reply;
}

function show(reply: Reply): string {
  return JSON.stringify(reply, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
}

function sorted(list: Reply): string {
  if (!Array.isArray(list)) return show(list);
  return list.map(show).sort().join();
}

/** A reply of EXEC is compared command by command. */
function isAlikeInMulti(queued: readonly (readonly Arg[])[], args: readonly Arg[], ours: Reply, theirs: Reply): boolean {
  if (String(args[0]).toUpperCase() !== 'EXEC' || !Array.isArray(ours) || !Array.isArray(theirs)) return isAlike(args, ours, theirs);
  return ours.length === theirs.length && ours.every((reply, i) => isAlike(queued[i] ?? args, reply, theirs[i]));
}

function firstDifference(queued: readonly Arg[][], args: readonly Arg[], ours: readonly Reply[], theirs: readonly Reply[]): object {
  const i = ours.findIndex((reply, at) => !isAlike(queued[at] ?? args, reply, theirs[at] ?? null));
  return { at: i, command: queued[i]?.map(String).join(' '), ours: show(ours[i] ?? null), theirs: show(theirs[i] ?? null) };
}

void t.test('the same commands get the same replies as from redis-server', async (t) => {
  const redisPort = await startRedis(t);
  if (redisPort === undefined) {
    t.pass(NO_REDIS, { skip: NO_REDIS }); // Debian's redis packages; CI installs them, elsewhere there is nothing to ask.
    return;
  }
  const { port } = await startNode(t, { Durability: 'memory' });
  const random = randomFrom(testSeed(t));
  const draw: Draw = (below) => Math.floor(random() * below);
  const drawCommand = makeDraws(draw);
  let differences = 0;
  let compared = 0;
  for (let sequence = 0; sequence < SEQUENCES && differences < 10; sequence++) {
    const ours = await RespClient.connect(port);
    const theirs = await RespClient.connect(redisPort);
    const commands: Arg[][] = [['FLUSHALL'], ...Array.from({ length: COMMANDS }, drawCommand), ['DISCARD'], ['SELECT', 0]];
    for (const key of KEYS) commands.push(['GET', key], ['PTTL', key]);
    // In one piece and in several: pipelines are cut anywhere.
    const pieces = 1 + draw(8);
    const size = Math.ceil(commands.length / pieces);
    let queued: Arg[][] = [];
    for (let from = 0; from < commands.length; from += size) {
      const piece = commands.slice(from, from + size);
      const [a, b] = await Promise.all([ours.pipeline(piece), theirs.pipeline(piece)]);
      for (let i = 0; i < piece.length; i++) {
        compared++;
        if (a[i] === '+QUEUED') queued.push(piece[i]);
        if (!isAlikeInMulti(queued, piece[i], a[i], b[i])) {
          differences++;
          t.fail(
            `sequence ${sequence}: ${piece[i].map((arg) => (Buffer.isBuffer(arg) ? arg.toString('latin1') : String(arg))).join(' ')}`,
            {
              ...(Array.isArray(a[i]) && Array.isArray(b[i])
                ? firstDifference(queued, piece[i], a[i] as Reply[], b[i] as Reply[])
                : { ours: show(a[i]), theirs: show(b[i]) }),
              before: commands
                .slice(Math.max(0, from + i - 6), from + i)
                .map((args) => args.map(String).join(' '))
                .join('; '),
            },
          );
        }
        const name = String(piece[i][0]).toUpperCase();
        if (name === 'EXEC' || (name === 'DISCARD' && a[i] === '+OK') || (name === 'MULTI' && a[i] === '+OK')) queued = [];
      }
    }
    ours.close();
    theirs.close();
  }
  t.equal(differences, 0, `${compared} replies compared`);
});
