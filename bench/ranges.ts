/**
 * What the ordered index, snapshots and transactions cost and bring: scans, short ranges, inserts with and without the index, reads
 * beside an open snapshot, transactions.
 */

import type { FlashVector } from '../src/index.js';
import { keyCount, makeDataSet, VALUE_NAMES, type DataSet, type ValueKind } from './support/data-set.js';
import {
  fillFlashVector,
  fillLmdb,
  FLASHVECTOR,
  LMDB,
  openFlashVector,
  openLmdb,
  removeStores,
  type LmdbStore,
} from './support/engines.js';
import { runPaired, type Contestant } from './support/paired.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const RANGE = 100;
const UNORDERED = 'FlashVector, ordered: false';
const NO_SNAPSHOT = 'no snapshot open';
const ONE_SNAPSHOT = 'one snapshot open';
const IN_SNAPSHOT = 'get of the snapshot';
const LMDB_NO_SYNC = 'lmdb-js, noSync';

interface Stores {
  db: FlashVector;
  lmdb: LmdbStore | undefined;
}

async function openFilled(context: Context, data: DataSet): Promise<Stores> {
  const db = await openFlashVector(context.folder);
  await fillFlashVector(db, data);
  if (context.lmdb === undefined) return { db, lmdb: undefined };
  const lmdb = openLmdb(context.lmdb, context.folder);
  await fillLmdb(lmdb, data);
  return { db, lmdb };
}

async function close(context: Context, { db, lmdb }: Stores): Promise<void> {
  await db.close();
  await lmdb?.close();
  removeStores(context.folder);
}

/** Runs `work` and says how many things it did a second. */
function timed(work: () => number): Promise<number> {
  const started = performance.now();
  const count = work();
  return Promise.resolve((count * 1000) / (performance.now() - started));
}

async function measureScans(context: Context, kind: 'object' | 'string'): Promise<Section[]> {
  const data = makeDataSet(kind, keyCount(context.quick));
  const stores = await openFilled(context, data);
  const { db, lmdb } = stores;
  const total = data.keys.length;
  const check = (found: number, expected: number): number => {
    if (found !== expected) throw new Error(`a range of ${expected} entries had ${found}`);
    return found;
  };
  const scans: Contestant[] = [
    {
      name: FLASHVECTOR,
      run: () =>
        timed(() => {
          let found = 0;
          for (const [, value] of db.entries()) if (value !== undefined) found++;
          return check(found, total);
        }),
    },
  ];
  const ranges: Contestant[] = [
    {
      name: FLASHVECTOR,
      run: () =>
        timed(() => {
          for (let i = 0; i < 2000; i++) {
            let found = 0;
            for (const [, value] of db.entries({ gte: data.keys[i], limit: RANGE })) if (value !== undefined) found++;
            if (found > RANGE) throw new Error('a range without an end');
          }
          return 2000;
        }),
    },
  ];
  if (lmdb !== undefined) {
    scans.push({
      name: LMDB,
      run: () =>
        timed(() => {
          let found = 0;
          for (const { value } of lmdb.getRange()) if (value !== undefined) found++;
          return check(found, total);
        }),
    });
    ranges.push({
      name: LMDB,
      run: () =>
        timed(() => {
          for (let i = 0; i < 2000; i++) {
            let found = 0;
            for (const { value } of lmdb.getRange({ start: data.keys[i], limit: RANGE })) if (value !== undefined) found++;
            if (found > RANGE) throw new Error('a range without an end');
          }
          return 2000;
        }),
    });
  }
  const options = { rounds: context.quick ? 3 : 9, warmups: 3, collects: false };
  const value = VALUE_NAMES[kind];
  const many = total.toLocaleString('en-US');
  const out = [
    compare(
      `full ordered scan, ${value}, ${many} keys`,
      'entries',
      await runPaired(scans, options),
      LMDB,
      kind === 'string' ? 1.3 : 2,
      `full scan, ${value}`,
    ),
    compare(
      `${RANGE} entries from a random start, ${value}, ${many} keys`,
      'ranges',
      await runPaired(ranges, options),
      LMDB,
      1,
      `${RANGE}-entry range, ${value}`,
    ),
  ];
  await close(context, stores);
  return out;
}

function compare(
  title: string,
  unit: string,
  rates: Awaited<ReturnType<typeof runPaired>>,
  base: string,
  target: number,
  work: string,
  name = FLASHVECTOR,
): Section {
  const out = section(title, unit);
  for (const task of rates.rates.keys()) {
    out.rows.push({ task, rate: rates.rate(task), ratio: rates.ratio(task, base), target: task === name ? target : undefined });
  }
  out.targets.push({ work, unit: `x ${base}`, target, reached: rates.ratio(name, base), bound: 'at least' });
  return out;
}

