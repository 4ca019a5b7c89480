/**
 * List-append transactions from four threads, over keys and over ranges: the recorded history is strictly serializable; and a build that
 * commits without looking is caught.
 */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { open, type FlashVector } from '../../src/index.js';
import { appendLists, type AppendPlan } from '../fixture/append-lists.js';
import { testSeed } from '../support/random.js';
import { findAnomaly, type RecordedTransaction } from '../support/serializability.js';
import { tempFolder } from '../support/temp.js';

const LISTS = 8;

function inWorker(db: FlashVector, plan: AppendPlan): Promise<RecordedTransaction[]> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('../fixture/append-lists.js', import.meta.url), { workerData: { handle: db.handle, plan } });
    worker.once('message', resolve).once('error', reject);
  });
}

async function record(
  t: Tap.Test,
  weakened: boolean,
  transactions: number,
): Promise<{ history: RecordedTransaction[]; anomaly: string | undefined; counted: number }> {
  const seed = testSeed(t);
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4 });
  const plan = (thread: number): AppendPlan => ({ thread, lists: LISTS, transactions, seed, weakened });
  // The main thread takes part where it is not weakened: what is taken away there would be gone for every other test.
  const threads = [1, 2, 3].map((thread) => inWorker(db, plan(thread)));
  threads.push(weakened ? inWorker(db, plan(4)) : appendLists(db, plan(4)));
  const history = (await Promise.all(threads)).flat();
  const final = new Map<number, number[]>();
  for (let key = 0; key < LISTS; key++) final.set(key, (db.get(`list${key}`) as number[] | undefined) ?? []);
  const counted = db.count({ prefix: 'count' });
  await db.close();
  return { history, anomaly: findAnomaly(history, final), counted };
}

void t.test('transactions of four threads are strictly serializable, over ranges too', { timeout: 240_000 }, async (t) => {
  const { history, anomaly, counted } = await record(t, false, 2000);
  t.equal(anomaly, undefined);
  const writers = history.filter(({ appends }) => appends.length > 0).length;
  t.equal(counted, writers, 'each has found another number of keys');
  t.ok(history.length > 7000, `${history.length} transactions committed`);
});

void t.test('a build that commits without looking is caught', { timeout: 240_000 }, async (t) => {
  const { history, anomaly, counted } = await record(t, true, 500);
  const writers = history.filter(({ appends }) => appends.length > 0).length;
  t.ok(anomaly !== undefined || counted < writers, anomaly ?? `${counted} keys of ${writers}`);
});

void t.test('the check finds what it is to find', async (t) => {
  const tx = (reads: [number, number[]][], appends: [number, number][], start: number, end: number): RecordedTransaction => ({
    reads: reads.map(([key, values]) => ({ key, values })),
    appends: appends.map(([key, value]) => ({ key, value })),
    start,
    end,
  });
  t.equal(findAnomaly([tx([[1, []]], [[1, 5]], 0, 1), tx([[1, [5]]], [[1, 6]], 2, 3)], new Map([[1, [5, 6]]])), undefined);
  // Write skew: each has read what the other has not yet written.
  const skew = [
    tx(
      [
        [1, []],
        [2, []],
      ],
      [[1, 5]],
      0,
      9,
    ),
    tx(
      [
        [1, []],
        [2, []],
      ],
      [[2, 6]],
      0,
      9,
    ),
  ];
  t.match(
    findAnomaly(
      skew,
      new Map([
        [1, [5]],
        [2, [6]],
      ]),
    ),
    /a cycle of 2/,
  );
  t.match(findAnomaly([tx([[1, []]], [[1, 5]], 0, 1), tx([[1, []]], [[1, 6]], 0, 1)], new Map([[1, [6]]])), /lost/);
  // Read something old after it was overwritten.
  t.match(findAnomaly([tx([[1, []]], [[1, 5]], 0, 1), tx([[1, []]], [], 2, 3)], new Map([[1, [5]]])), /a cycle of 2/);
  t.match(findAnomaly([tx([[1, [7]]], [], 0, 1), tx([], [[1, 5]], 0, 1)], new Map([[1, [5]]])), /not how the list began/);
});
