/**
 * Bulk writing: 200,000 puts in random order, none waited for by itself; the clock stops when all are safe.
 *
 * - Durable: FlashVector with durability `sync`, lmdb-js by its defaults until `flushed`. Once into new stores, once among the keys
 *   of stores that stay open and grow, and once over the same keys again.
 * - Not durable: FlashVector with durability `memory`, lmdb-js with `noSync`, and a Map.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { FlashVector } from '../src/index.js';
import { keyCount, keyOf, makeDataSet, shuffledNumbers, VALUE_NAMES, verify, type DataSet, type ValueKind } from './support/data-set.js';
import {
  fillFlashVector,
  fillLmdb,
  FLASHVECTOR,
  LMDB,
  MAP,
  openFlashVector,
  openLmdb,
  removeStores,
  type LmdbStore,
} from './support/engines.js';
import { runPaired, type Contestant, type PairedOptions, type PairedRates } from './support/paired.js';
import { section, type Context, type Section, type TargetResult, type Workload } from './support/workload.js';

const TARGETS: Partial<Record<ValueKind, number>> = { object: 2, string: 3 };
const LMDB_NO_SYNC = 'lmdb-js, noSync';
const FLASHVECTOR_UNORDERED = 'FlashVector, ordered: false';

/** @returns puts a second, all of them safe */
async function putFlashVector(db: FlashVector, { keys, values }: DataSet): Promise<number> {
  const started = performance.now();
  let last: Promise<unknown> | undefined;
  for (let i = 0; i < keys.length; i++) last = db.put(keys[i], values[i]);
  await last;
  return (keys.length * 1000) / (performance.now() - started);
}

async function putLmdb(db: LmdbStore, { keys, values }: DataSet, isDurable: boolean): Promise<number> {
  const started = performance.now();
  let last: Promise<unknown> | undefined;
  for (let i = 0; i < keys.length; i++) last = db.put(keys[i], values[i]);
  await last;
  if (isDurable) await db.flushed;
  return (keys.length * 1000) / (performance.now() - started);
}

/** Contestants that open a new store each round; opening, closing and removing it is not timed. */
function onNewStores(context: Context, data: DataSet, isDurable: boolean): Contestant[] {
  const { lmdb, folder } = context;
  const runFlashVector = async (ordered: boolean): Promise<number> => {
    const db = await openFlashVector(folder, { durability: isDurable ? 'sync' : 'memory', ordered });
    const rate = await putFlashVector(db, data);
    await db.close();
    removeStores(folder);
    return rate;
  };
  const contestants: Contestant[] = [
    { name: FLASHVECTOR, run: () => runFlashVector(true) },
    // lmdb-js keeps its keys in order, as FlashVector does unless it is told not to.
    { name: FLASHVECTOR_UNORDERED, run: () => runFlashVector(false) },
  ];
  if (lmdb === undefined) return contestants;
  const runLmdb = async (): Promise<number> => {
    const db = openLmdb(lmdb, folder, isDurable ? {} : { noSync: true });
    const rate = await putLmdb(db, data, isDurable);
    await db.close();
    removeStores(folder);
    return rate;
  };
  contestants.push({ name: isDurable ? LMDB : LMDB_NO_SYNC, run: runLmdb });
  return contestants;
}

/** A checkpoint that one engine has begun is not to run while another is timed. */
async function idle(db: FlashVector): Promise<void> {
  while (db.stats().checkpoints?.running === true) await sleep(10);
}

function mapContestant({ keys, values }: DataSet): Contestant {
  const run = (): Promise<number> => {
    const started = performance.now();
    const map = new Map<string, unknown>();
    for (let i = 0; i < keys.length; i++) map.set(keys[i], values[i]);
    return Promise.resolve((keys.length * 1000) / (performance.now() - started));
  };
  return { name: MAP, run };
}

/** One store of each kind, open all the time; each round puts as many new keys, which lie between those of the rounds before. */
async function putAmong(context: Context, data: DataSet, options: PairedOptions): Promise<PairedRates> {
  const rounds = options.warmups + options.rounds;
  const numbers = [...shuffledNumbers(data.keys.length)];
  const ordered = await openFlashVector(context.folder);
  const unordered = await openFlashVector(context.folder, { ordered: false });
  const other = context.lmdb === undefined ? undefined : openLmdb(context.lmdb, context.folder);
  const contestant = (name: string, put: (data: DataSet) => Promise<number>): Contestant => {
    let round = 0;
    return {
      name,
      run: async () => {
        const first = round++;
        const set = { keys: numbers.map((number) => keyOf(number * rounds + first)), values: data.values };
        await idle(ordered);
        await idle(unordered);
        return put(set);
      },
    };
  };
  const contestants = [
    contestant(FLASHVECTOR, (set) => putFlashVector(ordered, set)),
    contestant(FLASHVECTOR_UNORDERED, (set) => putFlashVector(unordered, set)),
  ];
  if (other !== undefined) contestants.push(contestant(LMDB, (set) => putLmdb(other, set, true)));
  const result = await runPaired(contestants, options);
  const last = { keys: numbers.map((number) => keyOf(number * rounds + rounds - 1)), values: data.values };
  for (const db of [ordered, unordered]) {
    verify(FLASHVECTOR, last, (key) => db.get(key));
    if (db.size !== rounds * data.keys.length) throw new Error(`${FLASHVECTOR} holds ${db.size} keys of ${rounds * data.keys.length}`);
    await db.close();
  }
  if (other !== undefined) verify(LMDB, last, (key) => other.get(key));
  await other?.close();
  removeStores(context.folder);
  return result;
}

