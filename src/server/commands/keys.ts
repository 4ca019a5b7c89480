/** Keys: whether they are there, copying, renaming, listing, and what they are. */

import { globMatches, numberOf, parseInteger, syntaxError, wordOf } from '../arguments.js';
import { ALL_KEYS, NO_KEYS, ONE_KEY, type Command } from '../command.js';
import { countKeys, DATABASES } from '../key-spaces.js';
import { CommandError, NOT_AN_INTEGER } from '../protocol-error.js';
import type { Session } from '../session.js';
import type { CommandStore } from '../stores.js';
import { replyHelp, unknownSubcommand } from '../subcommands.js';
import { latin1, toBytes } from '../values.js';

const NO_SUCH_KEY = 'ERR no such key';
const SAME_OBJECT = 'ERR source and destination objects are the same';
const DB_OUT_OF_RANGE = 'ERR DB index is out of range';
/** Strings up to this length Redis keeps within the object. */
const EMBEDDED_BYTES_MAX = 44;
/** Keys of which RANDOMKEY takes one. */
const RANDOM_SAMPLE = 16;
const SCAN_COUNT = 10;

function del(session: Session, args: Buffer[]): Promise<void> | undefined {
  if (args.length === 2) {
    let isThere = false;
    return session.store.modify(
      args[1],
      (entry) => {
        isThere = entry !== undefined;
        return null;
      },
      () => session.reply.integer(isThere ? 1 : 0),
    );
  }
  return session.store.atomically((store) => {
    let count = 0;
    for (let i = 1; i < args.length; i++) {
      if (!store.has(args[i])) continue;
      store.del(args[i]);
      count++;
    }
    session.reply.integer(count);
  });
}

function exists(session: Session, args: Buffer[]): void {
  let count = 0;
  for (let i = 1; i < args.length; i++) if (session.store.has(args[i])) count++;
  session.reply.integer(count);
}

function putCopy(store: CommandStore, key: Buffer, value: unknown, expiresAt: number | undefined): void {
  store.put(key, value, expiresAt ?? 0);
}

function rename(isNx: boolean) {
  return (session: Session, [, from, to]: Buffer[]): Promise<void> | undefined =>
    session.store.atomically((store) => {
      const entry = store.entry(from);
      if (entry === undefined) throw new CommandError(NO_SUCH_KEY);
      const isSame = from.equals(to);
      const isFree = isNx ? !store.has(to) : true;
      if (isFree && !isSame) {
        putCopy(store, to, entry.value, entry.expiresAt);
        store.del(from);
      }
      if (isNx) session.reply.integer(isFree ? 1 : 0);
      else session.reply.ok();
    });
}

/** Runs `body` with the session in another database. */
export function inDatabase<T>(session: Session, database: number, body: () => T): T {
  const own = session.database;
  session.database = database;
  try {
    return body();
  } finally {
    session.database = own;
  }
}

function copy(session: Session, args: Buffer[]): Promise<void> | undefined {
  const [, from, to] = args;
  let database = session.database;
  let replaces = false;
  for (let i = 3; i < args.length; i++) {
    const word = wordOf(args[i]);
    if (word === 'REPLACE') {
      replaces = true;
    } else if (word === 'DB' && i + 1 < args.length) {
      database = numberOf(args[++i]);
      if (database < 0 || database >= DATABASES) throw new CommandError(DB_OUT_OF_RANGE);
    } else {
      throw syntaxError();
    }
  }
  if (database === session.database && from.equals(to)) throw new CommandError(SAME_OBJECT);
  return session.store.atomically((store) => {
    const entry = store.entry(from);
    const isCopied = entry !== undefined && (replaces || !inDatabase(session, database, () => store.has(to)));
    if (isCopied) inDatabase(session, database, () => putCopy(store, to, entry.value, entry.expiresAt));
    session.reply.integer(isCopied ? 1 : 0);
  });
}

function move(session: Session, [, key, where]: Buffer[]): Promise<void> | undefined {
  const database = numberOf(where, NOT_AN_INTEGER);
  if (database < 0 || database >= DATABASES) throw new CommandError(DB_OUT_OF_RANGE);
  if (database === session.database) throw new CommandError(SAME_OBJECT);
  return session.store.atomically((store) => {
    const entry = store.entry(key);
    const isMoved = entry !== undefined && !inDatabase(session, database, () => store.has(key));
    if (isMoved) {
      inDatabase(session, database, () => putCopy(store, key, entry.value, entry.expiresAt));
      store.del(key);
    }
    session.reply.integer(isMoved ? 1 : 0);
  });
}

function type(session: Session, [, key]: Buffer[]): void {
  session.reply.status(session.store.has(key) ? 'string' : 'none');
}

