/** COMMAND and CONFIG: what the server can do, and how it is set. */

import { globMatches, wordOf } from '../arguments.js';
import { CommandTable, NO_KEYS, hasArity, type Command } from '../command.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';
import { replyHelp, unknownSubcommand } from '../subcommands.js';
import { latin1 } from '../values.js';

// COMMAND -------------------------------------------------------------------------------------

function replyCommand(session: Session, command: Command): void {
  const { reply } = session;
  reply.array(10);
  reply.text(command.name);
  reply.integer(command.arity);
  reply.set(command.flags.length);
  for (const flag of command.flags) reply.status(flag);
  for (const place of command.keys) reply.integer(place);
  reply.set(1);
  reply.status(`@${command.group}`);
  reply.array(0);
  reply.array(0);
  reply.array(0);
}

function replyDocs(session: Session, commands: readonly Command[]): void {
  const { reply } = session;
  reply.map(commands.length);
  for (const { name, summary, group } of commands) {
    reply.text(name);
    reply.map(3);
    reply.text('summary');
    reply.text(summary);
    reply.text('since');
    reply.text('0.1.0');
    reply.text('group');
    reply.text(group);
  }
}

function describeCommands(session: Session, args: Buffer[]): void {
  const { commands } = session.server;
  const { reply } = session;
  const named = (): (Command | undefined)[] => args.slice(2).map((name) => commands.find(latin1(name)));
  if (args.length === 1) {
    reply.array(commands.size);
    for (const each of commands.all()) replyCommand(session, each);
    return;
  }
  switch (wordOf(args[1])) {
    case 'COUNT':
      reply.integer(commands.size);
      return;
    case 'LIST': {
      const names = [...commands.all()].map(({ name }) => name);
      reply.array(names.length);
      for (const name of names) reply.text(name);
      return;
    }
    case 'INFO': {
      const wanted = args.length === 2 ? [...commands.all()] : named();
      reply.array(wanted.length);
      for (const each of wanted) {
        if (each === undefined) reply.nilArray();
        else replyCommand(session, each);
      }
      return;
    }
    case 'DOCS':
      replyDocs(session, args.length === 2 ? [...commands.all()] : named().filter((each) => each !== undefined));
      return;
    case 'GETKEYS': {
      const target = commands.find(latin1(args[2]));
      if (target === undefined) throw new CommandError('ERR Invalid command specified');
      if (!hasArity(target.arity, args.length - 2)) throw new CommandError('ERR Invalid number of arguments specified for command');
      const keys = CommandTable.keysOf(target, args.slice(2));
      if (keys.length === 0) throw new CommandError('ERR The command has no key arguments');
      reply.array(keys.length);
      for (const key of keys) reply.bulk(key);
      return;
    }
    case 'HELP':
      replyHelp(session, [
        'COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:',
        '(no subcommand)',
        'COUNT',
        'DOCS [<command-name> [...]]',
        'GETKEYS <full-command>',
        'INFO [<command-name> ...]',
        'LIST',
        'HELP',
      ]);
      return;
    default:
      throw unknownSubcommand(args);
  }
}

// CONFIG --------------------------------------------------------------------------------------

function config(session: Session, args: Buffer[]): void {
  const { reply, server } = session;
  switch (wordOf(args[1])) {
    case 'GET': {
      const patterns = args.slice(2).map((pattern) => Buffer.from(latin1(pattern).toLowerCase(), 'latin1'));
      const found = [...server.settings.entries()].filter(([name]) => patterns.some((pattern) => globMatches(pattern, Buffer.from(name))));
      reply.map(found.length);
      for (const [name, setting] of found) {
        reply.text(name);
        reply.text(setting.get());
      }
      return;
    }
    case 'SET':
      if (args.length % 2 !== 0) throw new CommandError("ERR wrong number of arguments for 'config|set' command");
      setAll(session, args);
      reply.ok();
      return;
    case 'RESETSTAT':
      server.resetCounts();
      reply.ok();
      return;
    case 'REWRITE':
      throw new CommandError('ERR The server is running without a config file that it could rewrite');
    case 'HELP':
      replyHelp(session, [
        'CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:',
        'GET <pattern>',
        'SET <directive> <value>',
        'RESETSTAT',
        'HELP',
      ]);
      return;
    default:
      throw unknownSubcommand(args);
  }
}

/** All or none. */
function setAll(session: Session, args: readonly Buffer[]): void {
  const changes: (() => void)[] = [];
  for (let i = 2; i < args.length; i += 2) {
    const name = args[i].toString('latin1', 0, 128).toLowerCase();
    const setting = session.server.settings.get(name);
    if (setting === undefined) throw new CommandError(`ERR Unknown option or number of arguments for CONFIG SET - '${name}'`);
    const refuse = (why: string): CommandError =>
      new CommandError(`ERR CONFIG SET failed (possibly related to argument '${name}') - ${why}`);
    if (setting.set === undefined) throw refuse("can't set immutable config");
    const change = setting.set(latin1(args[i + 1]));
    if (typeof change === 'string') throw refuse(change);
    changes.push(change);
  }
  for (const change of changes) change();
}

export const introspectionCommands: readonly Command[] = [
  {
    name: 'command',
    arity: -1,
    subcommands: { count: 2, docs: -2, getkeys: -4, info: -2, list: -2, help: 2 },
    flags: ['loading', 'stale'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'What commands there are.',
    run: describeCommands,
  },
  {
    name: 'config',
    arity: -2,
    subcommands: { get: -3, set: -4, resetstat: 2, rewrite: 2, help: 2 },
    flags: ['admin', 'noscript', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Shows and changes settings.',
    run: config,
  },
];
