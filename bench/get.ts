/**
 * Point reads: 200,000 keys in random order, four kinds of values. Reads are synchronous in all engines,
 * and every engine returns a copy of its own, but for the Map: it returns the object that it was given, and is
 * there to show what a key-value store costs at all.
 */

import type { FlashVector } from '../src/index.js';
import { inFillOrder, keyCount, makeDataSet, VALUE_NAMES, verify, type DataSet, type ValueKind } from './support/data-set.js';
import {
  fillFlashVector,
  fillLmdb,
  FLASHVECTOR,
  LMDB,
  LMDB_SHARED,
  MAP,
  openFlashVector,
  openLmdb,
  removeStores,
  type LmdbStore,
} from './support/engines.js';
import { clockCostUs, timeCalls } from './support/percentiles.js';
import { BATCH_SIZE, runPoints, type PointTask } from './support/point-bench.js';
import { pointRows } from './support/point-rows.js';
import { formatFigure } from './support/render.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const HOT_KEYS = 1000;
const FLASHVECTOR_CACHED = 'FlashVector, cache: true';
const TARGETS: Partial<Record<ValueKind, number>> = { object: 4, string: 4, number: 5 };

/** A task with what is measured one call at a time, and how to end it. */
interface GetTask extends PointTask {
  get: (key: string) => unknown;
  close: () => Promise<unknown>;
}

// The loops are written out for each engine: one shared by all would make its call a slow one for all.

function flashVectorTask(db: FlashVector, keys: readonly string[]): GetTask {
  const batch = (start: number): number => {
    let missing = 0;
    for (let i = start; i < start + BATCH_SIZE; i++) if (db.get(keys[i]) === undefined) missing++;
    return missing;
  };
  return { name: FLASHVECTOR, batch, get: (key) => db.get(key), close: () => db.close() };
}

function lmdbTask(db: LmdbStore, keys: readonly string[]): GetTask {
  const batch = (start: number): number => {
    let missing = 0;
    for (let i = start; i < start + BATCH_SIZE; i++) if (db.get(keys[i]) === undefined) missing++;
    return missing;
  };
  return { name: LMDB, batch, get: (key) => db.get(key), close: () => db.close() };
}

function lmdbSharedTask(db: LmdbStore, keys: readonly string[]): GetTask {
  const batch = (start: number): number => {
    let missing = 0;
    for (let i = start; i < start + BATCH_SIZE; i++) if (db.get(keys[i]) === undefined) missing++;
    return missing;
  };
  return { name: LMDB_SHARED, batch, get: (key) => db.get(key), close: () => db.close() };
}

function mapTask(map: Map<string, unknown>, keys: readonly string[]): GetTask {
  const batch = (start: number): number => {
    let missing = 0;
    for (let i = start; i < start + BATCH_SIZE; i++) if (map.get(keys[i]) === undefined) missing++;
    return missing;
  };
  return { name: MAP, batch, get: (key) => map.get(key), close: () => Promise.resolve() };
}

/** Fills a store of each engine. @param keys in the order in which they are read */
async function openAll(context: Context, data: DataSet, kind: ValueKind, keys: readonly string[]): Promise<GetTask[]> {
  const db = await openFlashVector(context.folder);
  await fillFlashVector(db, data);
  const tasks = [flashVectorTask(db, keys)];
  if (context.lmdb !== undefined) {
    const plain = openLmdb(context.lmdb, context.folder);
    await fillLmdb(plain, data);
    tasks.push(lmdbTask(plain, keys));
    // The setting does nothing for values that are not objects.
    if (kind === 'object') {
      const shared = openLmdb(context.lmdb, context.folder, { sharedStructuresKey: Symbol.for('structures') });
      await fillLmdb(shared, data);
      tasks.push(lmdbSharedTask(shared, keys));
    }
  }
  // Keys of its own: the Map would compare the very same strings by address.
  const filling = inFillOrder(data);
  const map = new Map(filling.keys.map((key, i) => [Buffer.from(key).toString(), filling.values[i]]));
  tasks.push(mapTask(map, keys));
  return tasks;
}