function encodingOf(value: unknown): string {
  const bytes = toBytes(value);
  if (bytes.length <= 20 && parseInteger(latin1(bytes)) !== undefined) return 'int';
  return bytes.length <= EMBEDDED_BYTES_MAX ? 'embstr' : 'raw';
}

const OBJECT_HELP = [
  'OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:',
  'ENCODING <key>',
  '    Return the kind of internal representation used in order to store the value',
  '    associated with a <key>.',
  'FREQ <key>',
  '    Return the access frequency index of the <key>. The returned integer is',
  '    proportional to the logarithm of the recent access frequency of the key.',
  'IDLETIME <key>',
  '    Return the idle time of the <key>, that is the approximated number of',
  '    seconds elapsed since the last access to the key.',
  'REFCOUNT <key>',
  '    Return the number of references of the value associated with the specified',
  '    <key>.',
  'HELP',
  '    Print this help.',
];

function object(session: Session, args: Buffer[]): void {
  const word = wordOf(args[1]);
  if (word === 'HELP') {
    replyHelp(session, OBJECT_HELP);
    return;
  }
  if (!['ENCODING', 'REFCOUNT', 'IDLETIME', 'FREQ'].includes(word)) throw unknownSubcommand(args);
  const value = session.store.get(args[2]);
  if (value === undefined) {
    session.reply.nil();
    return;
  }
  if (word === 'ENCODING') session.reply.text(encodingOf(value));
  else if (word === 'REFCOUNT') session.reply.integer(1);
  else if (word === 'IDLETIME') session.reply.integer(0);
  else
    throw new CommandError(
      'ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.',
    );
}

function keys(session: Session, [, pattern]: Buffer[]): void {
  const found: Buffer[] = [];
  for (const key of session.store.keys({ prefix: literalPrefix(pattern) })) if (globMatches(pattern, key)) found.push(key);
  session.reply.array(found.length);
  for (const key of found) session.reply.bulk(key);
}

/** What every string that matches a pattern begins with. */
function literalPrefix(pattern: Buffer): Buffer {
  let length = 0;
  while (length < pattern.length && !'*?[\\'.includes(String.fromCharCode(pattern[length]))) length++;
  return pattern.subarray(0, length);
}

function scan(session: Session, args: Buffer[]): void {
  const cursorText = latin1(args[1]);
  if (!/^\d{1,20}$/.test(cursorText) || BigInt(cursorText) >= 2n ** 64n) throw new CommandError('ERR invalid cursor');
  let pattern: Buffer | undefined;
  let count = SCAN_COUNT;
  let isOfType = true;
  for (let i = 2; i < args.length; i += 2) {
    const word = wordOf(args[i]);
    if (i + 1 >= args.length) throw syntaxError();
    if (word === 'COUNT') {
      count = numberOf(args[i + 1]);
      if (count < 1) throw syntaxError();
    } else if (word === 'MATCH') {
      pattern = args[i + 1];
    } else if (word === 'TYPE') {
      isOfType = wordOf(args[i + 1]) === 'STRING';
    } else {
      throw syntaxError();
    }
  }
  const { cursors } = session.server;
  const behind = cursorText === '0' ? undefined : cursors.find(cursorText);
  const prefix = pattern === undefined ? Buffer.alloc(0) : literalPrefix(pattern);
  const found: Buffer[] = [];
  let last: Buffer | undefined;
  let isComplete = true;
  let seen = 0;
  for (const key of session.store.keys({ prefix, gt: behind })) {
    if (seen === count) {
      isComplete = false;
      break;
    }
    seen++;
    last = key;
    if (isOfType && (pattern === undefined || globMatches(pattern, key))) found.push(key);
  }
  session.reply.array(2);
  session.reply.text(isComplete || last === undefined ? '0' : cursors.keep(last));
  session.reply.array(found.length);
  for (const key of found) session.reply.bulk(key);
}

function randomKey(session: Session): void {
  const { store } = session;
  const first = firstOf(store.keys());
  const last = firstOf(store.keys({ reverse: true }));
  if (first === undefined || last === undefined) {
    session.reply.nil();
    return;
  }
  // A place between the first and the last key, and one of those that follow it.
  const from = between(first, last);
  const sample: Buffer[] = [];
  for (const key of store.keys({ gte: from })) {
    sample.push(key);
    if (sample.length === RANDOM_SAMPLE) break;
  }
  session.reply.bulk(sample[Math.floor(Math.random() * sample.length)] ?? last);
}

function firstOf(source: Generator<Buffer>): Buffer | undefined {
  for (const key of source) return key;
  return undefined;
}

