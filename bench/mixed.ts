/** Reading and writing mixed, 80% get and 20% put in a fixed pattern, by one thread; nothing durable. */

import type { FlashVector } from '../src/index.js';
import { keyCount, makeDataSet, randomFrom, VALUE_NAMES, verify, type DataSet, type ValueKind } from './support/data-set.js';
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
import { BATCH_SIZE, runPoints, type PointTask } from './support/point-bench.js';
import { pointRows } from './support/point-rows.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const PUT_SHARE = 0.2;
const SEED = 7;

interface MixedTask extends PointTask {
  get: (key: string) => unknown;
  close: () => Promise<unknown>;
}

/** Which operations are puts: the same for all. */
function makePattern(): Uint8Array {
  const random = randomFrom(SEED);
  return Uint8Array.from({ length: BATCH_SIZE }, () => (random() < PUT_SHARE ? 1 : 0));
}

// A batch ends when its last put is done, so no engine gets to leave its writing for later.

function flashVectorTask(db: FlashVector, { keys, values }: DataSet, isPut: Uint8Array): MixedTask {
  const batch = async (start: number): Promise<number> => {
    let last: Promise<unknown> | undefined;
    let missing = 0;
    for (let i = 0; i < BATCH_SIZE; i++) {
      const at = start + i;
      if (isPut[i] === 1) last = db.put(keys[at], values[at]);
      else if (db.get(keys[at]) === undefined) missing++;
    }
    await last;
    return missing;
  };
  return { name: FLASHVECTOR, batch, get: (key) => db.get(key), close: () => db.close() };
}

function lmdbTask(db: LmdbStore, { keys, values }: DataSet, isPut: Uint8Array): MixedTask {
  const batch = async (start: number): Promise<number> => {
    let last: Promise<unknown> | undefined;
    let missing = 0;
    for (let i = 0; i < BATCH_SIZE; i++) {
      const at = start + i;
      if (isPut[i] === 1) last = db.put(keys[at], values[at]);
      else if (db.get(keys[at]) === undefined) missing++;
    }
    await last;
    return missing;
  };
  return { name: LMDB, batch, get: (key) => db.get(key), close: () => db.close() };
}

async function openAll(context: Context, data: DataSet): Promise<MixedTask[]> {
  const isPut = makePattern();
  const db = await openFlashVector(context.folder, { durability: 'memory' });
  await fillFlashVector(db, data);
  const tasks = [flashVectorTask(db, data, isPut)];
  if (context.lmdb === undefined) return tasks;
  const other = openLmdb(context.lmdb, context.folder, { noSync: true });
  await fillLmdb(other, data);
  tasks.push(lmdbTask(other, data, isPut));
  return tasks;
}

async function measure(context: Context, kind: ValueKind): Promise<Section> {
  const count = keyCount(context.quick);
  const data = makeDataSet(kind, count);
  const tasks = await openAll(context, data);
  for (const task of tasks) verify(task.name, data, task.get);
  const options = {
    rounds: context.quick ? 3 : 7,
    timeMs: context.quick ? 100 : 300,
    warmupMs: context.quick ? 150 : 300,
    count,
    isAsync: true,
  };
  const result = await runPoints(tasks, options);
  for (const task of tasks) verify(task.name, data, task.get);
  const out = section(`80% get, 20% put, not durable, ${VALUE_NAMES[kind]}, ${count.toLocaleString('en-US')} keys`, 'operations');
  pointRows(out, result, new Map(), undefined, '');
  out.notes.push('lmdb-js with noSync');
  for (const task of tasks) await task.close();
  removeStores(context.folder);
  return out;
}

export const workload: Workload = {
  title: 'Reads and writes mixed',
  async run(context) {
    return [await measure(context, 'object'), await measure(context, 'string')];
  },
};
