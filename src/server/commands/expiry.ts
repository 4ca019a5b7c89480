/** When keys expire. */

import { integerOf, wordOf } from '../arguments.js';
import { ONE_KEY, type Command } from '../command.js';
import { momentOf, type ExpiryUnit } from '../expiry-arguments.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';

interface ExpireConditions {
  nx: boolean;
  xx: boolean;
  gt: boolean;
  lt: boolean;
}

function conditionsOf(args: readonly Buffer[]): ExpireConditions {
  const conditions = { nx: false, xx: false, gt: false, lt: false };
  for (let i = 3; i < args.length; i++) {
    const word = wordOf(args[i]).toLowerCase();
    if (!Object.hasOwn(conditions, word)) throw new CommandError(`ERR Unsupported option ${args[i].toString('latin1', 0, 128)}`);
    conditions[word as keyof ExpireConditions] = true;
  }
  if (conditions.nx && (conditions.xx || conditions.gt || conditions.lt))
    throw new CommandError('ERR NX and XX, GT or LT options at the same time are not compatible');
  if (conditions.gt && conditions.lt) throw new CommandError('ERR GT and LT options at the same time are not compatible');
  return conditions;
}

/** Whether the conditions hold. A key that does not expire counts as one that expires at the end of all time. */
function holds({ nx, xx, gt, lt }: ExpireConditions, moment: number, old: number | undefined): boolean {
  if (nx && old !== undefined) return false;
  if (xx && old === undefined) return false;
  if (gt && (old === undefined || moment <= old)) return false;
  return !(lt && old !== undefined && moment >= old);
}

function expire(name: string, unit: ExpiryUnit) {
  return (session: Session, args: Buffer[]): Promise<void> | undefined => {
    const conditions = conditionsOf(args);
    const moment = momentOf(BigInt(integerOf(args[2])), unit, name);
    let isSet = false;
    return session.store.modify(
      args[1],
      (entry) => {
        isSet = entry !== undefined && holds(conditions, moment, entry.expiresAt);
        if (!isSet || entry === undefined) return undefined;
        return moment <= Date.now() ? null : { value: entry.value, expiresAt: moment };
      },
      () => session.reply.integer(isSet ? 1 : 0),
    );
  };
}

function persist(session: Session, [, key]: Buffer[]): Promise<void> | undefined {
  let isChanged = false;
  return session.store.modify(
    key,
    (entry) => {
      isChanged = entry?.expiresAt !== undefined;
      return isChanged && entry !== undefined ? { value: entry.value } : undefined;
    },
    () => session.reply.integer(isChanged ? 1 : 0),
  );
}

/** @param show gets the moment of expiry, in ms since 1970 */
function timeOf(show: (expiresAt: number) => number) {
  return (session: Session, [, key]: Buffer[]): void => {
    const entry = session.store.entry(key);
    if (entry === undefined) session.reply.integer(-2);
    else session.reply.integer(entry.expiresAt === undefined ? -1 : show(entry.expiresAt));
  };
}

const remaining = (expiresAt: number): number => Math.max(0, expiresAt - Date.now());

export const expiryCommands: readonly Command[] = [
  {
    name: 'expire',
    arity: -3,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Lets a key expire, in seconds.',
    run: expire('expire', 'seconds'),
  },
  {
    name: 'pexpire',
    arity: -3,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Lets a key expire, in milliseconds.',
    run: expire('pexpire', 'milliseconds'),
  },
  {
    name: 'expireat',
    arity: -3,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Lets a key expire at a moment, in seconds.',
    run: expire('expireat', 'unix-seconds'),
  },
  {
    name: 'pexpireat',
    arity: -3,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Lets a key expire at a moment, in milliseconds.',
    run: expire('pexpireat', 'unix-milliseconds'),
  },
  {
    name: 'persist',
    arity: 2,
    flags: ['write', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Lets a key stay that was to expire.',
    run: persist,
  },
  {
    name: 'ttl',
    arity: 2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'How long a key lives, in seconds.',
    run: timeOf((at) => Math.floor((remaining(at) + 500) / 1000)),
  },
  {
    name: 'pttl',
    arity: 2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'How long a key lives, in milliseconds.',
    run: timeOf(remaining),
  },
  {
    name: 'expiretime',
    arity: 2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'When a key expires, in seconds.',
    run: timeOf((at) => Math.floor((at + 500) / 1000)),
  },
  {
    name: 'pexpiretime',
    arity: 2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'When a key expires, in milliseconds.',
    run: timeOf((at) => at),
  },
];