/** Bytes between two keys, at random in the eight bytes behind what they share. */
function between(low: Buffer, high: Buffer): Buffer {
  let shared = 0;
  while (shared < low.length && shared < high.length && low[shared] === high[shared]) shared++;
  const window = (key: Buffer): number => {
    let number = 0;
    for (let i = 0; i < 6; i++) number = number * 256 + (key[shared + i] ?? 0);
    return number;
  };
  const from = window(low);
  const at = from + Math.floor(Math.random() * (window(high) - from + 1));
  const out = Buffer.alloc(shared + 6);
  low.copy(out, 0, 0, shared);
  out.writeUIntBE(at, shared, 6);
  return out;
}

function select(session: Session, args: Buffer[]): void {
  const index = numberOf(args[1], 'ERR value is not an integer or out of range');
  if (index < 0 || index >= DATABASES) throw new CommandError(DB_OUT_OF_RANGE);
  session.database = index;
  session.reply.ok();
}

function flush(all: boolean) {
  return (session: Session, args: Buffer[]): Promise<void> | undefined => {
    const word = args.length === 2 ? wordOf(args[1]) : '';
    if (args.length > 2 || (args.length === 2 && word !== 'ASYNC' && word !== 'SYNC')) throw syntaxError();
    const result = session.store.clear(all);
    if (result === undefined) {
      session.reply.ok();
      return undefined;
    }
    session.replyApart();
    return result.then(() => session.reply.ok());
  };
}

export const keyCommands: readonly Command[] = [
  { name: 'del', arity: -2, flags: ['write'], keys: ALL_KEYS, group: 'generic', summary: 'Removes keys.', run: del },
  { name: 'unlink', arity: -2, flags: ['write', 'fast'], keys: ALL_KEYS, group: 'generic', summary: 'Removes keys.', run: del },
  {
    name: 'exists',
    arity: -2,
    flags: ['readonly', 'fast'],
    keys: ALL_KEYS,
    group: 'generic',
    summary: 'How many of the keys are there.',
    run: exists,
  },
  {
    name: 'touch',
    arity: -2,
    flags: ['readonly', 'fast'],
    keys: ALL_KEYS,
    group: 'generic',
    summary: 'How many of the keys are there; they count as used.',
    run: exists,
  },
  { name: 'rename', arity: 3, flags: ['write'], keys: [1, 2, 1], group: 'generic', summary: 'Renames a key.', run: rename(false) },
  {
    name: 'renamenx',
    arity: 3,
    flags: ['write', 'fast'],
    keys: [1, 2, 1],
    group: 'generic',
    summary: 'Renames a key if the new name is free.',
    run: rename(true),
  },
  { name: 'copy', arity: -3, flags: ['write', 'denyoom'], keys: [1, 2, 1], group: 'generic', summary: 'Copies a key.', run: copy },
  {
    name: 'move',
    arity: 3,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Moves a key to another database.',
    run: move,
  },
  { name: 'type', arity: 2, flags: ['readonly', 'fast'], keys: ONE_KEY, group: 'generic', summary: 'The type of a value.', run: type },
  {
    name: 'object',
    arity: -2,
    subcommands: { encoding: 3, freq: 3, idletime: 3, refcount: 3, help: 2 },
    flags: ['readonly'],
    keys: [2, 2, 1],
    group: 'generic',
    summary: 'How a value is kept.',
    run: object,
  },
  { name: 'keys', arity: 2, flags: ['readonly'], keys: NO_KEYS, group: 'generic', summary: 'All keys that match a pattern.', run: keys },
  {
    name: 'scan',
    arity: -2,
    flags: ['readonly'],
    keys: NO_KEYS,
    group: 'generic',
    summary: 'Keys, some at a time, in their order.',
    run: scan,
  },
  { name: 'randomkey', arity: 1, flags: ['readonly'], keys: NO_KEYS, group: 'generic', summary: 'Some key.', run: randomKey },
  {
    name: 'dbsize',
    arity: 1,
    flags: ['readonly', 'fast'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Number of keys.',
    run: (session) =>
      session.reply.integer(session.store === session.direct ? countKeys(session.server.db, session.database) : session.store.count()),
  },
  {
    name: 'select',
    arity: 2,
    flags: ['loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Chooses a database.',
    run: select,
  },
  {
    name: 'flushdb',
    arity: -1,
    flags: ['write'],
    keys: NO_KEYS,
    group: 'server',
    summary: 'Removes all keys of a database.',
    run: flush(false),
  },
  { name: 'flushall', arity: -1, flags: ['write'], keys: NO_KEYS, group: 'server', summary: 'Removes all keys.', run: flush(true) },
];
