/** Counters: numbers in decimal digits. */

import { fitsInteger, integerOf, narrow, parseInteger } from '../arguments.js';
import { ONE_KEY, type Command } from '../command.js';
import { formatLongDouble, parseDecimal, addDecimals } from '../decimal.js';
import { CommandError, NOT_AN_INTEGER, NOT_A_FLOAT } from '../protocol-error.js';
import type { Session } from '../session.js';
import { latin1, toBytes } from '../values.js';
import { replacement } from '../replacement.js';

const NOT_FINITE = 'ERR increment would produce NaN or Infinity';

function addInteger(session: Session, key: Buffer, by: number | bigint): Promise<void> | undefined {
  let sum: number | bigint = 0;
  return session.store.modify(
    key,
    (entry) => {
      const old = entry === undefined ? 0 : integerValue(entry.value);
      if (old === undefined) throw new CommandError(NOT_AN_INTEGER);
      const exact = typeof old === 'number' && typeof by === 'number' ? old + by : NaN;
      if (Number.isSafeInteger(exact)) {
        sum = exact;
      } else {
        const wide = BigInt(old) + BigInt(by);
        if (!fitsInteger(wide)) throw new CommandError('ERR increment or decrement would overflow');
        sum = narrow(wide);
      }
      return replacement(String(sum), entry?.expiresAt);
    },
    () => session.reply.integer(sum),
  );
}

function integerValue(value: unknown): number | bigint | undefined {
  if (typeof value === 'string') return parseInteger(value);
  return parseInteger(latin1(toBytes(value)));
}

function decrBy(session: Session, [, key, by]: Buffer[]): Promise<void> | undefined {
  const value = BigInt(integerOf(by));
  if (!fitsInteger(-value)) throw new CommandError('ERR decrement would overflow');
  return addInteger(session, key, narrow(-value));
}

function incrByFloat(session: Session, [, key, by]: Buffer[]): Promise<void> | undefined {
  const added = parseDecimal(latin1(by));
  const isInfinite = /^[+-]?inf(?:inity)?$/i.test(latin1(by));
  if (added === undefined && !isInfinite) throw new CommandError(NOT_A_FLOAT);
  let text = '';
  return session.store.modify(
    key,
    (entry) => {
      const old = entry === undefined ? parseDecimal('0') : parseDecimal(latin1(toBytes(entry.value)));
      if (old === undefined) throw new CommandError(NOT_A_FLOAT);
      const sum = added === undefined ? undefined : addDecimals(old, added);
      if (sum === undefined) throw new CommandError(NOT_FINITE);
      text = formatLongDouble(sum);
      return replacement(text, entry?.expiresAt);
    },
    () => session.reply.text(text),
  );
}

export const counterCommands: readonly Command[] = [
  {
    name: 'incr',
    arity: 2,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Adds 1 to a number.',
    run: (session, args) => addInteger(session, args[1], 1),
  },
  {
    name: 'decr',
    arity: 2,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Takes 1 off a number.',
    run: (session, args) => addInteger(session, args[1], -1),
  },
  {
    name: 'incrby',
    arity: 3,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Adds to a number.',
    run: (session, args) => addInteger(session, args[1], integerOf(args[2])),
  },
  {
    name: 'decrby',
    arity: 3,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Takes off a number.',
    run: decrBy,
  },
  {
    name: 'incrbyfloat',
    arity: 3,
    flags: ['write', 'denyoom', 'fast'],
    keys: ONE_KEY,
    group: 'string',
    summary: 'Adds to a number with a fraction.',
    run: incrByFloat,
  },
];
