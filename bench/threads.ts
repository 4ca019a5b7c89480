/**
 * Several threads on one store: one and two workers that read or write as fast as they can, 1,000 operations at a
 * time. FlashVector's attach to the main thread's store; lmdb-js's open the same path, as its documentation says.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { keyCount, makeDataSet, verify, type DataSet } from './support/data-set.js';
import { fillFlashVector, fillLmdb, FLASHVECTOR, LMDB, openFlashVector, openLmdb, removeStores } from './support/engines.js';
import { runPaired, type Contestant } from './support/paired.js';
import type { ThreadData, ThreadReply, ThreadRequest, ThreadWork } from './support/thread-messages.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const WORKS: readonly ThreadWork[] = ['read', 'write', 'write durably'];
const THREADS_MAX = 2;
/** Least rate of two threads against one. */
const TARGETS: Partial<Record<ThreadWork, number>> = { read: 1.8, write: 1.4 };

/** One engine: its workers, and how to end it. */
interface Team {
  name: string;
  workers: Worker[];
  close(): Promise<void>;
}

function send(worker: Worker, request: ThreadRequest): void {
  worker.postMessage(request);
}

/** The next reply of a worker. Rejects when the worker fails or ends instead. */
async function reply(worker: Worker): Promise<ThreadReply> {
  const gone = new AbortController();
  const ended = once(worker, 'exit', { signal: gone.signal }).then(([code]) => {
    throw new Error(`a worker ended early with code ${code}`);
  });
  try {
    return (await Promise.race([once(worker, 'message', { signal: gone.signal }), ended]))[0] as ThreadReply;
  } finally {
    ended.catch(() => undefined);
    gone.abort();
  }
}

async function startWorkers(store: ThreadData['store'], keys: number): Promise<Worker[]> {
  const workers = Array.from({ length: THREADS_MAX }, (_, index) => {
    const workerData: ThreadData = { store, index, keyCount: keys };
    return new Worker(new URL('./support/thread-worker.js', import.meta.url), { workerData });
  });
  await Promise.all(workers.map(reply));
  return workers;
}

async function closeWorkers(workers: readonly Worker[]): Promise<void> {
  const ended = workers.map((worker) => once(worker, 'exit'));
  for (const worker of workers) send(worker, { type: 'close' });
  await Promise.all(ended);
}

async function flashVectorTeam(context: Context, data: DataSet, isDurable: boolean): Promise<Team> {
  const db = await openFlashVector(context.folder, { durability: isDurable ? 'sync' : 'memory' });
  await fillFlashVector(db, data);
  const workers = await startWorkers({ engine: 'flashvector', handle: db.handle }, data.keys.length);
  const close = async (): Promise<void> => {
    await closeWorkers(workers);
    verify(FLASHVECTOR, data, (key) => db.get(key));
    await db.close();
  };
  return { name: FLASHVECTOR, workers, close };
}

async function lmdbTeam(context: Context, data: DataSet, isDurable: boolean): Promise<Team | undefined> {
  if (context.lmdb === undefined) return undefined;
  const db = openLmdb(context.lmdb, context.folder, isDurable ? {} : { noSync: true });
  await fillLmdb(db, data);
  const workers = await startWorkers({ engine: 'lmdb', path: db.path, noSync: !isDurable }, data.keys.length);
  const close = async (): Promise<void> => {
    await closeWorkers(workers);
    verify(LMDB, data, (key) => db.get(key));
    await db.close();
  };
  return { name: LMDB, workers, close };
}

const taskOf = (name: string, threads: number): string => `${name}, ${threads} thread${threads === 1 ? '' : 's'}`;

function contestant(team: Team, threads: number, work: ThreadWork, timeMs: number): Contestant {
  const workers = team.workers.slice(0, threads);
  const run = async (): Promise<number> => {
    const replies = workers.map(reply);
    for (const worker of workers) send(worker, { type: 'run', work, timeMs });
    let rate = 0;
    for (const done of await Promise.all(replies)) if (done.type === 'done') rate += (done.operations * 1000) / done.elapsedMs;
    return rate;
  };
  return { name: taskOf(team.name, threads), run };
}

/** All in one run of rounds, one thread and two as well: their ratio is one of the same seconds, too. */
async function measure(teams: readonly Team[], work: ThreadWork, context: Context): Promise<Section> {
  const kind = work === 'read' ? 'read' : work === 'write' ? 'write, not durable' : 'write, durable, 1,000 in flight a thread';
  const out = section(`${kind}, six-field object, ${keyCount(context.quick).toLocaleString('en-US')} keys`, 'operations');
  const counts = Array.from({ length: THREADS_MAX }, (_, i) => i + 1);
  const contestants = counts.flatMap((threads) => teams.map((team) => contestant(team, threads, work, context.quick ? 200 : 400)));
  const rates = await runPaired(contestants, { rounds: context.quick ? 2 : 7, warmups: 1 });
  for (const threads of counts) {
    for (const { name } of teams) {
      const task = taskOf(name, threads);
      const gain = rates.ratio(task, taskOf(name, 1)) ?? Number.NaN;
      const detail = threads === 1 ? '' : `${gain.toFixed(2)} x one thread`;
      out.rows.push({ task, rate: rates.rate(task), ratio: rates.ratio(task, taskOf(LMDB, threads)), detail });
    }
  }
  const target = TARGETS[work];
  const reached = rates.ratio(taskOf(FLASHVECTOR, 2), taskOf(FLASHVECTOR, 1));
  if (target !== undefined) out.targets.push({ work: `two threads, ${kind}`, unit: 'x one thread', target, reached, bound: 'at least' });
  return out;
}

async function measureStores(context: Context, data: DataSet, isDurable: boolean): Promise<Section[]> {
  const teams = [await flashVectorTeam(context, data, isDurable), await lmdbTeam(context, data, isDurable)].filter(
    (team) => team !== undefined,
  );
  const sections: Section[] = [];
  for (const work of WORKS.filter((one) => (one === 'write durably') === isDurable)) sections.push(await measure(teams, work, context));
  for (const team of teams) await team.close();
  removeStores(context.folder);
  return sections;
}

export const workload: Workload = {
  title: 'One and two threads on one store',
  async run(context) {
    const data = makeDataSet('object', keyCount(context.quick));
    const sections = await measureStores(context, data, false);
    for (const one of sections) one.notes.push('stores: FlashVector with durability `memory`, lmdb-js with noSync');
    return [...sections, ...(await measureStores(context, data, true))];
  },
};