/** Reads in an order that is not the one in which the stores were filled; with `isAsFilled` in just that. */
async function measure(context: Context, kind: ValueKind, isAsFilled = false): Promise<Section> {
  const count = keyCount(context.quick);
  const data = makeDataSet(kind, count);
  // Made anew, so that the keys themselves lie in the order in which they are used.
  const keys = isAsFilled ? inFillOrder(data).keys.map((key) => Buffer.from(key).toString()) : data.keys;
  const tasks = await openAll(context, data, kind, keys);
  for (const task of tasks) verify(task.name, data, task.get);
  const options = {
    rounds: context.quick ? 3 : 7,
    timeMs: context.quick ? 100 : 250,
    warmupMs: context.quick ? 100 : 300,
    count,
    isAsync: false,
  };
  const result = await runPoints(tasks, options);
  const order = isAsFilled ? 'in the order in which they were written' : 'in random order';
  const out = section(`get, ${VALUE_NAMES[kind]}, ${count.toLocaleString('en-US')} keys ${order}`, 'gets');
  const latency = new Map(tasks.map((task) => [task.name, timeCalls(count, (i) => task.get(keys[i]))]));
  out.notes.push(`p50 to max: single calls, of which the clock takes ${formatFigure(clockCostUs())} µs; the rate comes from batches`);
  pointRows(out, result, latency, isAsFilled ? undefined : TARGETS[kind], `get, ${VALUE_NAMES[kind]}`);
  for (const task of tasks) await task.close();
  removeStores(context.folder);
  return out;
}

/** A few keys, read over and over: what a cache of decoded values is for. */
async function measureHot(context: Context): Promise<Section> {
  const few = makeDataSet('object', HOT_KEYS);
  const places = Array.from({ length: BATCH_SIZE }, (_, i) => (i * 7919) % HOT_KEYS);
  // Keys of their own: a Map and a cache would compare the very strings that they hold by address.
  const data = { keys: places.map((at) => Buffer.from(few.keys[at]).toString()), values: places.map((at) => few.values[at]) };
  const { keys } = data;
  const cached = await openFlashVector(context.folder, { cache: true });
  await fillFlashVector(cached, data);
  const batch = (): number => {
    let missing = 0;
    for (let i = 0; i < BATCH_SIZE; i++) if (cached.get(keys[i]) === undefined) missing++;
    return missing;
  };
  const own: GetTask = { name: FLASHVECTOR_CACHED, batch, get: (key) => cached.get(key), close: () => cached.close() };
  const hot = [own, ...(await openAll(context, data, 'object', keys))];
  for (const task of hot) verify(task.name, data, task.get);
  const options = {
    rounds: context.quick ? 3 : 7,
    timeMs: context.quick ? 100 : 250,
    warmupMs: context.quick ? 100 : 300,
    count: BATCH_SIZE,
    isAsync: false,
  };
  const result = await runPoints(hot, options);
  const out = section(`get, ${VALUE_NAMES.object}, ${HOT_KEYS.toLocaleString('en-US')} hot keys`, 'gets');
  const latency = new Map(hot.map((task) => [task.name, timeCalls(BATCH_SIZE, (i) => task.get(keys[i]))]));
  pointRows(out, result, latency, undefined, '');
  out.targets.push({
    work: 'get, hot keys, cache: true',
    unit: 'of the rate of a Map',
    target: 0.5,
    reached: result.rates.ratio(FLASHVECTOR_CACHED, MAP),
    bound: 'at least',
  });
  for (const task of hot) await task.close();
  removeStores(context.folder);
  return out;
}

export const workload: Workload = {
  title: 'Point reads',
  async run(context) {
    const sections: Section[] = [];
    for (const kind of ['object', 'string', 'buffer', 'number'] as const) sections.push(await measure(context, kind));
    // How much it matters.
    sections.push(await measure(context, 'string', true));
    sections.push(await measureHot(context));
    return sections;
  },
};
