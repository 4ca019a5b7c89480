/** Running one command for a session: whether it may, queueing between MULTI and EXEC, errors as replies. */

import { isPromise } from 'node:util/types';
import { CommandTable, hasArity, type Command } from './command.js';
import { errorReply } from './error-reply.js';
import { storeKey } from './key-spaces.js';
import { CommandError } from './protocol-error.js';
import type { Multi, Session } from './session.js';

/** What is run at once between MULTI and EXEC. */
const NOT_QUEUED = new Set(['exec', 'discard', 'multi', 'watch', 'quit', 'reset']);
/** What RESP2 clients may say while they are subscribed. */
const WHILE_SUBSCRIBED = new Set(['subscribe', 'unsubscribe', 'psubscribe', 'punsubscribe', 'ping', 'quit', 'reset']);
const ARGUMENTS_SHOWN_BYTES = 128;
/** What may be queued between MULTI and EXEC; an argument counts for so much more than its bytes. */
const MULTI_BYTES_MAX = 256 * 1024 * 1024;
const ARGUMENT_OVERHEAD_BYTES = 64;

/** @returns a promise when the reply comes later; it rejects with an error whose reply is still to be written */
export function execute(session: Session, args: Buffer[]): Promise<void> | undefined {
  const [name] = args;
  // The parser gives the same object for the same name as before.
  const command = name === session.lastName ? session.lastFound : session.server.commands.find(name.latin1Slice(0, name.length));
  session.lastName = name;
  session.lastFound = command;
  const refusal = command === undefined ? unknownCommand(args) : refuse(session, command, args);
  if (refusal !== undefined || command === undefined) {
    if (session.multi !== undefined && refusal?.startsWith('NOAUTH') !== true) session.multi.isBroken = true;
    session.server.counts.errors++;
    session.reply.error(refusal ?? 'ERR unknown command');
    return undefined;
  }
  session.lastCommand = command.name;
  if (session.multi !== undefined && !NOT_QUEUED.has(command.name)) {
    return enqueue(session, session.multi, command, args);
  }
  return run(session, command, args);
}

function enqueue(session: Session, multi: Multi, command: Command, args: Buffer[]): undefined {
  for (const arg of args) multi.bytes += arg.length + ARGUMENT_OVERHEAD_BYTES;
  if (multi.bytes > MULTI_BYTES_MAX) {
    multi.isBroken = true;
    multi.commands = [];
    session.reply.error(`ERR a transaction takes at most ${MULTI_BYTES_MAX} bytes of commands`);
  } else {
    // Copies: as views they would keep the chunks that they came in.
    multi.commands.push({ command, args: args.map((arg) => Buffer.from(arg)) });
    session.reply.status('QUEUED');
  }
  return undefined;
}

/** Runs a command; its error is its reply. */
export function run(session: Session, command: Command, args: Buffer[]): Promise<void> | undefined {
  const { reply } = session;
  const start = reply.length;
  try {
    // All keys before the first write: a command that fails has done nothing.
    if (command.keys[1] !== command.keys[0]) for (const key of CommandTable.keysOf(command, args)) storeKey(session.database, key);
    const result = command.run(session, args);
    if (result !== undefined && isPromise(result)) return result;
  } catch (error) {
    // What the store refuses inside a transaction ends that: part of the command may have been done.
    if (session.afterCommit !== undefined && !(error instanceof CommandError)) throw error;
    session.server.counts.errors++;
    // A command that has begun to write aside, or nothing, takes that back.
    session.reply.truncate(session.reply === reply ? start : 0);
    session.reply.error(errorReply(error));
  }
  return undefined;
}

/** An argument as C shows it. */
function upToZero(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

function unknownCommand(args: readonly Buffer[]): string {
  let shown = '';
  for (let i = 1; i < args.length && shown.length < ARGUMENTS_SHOWN_BYTES; i++)
    shown += `'${upToZero(args[i]).toString('latin1', 0, ARGUMENTS_SHOWN_BYTES - shown.length)}' `;
  return `ERR unknown command '${upToZero(args[0]).toString('latin1', 0, ARGUMENTS_SHOWN_BYTES)}', with args beginning with: ${shown}`;
}

function wrongArity(name: string): string {
  return `ERR wrong number of arguments for '${name}' command`;
}

/** Why a command may not run, if so. */
function refuse(session: Session, command: Command, args: readonly Buffer[]): string | undefined {
  if (command.subcommands !== undefined && args.length > 1) {
    const name = args[1].toString('latin1', 0, ARGUMENTS_SHOWN_BYTES);
    const arity = Object.hasOwn(command.subcommands, name.toLowerCase()) ? command.subcommands[name.toLowerCase()] : undefined;
    if (arity === undefined) return `ERR unknown subcommand '${name}'. Try ${command.name.toUpperCase()} HELP.`;
    if (!hasArity(arity, args.length)) return wrongArity(`${command.name}|${name.toLowerCase()}`);
  }
  if (!hasArity(command.arity, args.length)) return wrongArity(command.name);
  if (!session.isAuthenticated && !command.flags.includes('no_auth')) return 'NOAUTH Authentication required.';
  if (session.multi !== undefined && command.flags.includes('no_multi')) return `ERR Command not allowed inside a transaction`;
  if (session.protocol === 2 && session.isSubscribed && !WHILE_SUBSCRIBED.has(command.name))
    return `ERR Can't execute '${command.name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context`;
  if (session.server.leader !== undefined && command.flags.includes('write')) {
    const { leader } = session.server;
    return `READONLY You can't write against a read only replica.${leader === '' ? '' : ` The leader is ${leader}.`}`;
  }
  return undefined;
}
