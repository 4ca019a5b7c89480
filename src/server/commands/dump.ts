/** DUMP and RESTORE: values to and from Redis servers. */

import { integerOf, numberOf, syntaxError, wordOf } from '../arguments.js';
import { ONE_KEY, type Command } from '../command.js';
import { momentOf } from '../expiry-arguments.js';
import { CommandError } from '../protocol-error.js';
import { dumpString, restoreString } from '../rdb-string.js';
import { replacement } from '../replacement.js';
import type { Session } from '../session.js';
import { fromBytes, toBytes } from '../values.js';

function dump(session: Session, [, key]: Buffer[]): void {
  const value = session.store.get(key);
  if (value === undefined) session.reply.nil();
  else session.reply.bulk(dumpString(toBytes(value)));
}

function restore(session: Session, args: Buffer[]): Promise<void> | undefined {
  const [, key, ttlArgument, payload] = args;
  let replaces = false;
  let isMoment = false;
  for (let i = 4; i < args.length; i++) {
    const word = wordOf(args[i]);
    if (word === 'REPLACE') {
      replaces = true;
    } else if (word === 'ABSTTL') {
      isMoment = true;
    } else if ((word === 'IDLETIME' || word === 'FREQ') && i + 1 < args.length) {
      // How it was used there says nothing here; it is only checked.
      const value = numberOf(args[++i]);
      if (word === 'IDLETIME' && value < 0) throw new CommandError('ERR Invalid IDLETIME value, must be >= 0');
      if (word === 'FREQ' && (value < 0 || value > 255)) throw new CommandError('ERR Invalid FREQ value, must be >= 0 and <= 255');
    } else {
      throw syntaxError();
    }
  }
  if (!replaces && session.store.has(key)) throw new CommandError(BUSY);
  const ttl = BigInt(integerOf(ttlArgument));
  if (ttl < 0n) throw new CommandError('ERR Invalid TTL value, must be >= 0');
  const value = fromBytes(restoreString(payload));
  const expiresAt = ttl === 0n ? 0 : momentOf(ttl, isMoment ? 'unix-milliseconds' : 'milliseconds', 'restore');
  let isBusy = false;
  return session.store.modify(
    key,
    (entry) => {
      isBusy = !replaces && entry !== undefined;
      return isBusy ? undefined : replacement(value, expiresAt);
    },
    () => {
      if (isBusy) session.reply.error(BUSY);
      else session.reply.ok();
    },
  );
}

const BUSY = 'BUSYKEY Target key name already exists.';

export const dumpCommands: readonly Command[] = [
  { name: 'dump', arity: 2, flags: ['readonly'], keys: ONE_KEY, group: 'generic', summary: 'A value as a payload for RESTORE.', run: dump },
  {
    name: 'restore',
    arity: -4,
    flags: ['write', 'denyoom'],
    keys: ONE_KEY,
    group: 'generic',
    summary: 'Sets a value from a payload of DUMP.',
    run: restore,
  },
];
