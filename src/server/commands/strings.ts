/** Strings: SET and GET in all their forms, parts of strings, many keys at once. */

import { ALL_KEYS, ONE_KEY, type Command } from '../command.js';
import { expiryOf, type ExpiryUnit } from '../expiry-arguments.js';
import { CommandError } from '../protocol-error.js';
import { replacement, VALUE_BYTES_MAX } from '../replacement.js';
import type { Session } from '../session.js';
import { fromBytes, textOf, toBytes } from '../values.js';
import { numberOf, syntaxError, wordOf } from '../arguments.js';

const TOO_LONG = 'ERR string exceeds maximum allowed size (proto-max-bulk-len)';

/** Replies with a value, or nil. */
export function replyValue(session: Session, value: unknown): void {
  const { reply } = session;
  if (typeof value === 'string') reply.text(value);
  else if (value === undefined) reply.nil();
  else if (value instanceof Uint8Array) reply.bulk(value);
  else reply.text(textOf(value));
}

interface SetOptions {
  expiresAt: number;
  keepsTtl: boolean;
  onlyIf: 'always' | 'absent' | 'present';
  replies: 'ok' | 'old';
}

const UNITS: Record<string, ExpiryUnit> = { EX: 'seconds', PX: 'milliseconds', EXAT: 'unix-seconds', PXAT: 'unix-milliseconds' };

function setOptions(args: readonly Buffer[]): SetOptions {
  const options: SetOptions = { expiresAt: 0, keepsTtl: false, onlyIf: 'always', replies: 'ok' };
  let expiry: [time: Buffer, unit: ExpiryUnit] | undefined;
  for (let i = 3; i < args.length; i++) {
    const word = wordOf(args[i]);
    if ((word === 'NX' || word === 'XX') && options.onlyIf === 'always') {
      options.onlyIf = word === 'NX' ? 'absent' : 'present';
    } else if (word === 'GET') {
      options.replies = 'old';
    } else if (word === 'KEEPTTL' && expiry === undefined) {
      options.keepsTtl = true;
    } else if (word in UNITS && expiry === undefined && !options.keepsTtl && i + 1 < args.length) {
      expiry = [args[++i], UNITS[word]];
    } else if ((word === 'NX' || word === 'XX') && options.onlyIf === (word === 'NX' ? 'absent' : 'present')) {
      continue;
    } else {
      throw syntaxError();
    }
  }
  if (expiry !== undefined) options.expiresAt = expiryOf(expiry[0], expiry[1], 'set');
  return options;
}

/** Puts a value, or removes the key where it would have expired already. */
function putUntil(session: Session, key: Buffer, value: Buffer, expiresAt: number): void {
  if (expiresAt !== 0 && expiresAt <= Date.now()) session.store.del(key);
  else session.store.put(key, fromBytes(value), expiresAt);
}

function set(session: Session, args: Buffer[]): Promise<void> | undefined {
  const [, key, value] = args;
  if (args.length === 3) {
    session.store.put(key, fromBytes(value), 0);
    session.reply.ok();
    return undefined;
  }
  const { expiresAt, keepsTtl, onlyIf, replies } = setOptions(args);
  if (onlyIf === 'always' && !keepsTtl && replies === 'ok') {
    putUntil(session, key, value, expiresAt);
    session.reply.ok();
    return undefined;
  }
  let old: unknown;
  let isSet = false;
  return session.store.modify(
    key,
    (entry) => {
      old = entry?.value;
      isSet = onlyIf === 'always' || (onlyIf === 'absent') === (entry === undefined);
      if (!isSet) return undefined;
      return replacement(fromBytes(value), keepsTtl ? entry?.expiresAt : expiresAt);
    },
    () => {
      if (replies === 'old') replyValue(session, old);
      else if (isSet) session.reply.ok();
      else session.reply.nil();
    },
  );
}

