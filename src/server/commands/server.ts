/** What administrators and tools ask of the server. */

import { numberOf, syntaxError, wordOf } from '../arguments.js';
import { NO_KEYS, type Command } from '../command.js';
import { infoText } from '../info.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';
import { latin1, toBytes } from '../values.js';
import { replyHelp, unknownSubcommand } from '../subcommands.js';

/** Bytes that an entry takes beside key and value, the ordered index included. */
const ENTRY_OVERHEAD_BYTES = 60;

// Saving, memory, the rest --------------------------------------------------------------------

async function save(session: Session): Promise<void> {
  session.replyApart();
  await session.server.db.checkpoint();
  session.reply.ok();
}

function backgroundSave(session: Session, args: Buffer[]): void {
  if (args.length > 2 || (args.length === 2 && wordOf(args[1]) !== 'SCHEDULE')) throw syntaxError();
  const { server } = session;
  // A failure is told by the store's event, and is logged there.
  server.db.checkpoint().catch(() => undefined);
  session.reply.status('Background saving started');
}

function memory(session: Session, args: Buffer[]): void {
  const { reply, server } = session;
  switch (wordOf(args[1])) {
    case 'USAGE': {
      if (args.length === 4 || args.length > 5 || (args.length === 5 && wordOf(args[3]) !== 'SAMPLES')) throw syntaxError();
      if (args.length === 5) numberOf(args[4]);
      const value = session.store.get(args[2]);
      if (value === undefined) reply.nil();
      else reply.integer(args[2].length + toBytes(value).length + ENTRY_OVERHEAD_BYTES);
      return;
    }
    case 'STATS': {
      const { memory: used, entries } = server.db.stats();
      const facts: [string, number][] = [
        ['total.allocated', used.totalBytes],
        ['dataset.bytes', used.usedBytes],
        ['keys.count', entries],
        ['keys.bytes-per-key', entries === 0 ? 0 : Math.round(used.usedBytes / entries)],
      ];
      reply.map(facts.length);
      for (const [fact, value] of facts) {
        reply.text(fact);
        reply.integer(value);
      }
      return;
    }
    case 'DOCTOR':
      reply.verbatim('Hi, the memory of this store is shared, of fixed chunks, and never moved. FV.STATS says how it is used.');
      return;
    case 'MALLOC-STATS':
      reply.verbatim(JSON.stringify(server.db.stats().memory));
      return;
    case 'PURGE':
      reply.ok();
      return;
    case 'HELP':
      replyHelp(session, [
        'MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:',
        'DOCTOR',
        'MALLOC-STATS',
        'PURGE',
        'STATS',
        'USAGE <key> [SAMPLES <count>]',
        'HELP',
      ]);
      return;
    default:
      throw unknownSubcommand(args);
  }
}

function time(session: Session): void {
  const now = performance.timeOrigin + performance.now();
  session.reply.array(2);
  session.reply.text(String(Math.floor(now / 1000)));
  session.reply.text(String(Math.floor((now % 1000) * 1000)));
}

function wait(session: Session, args: Buffer[]): Promise<void> | undefined {
  const { db, replicas } = session.server;
  numberOf(args[1]);
  const timeout = numberOf(args[2], 'ERR timeout is not an integer or out of range');
  if (timeout < 0) throw new CommandError('ERR timeout is negative');
  if (session.afterCommit !== undefined) {
    session.reply.integer(replicas);
    return undefined;
  }
  session.replyApart();
  return db.flush().then(() => session.reply.integer(replicas));
}

function shutdown(session: Session, args: Buffer[]): void {
  let isAbort = false;
  const words = new Set<string>();
  for (const argument of args.slice(1)) {
    const word = wordOf(argument);
    if (!['NOSAVE', 'SAVE', 'NOW', 'FORCE', 'ABORT'].includes(word)) throw syntaxError();
    if (word === 'ABORT') isAbort = true;
    words.add(word);
  }
  if ((words.has('SAVE') && words.has('NOSAVE')) || (isAbort && words.size > 1)) throw syntaxError();
  if (isAbort) throw new CommandError('ERR No shutdown in progress.');
  session.server.requestShutdown(session.outlet.address);
  session.outlet.end();
}

function functions(session: Session, args: Buffer[]): void {
  const { reply } = session;
  switch (wordOf(args[1])) {
    case 'FLUSH':
      if (args.length > 3 || (args.length === 3 && !['ASYNC', 'SYNC'].includes(wordOf(args[2]))))
        throw new CommandError('ERR FUNCTION FLUSH only supports SYNC|ASYNC option');
      reply.ok();
      return;
    case 'LIST':
      reply.array(0);
      return;
    case 'STATS':
      reply.map(2);
      reply.text('running_script');
      reply.nil();
      reply.text('engines');
      reply.map(0);
      return;
    default:
      throw new CommandError('ERR functions are not supported');
  }
}