/** Fills one store of each engine, checks it, and puts everything over and over again. */
async function overwrite(context: Context, data: DataSet, options: PairedOptions): Promise<PairedRates> {
  const db = await openFlashVector(context.folder);
  await fillFlashVector(db, data);
  verify(FLASHVECTOR, data, (key) => db.get(key));
  const afterCheckpoints = async (put: () => Promise<number>): Promise<number> => {
    await idle(db);
    return put();
  };
  const contestants: Contestant[] = [{ name: FLASHVECTOR, run: () => afterCheckpoints(() => putFlashVector(db, data)) }];
  let other: LmdbStore | undefined;
  if (context.lmdb !== undefined) {
    const store = openLmdb(context.lmdb, context.folder);
    other = store;
    await fillLmdb(store, data);
    verify(LMDB, data, (key) => store.get(key));
    contestants.push({ name: LMDB, run: () => afterCheckpoints(() => putLmdb(store, data, true)) });
  }
  const result = await runPaired(contestants, options);
  await db.close();
  await other?.close();
  removeStores(context.folder);
  return result;
}

function describe(title: string, rates: PairedRates, base: string, target: number | undefined, work: string): Section {
  const out = section(title, 'puts');
  for (const task of rates.rates.keys()) {
    out.rows.push({ task, rate: rates.rate(task), ratio: rates.ratio(task, base), target: task === FLASHVECTOR ? target : undefined });
  }
  if (target === undefined) return out;
  const reached: TargetResult = { work, unit: 'x lmdb-js', target, reached: rates.ratio(FLASHVECTOR, base), bound: 'at least' };
  out.targets.push(reached);
  return out;
}

async function measureDurable(context: Context, kind: ValueKind): Promise<Section[]> {
  const data = makeDataSet(kind, keyCount(context.quick));
  const options = optionsFor(context, kind);
  const overwritten = await overwrite(context, data, options);
  const created = await runPaired(onNewStores(context, data, true), options);
  const among = await putAmong(context, data, options);
  const value = VALUE_NAMES[kind];
  const many = data.keys.length.toLocaleString('en-US');
  return [
    describe(
      `put until durable, ${value}, ${many} new keys into an empty store, all in flight`,
      created,
      LMDB,
      TARGETS[kind],
      `put until durable, ${value}, new keys, empty store`,
    ),
    describe(
      `put until durable, ${value}, ${many} new keys among those of a store that grows, all in flight`,
      among,
      LMDB,
      TARGETS[kind],
      `put until durable, ${value}, new keys among others`,
    ),
    describe(
      `put until durable, ${value}, over ${many} keys, all in flight`,
      overwritten,
      LMDB,
      TARGETS[kind],
      `put until durable, ${value}, over old`,
    ),
  ];
}

async function measureVolatile(context: Context, kind: ValueKind): Promise<Section> {
  const data = makeDataSet(kind, keyCount(context.quick));
  const contestants = [...onNewStores(context, data, false), mapContestant(data)];
  const rates = await runPaired(contestants, optionsFor(context, kind));
  return describe(
    `put, not durable, ${VALUE_NAMES[kind]}, ${data.keys.length.toLocaleString('en-US')} new keys`,
    rates,
    LMDB_NO_SYNC,
    undefined,
    '',
  );
}

/** 200 MiB a round take their time, and by then the compiler has warmed up with the other kinds. */
function optionsFor(context: Context, kind: ValueKind): PairedOptions {
  if (kind === 'buffer') return { rounds: context.quick ? 1 : 3, warmups: 0 };
  return { rounds: context.quick ? 2 : 5, warmups: 1 };
}

export const workload: Workload = {
  title: 'Bulk writes',
  async run(context) {
    const sections: Section[] = [];
    for (const kind of ['object', 'string', 'buffer'] as const) sections.push(...(await measureDurable(context, kind)));
    for (const kind of ['object', 'string', 'buffer'] as const) sections.push(await measureVolatile(context, kind));
    return sections;
  },
};