function setNx(session: Session, [, key, value]: Buffer[]): Promise<void> | undefined {
  let isSet = false;
  return session.store.modify(
    key,
    (entry) => {
      isSet = entry === undefined;
      return isSet ? { value: fromBytes(value) } : undefined;
    },
    () => session.reply.integer(isSet ? 1 : 0),
  );
}

function setEx(unit: ExpiryUnit, name: string) {
  return (session: Session, [, key, time, value]: Buffer[]): void => {
    putUntil(session, key, value, expiryOf(time, unit, name));
    session.reply.ok();
  };
}

function getSet(session: Session, [, key, value]: Buffer[]): Promise<void> | undefined {
  let old: unknown;
  return session.store.modify(
    key,
    (entry) => {
      old = entry?.value;
      return { value: fromBytes(value) };
    },
    () => replyValue(session, old),
  );
}

function getDel(session: Session, [, key]: Buffer[]): Promise<void> | undefined {
  let old: unknown;
  return session.store.modify(
    key,
    (entry) => {
      old = entry?.value;
      return null;
    },
    () => replyValue(session, old),
  );
}

function getEx(session: Session, args: Buffer[]): Promise<void> | undefined {
  const [, key] = args;
  const word = args.length > 2 ? wordOf(args[2]) : '';
  const unit = args.length === 4 ? UNITS[word] : undefined;
  if (args.length > 2 && unit === undefined && !(word === 'PERSIST' && args.length === 3)) throw syntaxError();
  // An absent key is no place for an expiry, so nobody looks at it.
  const found = session.store.get(key);
  if (found === undefined || args.length === 2) {
    replyValue(session, found);
    return undefined;
  }
  const until = unit === undefined ? 0 : expiryOf(args[3], unit, 'getex');
  let value: unknown;
  return session.store.modify(
    key,
    (entry) => {
      value = entry?.value;
      if (entry === undefined || (until === 0 && entry.expiresAt === undefined)) return undefined;
      if (until === 0) return { value };
      return until <= Date.now() ? null : { value, expiresAt: until };
    },
    () => replyValue(session, value),
  );
}

function append(session: Session, [, key, tail]: Buffer[]): Promise<void> | undefined {
  let length = 0;
  return session.store.modify(
    key,
    (entry) => {
      if (entry === undefined) {
        length = tail.length;
        return { value: fromBytes(tail) };
      }
      const old = toBytes(entry.value);
      length = old.length + tail.length;
      if (length > VALUE_BYTES_MAX) throw new CommandError(TOO_LONG);
      return replacement(fromBytes(Buffer.concat([old, tail])), entry.expiresAt);
    },
    () => session.reply.integer(length),
  );
}

function getRange(session: Session, [, key, first, last]: Buffer[]): void {
  let start = numberOf(first);
  let end = numberOf(last);
  const value = session.store.get(key);
  const bytes = value === undefined ? Buffer.alloc(0) : toBytes(value);
  if (start < 0 && end < 0 && start > end) {
    session.reply.text('');
    return;
  }
  if (start < 0) start = Math.max(0, bytes.length + start);
  if (end < 0) end = Math.max(0, bytes.length + end);
  if (end >= bytes.length) end = bytes.length - 1;
  session.reply.bulk(start > end || bytes.length === 0 ? Buffer.alloc(0) : bytes.subarray(start, end + 1));
}

function setRange(session: Session, [, key, where, part]: Buffer[]): Promise<void> | undefined {
  const offset = numberOf(where);
  if (offset < 0) throw new CommandError('ERR offset is out of range');
  let length = 0;
  return session.store.modify(
    key,
    (entry) => {
      const old = entry === undefined ? Buffer.alloc(0) : toBytes(entry.value);
      length = old.length;
      if (part.length === 0) return undefined;
      if (offset + part.length > VALUE_BYTES_MAX) throw new CommandError(TOO_LONG);
      length = Math.max(old.length, offset + part.length);
      const bytes = Buffer.alloc(length);
      old.copy(bytes);
      part.copy(bytes, offset);
      return replacement(fromBytes(bytes), entry?.expiresAt);
    },
    () => session.reply.integer(length),
  );
}

