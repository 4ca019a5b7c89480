/** Where data commands work: a folder, or a running node. */

import type { Redis } from 'ioredis';
import { parseAddress } from '../config/addresses.js';
import { open, type FlashVector, type Range } from '../index.js';
import { fromBytes, toBytes } from '../server/values.js';
import type { DumpedEntry } from './dump-format.js';
import { UsageError } from './usage.js';

type Pair = readonly [key: string | Uint8Array, value: unknown];

export interface Target {
  get(key: string): Promise<unknown>;
  put(key: string, value: unknown): Promise<void>;
  /** @returns whether it was there */
  del(key: string): Promise<boolean>;
  scan(range: Range): AsyncIterable<Pair>;
  /** Everything, with the times at which it expires. */
  dump(): AsyncIterable<DumpedEntry>;
  /** How many entries there are. */
  size(): Promise<number>;
  /** What has expired is left out. @returns how many */
  load(entries: AsyncIterable<DumpedEntry>, onProgress: (count: number) => void): Promise<number>;
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
    dump: () => folderDump(db),
    size: () => Promise.resolve(db.size),
    load: (entries, onProgress) => folderLoad(db, entries, onProgress),
    stats: () => Promise.resolve(db.stats()),
    close: () => db.close(),
  };
}

async function* folderDump(db: FlashVector): AsyncGenerator<DumpedEntry> {
  // Everything as of one moment, expiry included.
  const snapshot = db.snapshot();
  try {
    for await (const key of snapshot.keys()) {
      const entry = snapshot.getEntry(key);
      if (entry !== undefined) yield { key, value: entry.value, expiresAt: entry.expiresAt };
    }
  } finally {
    snapshot.close();
  }
}

async function folderLoad(db: FlashVector, entries: AsyncIterable<DumpedEntry>, onProgress: (count: number) => void): Promise<number> {
  let expiring = 0;
  let pending: Promise<unknown>[] = [];
  async function* lasting(): AsyncGenerator<readonly [string | Uint8Array, unknown]> {
    for await (const { key, value, expiresAt } of entries) {
      if (expiresAt === undefined) {
        yield [key, value];
        continue;
      }
      if (expiresAt <= Date.now()) continue;
      const write = db.put(key, value, { expiresAt });
      // It may fail before anybody waits for it.
      write.catch(() => undefined);
      pending.push(write);
      expiring++;
      if (pending.length < IN_FLIGHT) continue;
      await Promise.all(pending);
      pending = [];
    }
  }
  const count = await db.load(lasting(), { onProgress: ({ entries: done }) => onProgress(done + expiring) });
  await Promise.all(pending);
  return count + expiring;
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
  let failure: Error | undefined;
  redis.on('error', (error: Error) => {
    failure = error;
  });
  try {
    await redis.connect();
  } catch (error) {
    // What the client throws says only that the connection is closed.
    throw new UsageError(`cannot connect to ${connect}: ${(failure ?? (error as Error)).message}`);
  }
  const wire = (value: unknown): Buffer => toBytes(value);
  return {
    get: async (key) => {
      const value = await redis.getBuffer(key);
      return value === null ? undefined : fromBytes(value);
    },
    put: async (key, value) => void (await redis.set(key, wire(value))),
    del: async (key) => (await redis.del(key)) === 1,
    scan: (range) => remoteScan(redis, range),
    dump: () => remoteDump(redis),
    size: () => redis.dbsize(),
    load: async (entries, onProgress) => {
      let count = 0;
      let pending: Promise<unknown>[] = [];
      for await (const { key, value, expiresAt } of entries) {
        if (expiresAt !== undefined && expiresAt <= Date.now()) continue;
        const name = typeof key === 'string' ? key : Buffer.from(key.buffer, key.byteOffset, key.byteLength);
        const write = expiresAt === undefined ? redis.set(name, wire(value)) : redis.set(name, wire(value), 'PXAT', expiresAt);
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

/** What RESP shows of everything: a value that the library has put as an object comes as a string, its JSON. */
async function* remoteDump(redis: Redis): AsyncGenerator<DumpedEntry> {
  let page: DumpedEntry[] = [];
  const timed = async (): Promise<DumpedEntry[]> => {
    const done = page;
    page = [];
    const asked = redis.pipeline();
    for (const { key } of done) asked.pexpiretime(typeof key === 'string' ? key : Buffer.from(key));
    const moments = (await asked.exec()) ?? [];
    const there: DumpedEntry[] = [];
    for (const [i, [error, moment]] of moments.entries()) {
      if (error !== null) throw error;
      // Gone since its value was read.
      if (Number(moment) === -2) continue;
      if (Number(moment) >= 0) done[i].expiresAt = Number(moment);
      there.push(done[i]);
    }
    return there;
  };
  for await (const [key, value] of remoteScan(redis, {})) {
    page.push({ key, value });
    if (page.length === PAGE) yield* await timed();
  }
  yield* await timed();
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
