/** Publish and subscribe. */

import { globMatches, wordOf } from '../arguments.js';
import { NO_KEYS, type Command } from '../command.js';
import type { Session } from '../session.js';
import { replyHelp, unknownSubcommand } from '../subcommands.js';
import { latin1 } from '../values.js';

function confirm(session: Session, what: string, name: string | undefined): void {
  const { reply } = session;
  reply.push(3);
  reply.text(what);
  if (name === undefined) reply.nil();
  else reply.bulk(Buffer.from(name, 'latin1'));
  reply.integer(session.channels.size + session.patterns.size);
}

function subscribe(session: Session, args: Buffer[]): void {
  for (const channel of args.slice(1).map((arg) => latin1(arg))) {
    session.server.channels.subscribe(session, channel);
    confirm(session, 'subscribe', channel);
  }
}

function psubscribe(session: Session, args: Buffer[]): void {
  for (const pattern of args.slice(1).map((arg) => latin1(arg))) {
    session.server.channels.subscribePattern(session, pattern);
    confirm(session, 'psubscribe', pattern);
  }
}

function unsubscribe(session: Session, args: Buffer[]): void {
  const channels = args.length > 1 ? args.slice(1).map((arg) => latin1(arg)) : [...session.channels];
  if (channels.length === 0) confirm(session, 'unsubscribe', undefined);
  for (const channel of channels) {
    session.server.channels.unsubscribe(session, channel);
    confirm(session, 'unsubscribe', channel);
  }
}

function punsubscribe(session: Session, args: Buffer[]): void {
  const patterns = args.length > 1 ? args.slice(1).map((arg) => latin1(arg)) : [...session.patterns];
  if (patterns.length === 0) confirm(session, 'punsubscribe', undefined);
  for (const pattern of patterns) {
    session.server.channels.unsubscribePattern(session, pattern);
    confirm(session, 'punsubscribe', pattern);
  }
}

function publish(session: Session, [, name, message]: Buffer[]): void {
  const { channels } = session.server;
  const channel = latin1(name);
  if (session.afterCommit === undefined) {
    session.reply.integer(channels.publish(channel, message));
    return;
  }
  // A transaction may run again; what it publishes goes out once.
  const bytes = Buffer.from(channel, 'latin1');
  let receivers = channels.listeners(channel);
  for (const pattern of channels.patterns())
    if (globMatches(Buffer.from(pattern, 'latin1'), bytes)) receivers += channels.patternListeners(pattern);
  session.reply.integer(receivers);
  session.afterCommit.push(() => channels.publish(channel, message));
}

function pubsub(session: Session, args: Buffer[]): void {
  const { channels } = session.server;
  const { reply } = session;
  switch (wordOf(args[1])) {
    case 'CHANNELS': {
      if (args.length > 3) throw unknownSubcommand(args);
      const names = channels.names().filter((name) => args.length === 2 || globMatches(args[2], Buffer.from(name, 'latin1')));
      reply.array(names.length);
      for (const name of names) reply.bulk(Buffer.from(name, 'latin1'));
      return;
    }
    case 'NUMSUB':
      reply.array((args.length - 2) * 2);
      for (const name of args.slice(2)) {
        reply.bulk(name);
        reply.integer(channels.listeners(latin1(name)));
      }
      return;
    case 'NUMPAT':
      reply.integer(channels.patternCount);
      return;
    case 'HELP':
      replyHelp(session, [
        'PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:',
        'CHANNELS [<pattern>]',
        'NUMPAT',
        'NUMSUB [<channel> ...]',
        'HELP',
      ]);
      return;
    default:
      throw unknownSubcommand(args);
  }
}

export const pubsubCommands: readonly Command[] = [
  {
    name: 'subscribe',
    arity: -2,
    flags: ['pubsub', 'noscript', 'loading', 'stale', 'no_multi'],
    keys: NO_KEYS,
    group: 'pubsub',
    summary: 'Listens to channels.',
    run: subscribe,
  },
  {
    name: 'unsubscribe',
    arity: -1,
    flags: ['pubsub', 'noscript', 'loading', 'stale', 'no_multi'],
    keys: NO_KEYS,
    group: 'pubsub',
    summary: 'Ends listening to channels.',
    run: unsubscribe,
  },
  {
    name: 'psubscribe',
    arity: -2,
    flags: ['pubsub', 'noscript', 'loading', 'stale', 'no_multi'],
    keys: NO_KEYS,
    group: 'pubsub',
    summary: 'Listens to all channels that match.',
    run: psubscribe,
  },
  {
    name: 'punsubscribe',
    arity: -1,
    flags: ['pubsub', 'noscript', 'loading', 'stale', 'no_multi'],
    keys: NO_KEYS,
    group: 'pubsub',
    summary: 'Ends listening to channels that match.',
    run: punsubscribe,
  },
  {
    name: 'publish',
    arity: 3,
    flags: ['pubsub', 'loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'pubsub',
    summary: 'Sends a message to a channel.',
    run: publish,
  },
  {
    name: 'pubsub',
    arity: -2,
    subcommands: { channels: -2, numpat: 2, numsub: -2, help: 2 },
    flags: ['pubsub', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'pubsub',
    summary: 'Who listens to what.',
    run: pubsub,
  },
];
