/**
 * MULTI to EXEC: the commands in between run as one transaction of the store, one record of the log. A watched key that has
 * changed since makes EXEC reply with nil; what the library or HTTP has changed and changed back to no entry at all is not seen.
 */

import { ALL_KEYS, NO_KEYS, type Command } from '../command.js';
import { errorReply } from '../error-reply.js';
import { run } from '../execute.js';
import { CommandError } from '../protocol-error.js';
import type { Multi, Session } from '../session.js';
import { inDatabase } from './keys.js';

function multi(session: Session): void {
  if (session.multi !== undefined) throw new CommandError('ERR MULTI calls can not be nested');
  session.multi = { commands: [], bytes: 0, isBroken: false };
  session.reply.ok();
}

function discard(session: Session): void {
  if (session.multi === undefined) throw new CommandError('ERR DISCARD without MULTI');
  session.multi = undefined;
  session.unwatch();
  session.reply.ok();
}

function watch(session: Session, args: Buffer[]): void {
  if (session.multi !== undefined) throw new CommandError('ERR WATCH inside MULTI is not allowed');
  for (const key of args.slice(1)) session.watch(key);
  session.reply.ok();
}

function exec(session: Session): Promise<void> | undefined {
  const { multi: queued } = session;
  if (queued === undefined) throw new CommandError('ERR EXEC without MULTI');
  session.multi = undefined;
  if (queued.isBroken) {
    session.unwatch();
    throw new CommandError('EXECABORT Transaction discarded because of previous errors.');
  }
  return runAll(session, queued);
}

async function runAll(session: Session, { commands }: Multi): Promise<void> {
  const { watched, isDirty, protocol, database } = session;
  try {
    await session.direct.atomically((store) => {
      session.afterCommit = [];
      session.setProtocol(protocol);
      const isChanged =
        isDirty ||
        watched.some(({ database: watchedIn, key, lsn }) => (inDatabase(session, watchedIn, () => store.entry(key))?.lsn ?? 0) !== lsn);
      if (isChanged) {
        session.reply.nilArray();
        return;
      }
      session.reply.array(commands.length);
      for (const { command, args } of commands) {
        const result = run(session, command, args);
        // Commands that take their time are not queued.
        result?.catch(() => undefined);
      }
    });
    for (const effect of session.afterCommit ?? []) effect();
  } catch (error) {
    // Nothing of it has happened.
    session.database = database;
    throw new CommandError(errorReply(error));
  } finally {
    session.afterCommit = undefined;
    session.unwatch();
  }
}

export const transactionCommands: readonly Command[] = [
  {
    name: 'multi',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'transactions',
    summary: 'Begins a transaction.',
    run: multi,
  },
  {
    name: 'exec',
    arity: 1,
    flags: ['noscript', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'transactions',
    summary: 'Runs a transaction.',
    run: exec,
  },
  {
    name: 'discard',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'transactions',
    summary: 'Forgets a transaction.',
    run: discard,
  },
  {
    name: 'watch',
    arity: -2,
    flags: ['noscript', 'loading', 'stale', 'fast'],
    keys: ALL_KEYS,
    group: 'transactions',
    summary: 'Lets EXEC fail when keys change.',
    run: watch,
  },
  {
    name: 'unwatch',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'transactions',
    summary: 'Forgets the keys watched.',
    run: (session) => {
      session.unwatch();
      session.reply.ok();
    },
  },
];