async function measureInserts(context: Context, kind: ValueKind): Promise<Section> {
  const { keys, values } = makeDataSet(kind, keyCount(context.quick));
  const insert = (name: string, ordered: boolean): Contestant => ({
    name,
    run: async () => {
      const db = await openFlashVector(context.folder, { ordered });
      const started = performance.now();
      let last: Promise<unknown> | undefined;
      for (let i = 0; i < keys.length; i++) last = db.put(keys[i], values[i]);
      await last;
      // New keys may wait for a moment before they are put into the index; nobody can look into it without them.
      if (ordered && [...db.keys({ limit: 1 })].length !== 1) throw new Error('the index is empty');
      const rate = (keys.length * 1000) / (performance.now() - started);
      await db.close();
      removeStores(context.folder);
      return rate;
    },
  });
  const rates = await runPaired([insert(FLASHVECTOR, true), insert(UNORDERED, false)], { rounds: context.quick ? 3 : 9, warmups: 1 });
  const value = VALUE_NAMES[kind];
  const title = `put until durable, ${value}, ${keys.length.toLocaleString('en-US')} new keys, with and without the ordered index`;
  return compare(title, 'puts', rates, UNORDERED, 0.7, `insert with the index, ${value}`);
}

async function measureSnapshots(context: Context): Promise<Section> {
  const data = makeDataSet('object', keyCount(context.quick));
  const { keys } = data;
  const db = await openFlashVector(context.folder);
  await fillFlashVector(db, data);
  const read = (): number => {
    let found = 0;
    for (let i = 0; i < keys.length; i++) if (db.get(keys[i]) !== undefined) found++;
    return found;
  };
  const contestants: Contestant[] = [
    { name: NO_SNAPSHOT, run: () => timed(read) },
    {
      name: ONE_SNAPSHOT,
      run: async () => {
        const snapshot = db.snapshot();
        const rate = await timed(read);
        snapshot.close();
        return rate;
      },
    },
    {
      name: IN_SNAPSHOT,
      run: async () => {
        const snapshot = db.snapshot();
        const rate = await timed(() => {
          let found = 0;
          for (let i = 0; i < keys.length; i++) if (snapshot.get(keys[i]) !== undefined) found++;
          return found;
        });
        snapshot.close();
        return rate;
      },
    },
  ];
  const rates = await runPaired(contestants, { rounds: context.quick ? 3 : 9, warmups: 2 });
  await db.close();
  removeStores(context.folder);
  return compare(
    'get, six-field object, beside an open snapshot',
    'gets',
    rates,
    NO_SNAPSHOT,
    0.9,
    'get with a snapshot open',
    ONE_SNAPSHOT,
  );
}

/** One after the other, each waited for; and a hundred at a time. */
async function measureTransactions(context: Context, inFlight: number): Promise<Section> {
  const data = makeDataSet('object', 10_000);
  const { keys } = data;
  const count = context.quick ? 2000 : 10_000;
  const db = await openFlashVector(context.folder, { durability: 'memory' });
  await fillFlashVector(db, data);
  const run = async (transact: (i: number) => Promise<unknown>): Promise<number> => {
    const started = performance.now();
    for (let i = 0; i < count; i += inFlight) {
      const pending: Promise<unknown>[] = [];
      for (let j = i; j < i + inFlight; j++) pending.push(transact((j * 4) % (keys.length - 4)));
      await Promise.all(pending);
    }
    return (count * 1000) / (performance.now() - started);
  };
  const contestants: Contestant[] = [
    {
      name: FLASHVECTOR,
      run: () =>
        run((i) =>
          db.transaction((tx) => {
            const a = tx.get(keys[i]);
            const b = tx.get(keys[i + 1]);
            tx.put(keys[i + 2], a);
            tx.put(keys[i + 3], b);
          }),
        ),
    },
  ];
  let store: LmdbStore | undefined;
  if (context.lmdb !== undefined) {
    const lmdb = openLmdb(context.lmdb, context.folder, { noSync: true });
    store = lmdb;
    await fillLmdb(lmdb, data);
    contestants.push({
      name: LMDB_NO_SYNC,
      run: () =>
        run((i) =>
          lmdb.transaction(() => {
            const a = lmdb.get(keys[i]);
            const b = lmdb.get(keys[i + 1]);
            void lmdb.put(keys[i + 2], a);
            void lmdb.put(keys[i + 3], b);
          }),
        ),
    });
  }
  const rates = await runPaired(contestants, { rounds: context.quick ? 3 : 7, warmups: 2 });
  await db.close();
  await store?.close();
  removeStores(context.folder);
  const how = inFlight === 1 ? 'one at a time' : `${inFlight} at a time`;
  return compare(
    `transaction of 2 reads and 2 writes, ${how}, not waiting for the disk`,
    'transactions',
    rates,
    LMDB_NO_SYNC,
    2,
    `transaction, ${how}`,
  );
}

export const workload: Workload = {
  title: 'Ranges, snapshots, transactions',
  async run(context) {
    return [
      ...(await measureScans(context, 'string')),
      ...(await measureScans(context, 'object')),
      await measureInserts(context, 'string'),
      await measureInserts(context, 'object'),
      await measureSnapshots(context),
      await measureTransactions(context, 1),
      await measureTransactions(context, 100),
    ];
  },
};
