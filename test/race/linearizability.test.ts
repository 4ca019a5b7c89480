/**
 * Four threads on overlapping keys, the main thread among them. Every operation is recorded with its
 * start and end on one clock, and each key's history must be explicable by some order. The checker
 * itself is shown histories that it must refuse.
 */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { open, type FlashVector } from '../../src/index.js';
import { findViolation, type RecordedOperation } from '../support/linearizability.js';
import { testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';
import { hammer, type HammerPlan } from '../fixture/hammer.js';

void t.test('the checker refuses what cannot be', (t) => {
  const op = (kind: RecordedOperation['kind'], value: number, start: number, end: number): RecordedOperation => ({
    key: 1,
    kind,
    value,
    start,
    end,
  });
  t.equal(findViolation([op('w', 1, 0, 1), op('r', 1, 2, 3)]), undefined);
  t.equal(findViolation([op('w', 1, 0, 10), op('r', 1, 2, 3), op('r', 0, 4, 5)]), 1, 'a value that was seen disappears');
  t.equal(findViolation([op('w', 1, 0, 1), op('r', 0, 2, 3)]), 1, 'a write that had ended is not seen');
  t.equal(findViolation([op('w', 1, 0, 1), op('w', 2, 2, 3), op('r', 1, 4, 5)]), 1, 'an overwritten value comes back');
  t.equal(findViolation([op('c', 1, 0, 1), op('c', 2, 2, 3)]), 1, 'two writes that needed absence both succeeded');
  t.equal(findViolation([op('w', 1, 0, 10), op('w', 2, 0, 10), op('r', 2, 1, 2), op('r', 1, 3, 4)]), undefined);
  t.end();
});

async function race(db: FlashVector, plan: Omit<HammerPlan, 'thread'>): Promise<RecordedOperation[]> {
  const workers = [1, 2, 3].map(
    (thread) =>
      new Worker(new URL('../fixture/hammer.js', import.meta.url), { workerData: { handle: db.handle, plan: { ...plan, thread } } }),
  );
  const histories = workers.map(
    (worker) => new Promise<RecordedOperation[]>((resolve, reject) => worker.once('message', resolve).once('error', reject)),
  );
  const own = hammer(db, { ...plan, thread: 0 });
  return (await Promise.all([own, ...histories])).flat();
}

for (const [name, plan] of [
  ['few keys, small values', { keys: 8, operations: 6000, size: 0 }],
  ['many keys, values of changing size', { keys: 64, operations: 6000, size: 3000 }],
] as const) {
  void t.test(name, async (t) => {
    const db = await open(tempFolder(t), { durability: 'memory', shards: 2, ringBytes: 262_144 });
    const history = await race(db, { ...plan, seed: testSeed(t) });
    t.equal(findViolation(history), undefined, `${history.length} operations`);
    t.ok(history.length > plan.operations * 4 * 0.8, 'all but the conditional writes that failed');
    await db.close();
  });
}

void t.test('batches are seen as a whole, increments lose nothing', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder, { durability: 'memory', ringBytes: 131_072 });
  const worker = (mode: string): Promise<unknown> =>
    new Promise((resolve, reject) => {
      new Worker(new URL('../fixture/batch-pairs.js', import.meta.url), { workerData: { handle: db.handle, mode } })
        .once('message', resolve)
        .once('error', reject);
    });
  const results = await Promise.all([worker('write'), worker('write'), worker('read'), worker('read')]);
  t.same(results, ['ok', 'ok', 'ok', 'ok']);
  t.equal(db.get('count'), 2 * 3000, 'every increment counted');
  await db.close();
  const again = await open(folder);
  t.equal(again.get('count'), 6000);
  t.equal(again.get('left'), again.get('right'));
  await again.close();
});
