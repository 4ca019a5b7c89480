/** Where data commands work: a folder, or a running node. */

import type { Redis } from 'ioredis';
import { parseAddress } from '../config/addresses.js';
import { open, type Range } from '../index.js';
import { fromBytes, toBytes } from '../server/values.js';
import { UsageError } from './usage.js';

type Pair = readonly [key: string | Uint8Array, value: unknown];

export interface Target {
  get(key: string): Promise<unknown>;
  put(key: string, value: unknown): Promise<void>;
  /** @returns whether it was there */
  del(key: string): Promise<boolean>;
  scan(range: Range): AsyncIterable<Pair>;
  /** @returns how many */
  load(entries: AsyncIterable<readonly [string, unknown]>, onProgress: (count: number) => void): Promise<number>;
  stats(): Promise<unknown>;
  close(): Promise<void>;
}

export interface TargetOptions {
  dir: string;
  connect?: string | undefined;
  tls: boolean;
}

/** @param writes whether the command changes anything */
export function openTarget(options: TargetOptions, writes: boolean): Promise<Target> {
  return options.connect === undefined ? folderTarget(options.dir, writes) : nodeTarget(options.connect, options.tls);
}

async function folderTarget(directory: string, writes: boolean): Promise<Target> {
  // Who only reads must not create anything.
  const db = await open(directory, writes ? {} : { readOnly: true, createIfMissing: false });
  return {
    get: (key) => Promise.resolve(db.get(key)),
    put: async (key, value) => void (await db.put(key, value)),
    del: async (key) => {
      let isThere = false;
      await db.modify(key, (entry) => {
        isThere = entry !== undefined;
        return null;
      });
      return isThere;
    },
    scan: (range) => db.entries(range),
    load: (entries, onProgress) => db.load(entries, { onProgress: ({ entries: count }) => onProgress(count) }),
    stats: () => Promise.resolve(db.stats()),
    close: () => db.close(),
  };
}

const PAGE = 1000;
/** Writes sent before the first of them is acknowledged. */
const IN_FLIGHT = 1000;

async function nodeTarget(connect: string, tls: boolean): Promise<Target> {
  const address = parseAddress(connect);
  if (address === undefined) throw new UsageError(`--connect is ${JSON.stringify(connect)}; allowed is host:port`);
  // Only here: most commands need no client.
  const { Redis: Client } = await import('ioredis');
  const redis = new Client({
    ...address,
    lazyConnect: true,
    maxRetriesPerRequest: 1,
    retryStrategy: () => null,
    ...(process.env.FLASHVECTOR_PASSWORD === undefined ? {} : { password: process.env.FLASHVECTOR_PASSWORD }),
    ...(tls ? { tls: {} } : {}),
  });
  redis.on('error', () => undefined);
  await redis.connect();
  const wire = (value: unknown): Buffer => toBytes(value);
  return {
    get: async (key) => {
      const value = await redis.getBuffer(key);
      return value === null ? undefined : fromBytes(value);
    },
    put: async (key, value) => void (await redis.set(key, wire(value))),
    del: async (key) => (await redis.del(key)) === 1,
    scan: (range) => remoteScan(redis, range),
    load: async (entries, onProgress) => {
      let count = 0;
      let pending: Promise<unknown>[] = [];
      for await (const [key, value] of entries) {
        const write = redis.set(key, wire(value));
        // It may fail before anybody waits for it.
        write.catch(() => undefined);
        pending.push(write);
        count++;
        if (pending.length < IN_FLIGHT) continue;
        await Promise.all(pending);
        pending = [];
        onProgress(count);
      }
      await Promise.all(pending);
      return count;
    },
    stats: async () => JSON.parse(String(await redis.call('FV.STATS'))) as unknown,
    close: async () => void (await redis.quit().catch(() => undefined)),
  };
}

/** A range, page by page: each begins behind the last key of the one before. */
async function* remoteScan(redis: Redis, { limit = Infinity, reverse = false, ...bounds }: Range): AsyncGenerator<Pair> {
  const wanted = new Map<string, Buffer>();
  for (const [name, bound] of Object.entries(bounds)) if (bound !== undefined) wanted.set(name.toUpperCase(), toBytes(bound));
  let left = limit;
  while (left > 0) {
    const count = Math.min(PAGE, left);
    const args: (string | Buffer)[] = ['LIMIT', String(count)];
    if (reverse) args.push('REVERSE');
    for (const [name, bound] of wanted) args.push(name, bound);
    const page = (await redis.callBuffer('FV.RANGE', ...args)) as Buffer[];
    for (let i = 0; i < page.length; i += 2) yield [fromBytes(page[i]), fromBytes(page[i + 1])];
    left -= page.length / 2;
    if (page.length / 2 < count) return;
    const last = page[page.length - 2];
    wanted.delete(reverse ? 'LTE' : 'GTE');
    wanted.set(reverse ? 'LT' : 'GT', last);
  }
}
