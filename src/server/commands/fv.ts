/** What Redis lacks: ranges in order, their size, checkpoints, statistics. */

import { numberOf, syntaxError, wordOf } from '../arguments.js';
import { NO_KEYS, type Command } from '../command.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';
import type { KeyRange } from '../stores.js';
import { jsonReplacer } from '../values.js';
import { replyValue } from './strings.js';

const BOUNDS: Record<string, 'gt' | 'gte' | 'lt' | 'lte' | 'prefix'> = { GT: 'gt', GTE: 'gte', LT: 'lt', LTE: 'lte', PREFIX: 'prefix' };
/** Entries that a range replies with at most, unless it says otherwise. */
const LIMIT = 1000;
const ENTRIES_MAX = 1024 * 1024;

interface RangeArguments {
  range: KeyRange;
  limit: number;
  wantsValues: boolean;
}

function rangeArguments(args: readonly Buffer[], isCount: boolean): RangeArguments {
  const out: RangeArguments = { range: {}, limit: LIMIT, wantsValues: true };
  for (let i = 1; i < args.length; i++) {
    const word = wordOf(args[i]);
    const bound = BOUNDS[word];
    if (bound !== undefined && i + 1 < args.length) out.range[bound] = args[++i];
    else if (isCount) throw syntaxError();
    else if (word === 'REVERSE') out.range.reverse = true;
    else if (word === 'KEYS') out.wantsValues = false;
    else if (word === 'LIMIT' && i + 1 < args.length) {
      out.limit = numberOf(args[++i]);
      if (out.limit < 0 || out.limit > ENTRIES_MAX) throw new CommandError(`ERR LIMIT is 0 to ${ENTRIES_MAX}`);
    } else throw syntaxError();
  }
  return out;
}

function range(session: Session, args: Buffer[]): void {
  const { range: bounds, limit, wantsValues } = rangeArguments(args, false);
  const { reply, store } = session;
  if (wantsValues) {
    const entries: [Buffer, unknown][] = [];
    if (limit > 0)
      for (const entry of store.entries(bounds)) {
        entries.push(entry);
        if (entries.length === limit) break;
      }
    reply.array(entries.length * 2);
    for (const [key, value] of entries) {
      reply.bulk(key);
      replyValue(session, value);
    }
    return;
  }
  const keys: Buffer[] = [];
  if (limit > 0)
    for (const key of store.keys(bounds)) {
      keys.push(key);
      if (keys.length === limit) break;
    }
  reply.array(keys.length);
  for (const key of keys) reply.bulk(key);
}

async function checkpoint(session: Session): Promise<void> {
  session.replyApart();
  session.reply.integer(await session.server.db.checkpoint());
}

export const flashVectorCommands: readonly Command[] = [
  {
    name: 'fv.range',
    arity: -1,
    flags: ['readonly'],
    keys: NO_KEYS,
    group: 'flashvector',
    summary: 'Keys and values in order: [GT|GTE|LT|LTE|PREFIX key] [REVERSE] [LIMIT n] [KEYS].',
    run: range,
  },
  {
    name: 'fv.count',
    arity: -1,
    flags: ['readonly'],
    keys: NO_KEYS,
    group: 'flashvector',
    summary: 'Number of keys: [GT|GTE|LT|LTE|PREFIX key].',
    run: (session, args) => session.reply.integer(session.store.count(rangeArguments(args, true).range)),
  },
  {
    name: 'fv.checkpoint',
    arity: 1,
    flags: ['admin', 'no_multi'],
    keys: NO_KEYS,
    group: 'flashvector',
    summary: 'Writes a checkpoint; replies with its LSN.',
    run: checkpoint,
  },
  {
    name: 'fv.stats',
    arity: 1,
    flags: ['readonly'],
    keys: NO_KEYS,
    group: 'flashvector',
    summary: 'Statistics of the store, as JSON.',
    run: (session) => session.reply.verbatim(JSON.stringify(session.server.db.stats(), jsonReplacer)),
  },
];