function slowLog(session: Session, args: Buffer[]): void {
  const word = wordOf(args[1]);
  if (word === 'GET') session.reply.array(0);
  else if (word === 'LEN') session.reply.integer(0);
  else if (word === 'RESET') session.reply.ok();
  else throw unknownSubcommand(args);
}

function latency(session: Session, args: Buffer[]): void {
  const word = wordOf(args[1]);
  if (word === 'LATEST' || word === 'HISTORY') session.reply.array(0);
  else if (word === 'RESET') session.reply.integer(0);
  else if (word === 'DOCTOR') session.reply.verbatim('Latencies are in FV.STATS, and on /metrics.');
  else throw unknownSubcommand(args);
}

function role(session: Session): void {
  const { reply, server } = session;
  if (server.leader === undefined) {
    reply.array(3);
    reply.text('master');
    reply.integer(server.db.stats().log.lastLsn);
    reply.array(0);
    return;
  }
  const [, host = '', port = '0'] = /^(.*):(\d+)$/.exec(server.leader) ?? [];
  reply.array(5);
  reply.text('slave');
  reply.text(host);
  reply.integer(Number(port));
  reply.text('connect');
  reply.integer(server.db.stats().log.lastLsn);
}

function debug(): void {
  throw new CommandError('ERR DEBUG command not allowed: this server has none');
}

function lastSave(session: Session): void {
  session.reply.integer(Math.floor(session.server.lastCheckpointMs / 1000));
}

function swapDb(_session: Session, args: Buffer[]): void {
  numberOf(args[1], 'ERR invalid first DB index');
  numberOf(args[2], 'ERR invalid second DB index');
  throw new CommandError('ERR SWAPDB is not supported: a database is part of the keys');
}

export const serverCommands: readonly Command[] = [
  {
    name: 'info',
    arity: -1,
    flags: ['loading', 'stale'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'What the server is and does.',
    run: (session, args) =>
      session.reply.verbatim(
        infoText(
          session.server,
          args.slice(1).map((section) => latin1(section).toLowerCase()),
        ),
      ),
  },
  {
    name: 'time',
    arity: 1,
    flags: ['loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'The time of the server.',
    run: time,
  },
  {
    name: 'save',
    arity: 1,
    flags: ['admin', 'noscript', 'no_multi'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Writes a checkpoint, and waits for it.',
    run: save,
  },
  {
    name: 'bgsave',
    arity: -1,
    flags: ['admin', 'noscript'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Writes a checkpoint.',
    run: backgroundSave,
  },
  {
    name: 'bgrewriteaof',
    arity: 1,
    flags: ['admin', 'noscript'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Writes a checkpoint, which shortens the log.',
    run: backgroundSave,
  },
  {
    name: 'lastsave',
    arity: 1,
    flags: ['loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'When the last checkpoint was written.',
    run: lastSave,
  },
  {
    name: 'memory',
    arity: -2,
    subcommands: { doctor: 2, help: 2, 'malloc-stats': 2, purge: 2, stats: 2, usage: -3 },
    flags: ['readonly'],
    keys: [2, 2, 1],
    group: 'server',
    summary: 'How memory is used.',
    run: memory,
  },
  {
    name: 'debug',
    arity: -2,
    flags: ['admin', 'noscript', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Refused.',
    run: debug,
  },
  {
    name: 'shutdown',
    arity: -1,
    flags: ['admin', 'noscript', 'loading', 'stale', 'no_multi'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Stops the server; nothing is lost.',
    run: shutdown,
  },
  {
    name: 'wait',
    arity: 3,
    flags: [],
    keys: NO_KEYS,
    group: 'generic',
    summary: 'Waits until all is durable; replies with the number of replicas.',
    run: wait,
  },
  {
    name: 'function',
    arity: -2,
    subcommands: { flush: -2, list: -2, stats: 2 },
    flags: ['noscript'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'There are no functions.',
    run: functions,
  },
  {
    name: 'slowlog',
    arity: -2,
    subcommands: { get: -2, len: 2, reset: 2 },
    flags: ['admin', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Empty: latencies are in FV.STATS.',
    run: slowLog,
  },
  {
    name: 'latency',
    arity: -2,
    subcommands: { latest: 2, history: 3, reset: -2, doctor: 2 },
    flags: ['admin', 'noscript', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Empty: latencies are in FV.STATS.',
    run: latency,
  },
  {
    name: 'role',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Leader or follower.',
    run: role,
  },
  { name: 'swapdb', arity: 3, flags: ['write', 'fast'], keys: NO_KEYS, group: 'server', summary: 'Refused.', run: swapDb },
];