function strLen(session: Session, [, key]: Buffer[]): void {
  const value = session.store.get(key);
  session.reply.integer(value === undefined ? 0 : toBytes(value).length);
}

function mGet(session: Session, args: Buffer[]): void {
  session.reply.array(args.length - 1);
  for (let i = 1; i < args.length; i++) replyValue(session, session.store.get(args[i]));
}

function checkPairs(args: readonly Buffer[], name: string): void {
  if (args.length % 2 === 0) throw new CommandError(`ERR wrong number of arguments for '${name}' command`);
}

function mSet(session: Session, args: Buffer[]): Promise<void> | undefined {
  checkPairs(args, 'mset');
  return session.store.atomically((store) => {
    for (let i = 1; i < args.length; i += 2) store.put(args[i], fromBytes(args[i + 1]), 0);
    session.reply.ok();
  });
}

function mSetNx(session: Session, args: Buffer[]): Promise<void> | undefined {
  checkPairs(args, 'msetnx');
  return session.store.atomically((store) => {
    let isAny = false;
    for (let i = 1; i < args.length; i += 2) if (store.has(args[i])) isAny = true;
    if (!isAny) for (let i = 1; i < args.length; i += 2) store.put(args[i], fromBytes(args[i + 1]), 0);
    session.reply.integer(isAny ? 0 : 1);
  });
}

export const stringCommands: readonly Command[] = [
  {
    name: 'get',
    arity: 2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'The value of a key.',
    run: (session, args) => replyValue(session, session.store.get(args[1])),
  },
  { name: 'set', arity: -3, flags: ['write', 'denyoom'], keys: ONE_KEY, group: 'string', summary: 'Sets the value of a key.', run: set },
  {
    name: 'setnx',
    arity: 3,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Sets the value of a key that is not there.',
    run: setNx,
  },
  {
    name: 'setex',
    arity: 4,
    flags: ['write', 'denyoom'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Sets a value that expires, in seconds.',
    run: setEx('seconds', 'setex'),
  },
  {
    name: 'psetex',
    arity: 4,
    flags: ['write', 'denyoom'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Sets a value that expires, in milliseconds.',
    run: setEx('milliseconds', 'psetex'),
  },
  {
    name: 'getset',
    arity: 3,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Sets a value and replies with the old one.',
    run: getSet,
  },
  {
    name: 'getdel',
    arity: 2,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Removes a key and replies with its value.',
    run: getDel,
  },
  {
    name: 'getex',
    arity: -2,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'The value of a key, whose expiry it changes.',
    run: getEx,
  },
  {
    name: 'append',
    arity: 3,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Appends to a value.',
    run: append,
  },
  { name: 'getrange', arity: 4, flags: ['readonly'], keys: ONE_KEY, group: 'string', summary: 'A part of a value.', run: getRange },
  {
    name: 'substr',
    arity: 4,
    flags: ['readonly'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'A part of a value; the old name of GETRANGE.',
    run: getRange,
  },
  {
    name: 'setrange',
    arity: 4,
    flags: ['write', 'denyoom'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Overwrites a part of a value.',
    run: setRange,
  },
  {
    name: 'strlen',
    arity: 2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'The length of a value in bytes.',
    run: strLen,
  },
  {
    name: 'mget',
    arity: -2,
    flags: ['readonly', 'fast'],
    keys: ALL_KEYS,
    group: 'string',
    summary: 'The values of several keys.',
    run: mGet,
  },
  {
    name: 'mset',
    arity: -3,
    flags: ['write', 'denyoom'],
    keys: [1, -1, 2],
    group: 'string',
    summary: 'Sets several values as one.',
    run: mSet,
  },
  {
    name: 'msetnx',
    arity: -3,
    flags: ['write', 'denyoom'],
    keys: [1, -1, 2],
    group: 'string',
    summary: 'Sets several values if none of the keys is there.',
    run: mSetNx,
  },
];
