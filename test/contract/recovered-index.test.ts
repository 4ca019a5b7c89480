/** The ordered index after recovery: built by one task and by several, and what becomes of it from there on. */

import t from 'tap';
import { Pool } from '../../src/engine/pool.js';
import { open } from '../../src/index.js';
import type { IndexDone, IndexResult, IndexTask } from '../../workers/index.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

type Run = () => Promise<IndexResult>;

/** Has `change` carry out every task that builds an index, until the test ends. */
function interceptTasks(t: Tap.Test, change: (task: IndexTask, run: Run) => Promise<unknown>): void {
  const pool = Pool.prototype as unknown as Record<'run' | 'runOnLead', (this: Pool, ...args: unknown[]) => Promise<unknown>>;
  const { run, runOnLead } = pool;
  const intercepted = (original: typeof run): typeof run =>
    function intercept(this: Pool, ...args: unknown[]): Promise<unknown> {
      const [name, task] = args;
      const start = (): Promise<IndexResult> => original.apply(this, args) as Promise<IndexResult>;
      return name === 'index' ? change(task as IndexTask, start) : start();
    };
  Object.assign(pool, { run: intercepted(run), runOnLead: intercepted(runOnLead) });
  t.teardown(() => Object.assign(pool, { run, runOnLead }));
}

void t.test('the index of a large store is built by several tasks, and is what it was', async (t) => {
  const random = randomFrom(testSeed(t));
  const draw = (below: number): number => Math.floor(random() * below);
  // Numbers, short keys, and such as differ far behind their beginnings: what the tasks' ranges begin and end with.
  const makeKey = (): string =>
    [
      () => `user:${String(draw(1e9)).padStart(10, '0')}`,
      () => draw(1e6).toString(36),
      () => `${'a/very/long/beginning/'.repeat(1 + draw(3))}${draw(1e6).toString(36)}`,
    ][draw(3)]();
  const folder = tempFolder(t);
  const model = new Map<string, number>();
  let db = await open(folder, { durability: 'memory', poolThreads: 3 });
  const change = (puts: number, removals: number): void => {
    for (let i = 0; i < puts; i++) {
      const key = makeKey();
      model.set(key, i);
      void db.put(key, i);
    }
    for (const key of [...model.keys()].filter(() => random() < removals / model.size)) {
      model.delete(key);
      void db.del(key);
    }
  };
  change(75_000, 100);
  let tasks: string[] = [];
  interceptTasks(t, (task, run) => {
    tasks.push(task.kind === 'leaves' ? `leaves ${task.index}` : task.kind);
    return run();
  });
  for (const poolThreads of [3, 2, 4, 1]) {
    await db.flush();
    await db.close();
    const phases: number[] = [];
    tasks = [];
    db = await open(folder, {
      durability: 'memory',
      poolThreads,
      onProgress: ({ phase, records }) => {
        if (phase === 'index') phases.push(records);
      },
    });
    t.ok(model.size > 60_000, 'more keys than one task sorts alone');
    const sorted = [...model.keys()].sort();
    t.same(phases.at(-1), sorted.length);
    t.ok(phases.every(Number.isInteger), phases.join());
    const several = (kind: (index: number) => string): string[] => Array.from({ length: poolThreads }, (_, index) => kind(index));
    t.same(tasks, poolThreads === 1 ? ['sort', 'build'] : [...several(() => 'sort'), ...several((index) => `leaves ${index}`), 'tree']);
    t.ok([...db.keys()].join('\n') === sorted.join('\n'), `all keys in order, with ${poolThreads} threads`);
    t.equal(db.count(), sorted.length);
    for (let i = 0; i < 300; i++) {
      const key = i % 2 === 0 ? sorted[draw(sorted.length)] : makeKey();
      const at = sorted.findIndex((other) => other >= key);
      const above = at < 0 ? [] : sorted.slice(at, at + 3);
      const below = sorted.slice(Math.max(0, (at < 0 ? sorted.length : at) - 3), at < 0 ? sorted.length : at).reverse();
      if ([...db.keys({ gte: key, limit: 3 })].join() !== above.join()) t.fail(`from ${key}`);
      if ([...db.keys({ lt: key, limit: 3, reverse: true })].join() !== below.join()) t.fail(`to ${key}`);
    }
    for (const key of sorted.filter(() => random() < 0.01)) if (db.get(key) !== model.get(key)) t.fail(`the value of ${key}`);
    change(2000, 2000);
    t.ok([...db.keys()].join('\n') === [...model.keys()].sort().join('\n'), 'and after changes');
  }
  await db.close();
});

void t.test('regression: what onProgress throws was told to nobody but the process, and once more by open', async (t) => {
  const folder = tempFolder(t);
  let db = await open(folder, { durability: 'memory' });
  for (let i = 0; i < 60_000; i++) void db.put(`key${i}`, 'x'.repeat(100));
  await db.flush();
  await db.checkpoint();
  for (let i = 0; i < 60_000; i++) void db.put(`key${i}`, 'y'.repeat(100));
  await db.close();
  const uncaught: unknown[] = [];
  const onUncaught = (error: unknown): void => void uncaught.push(error);
  process.on('uncaughtException', onUncaught);
  t.teardown(() => void process.off('uncaughtException', onUncaught));
  for (const at of ['load', 'replay', 'index', 'done']) {
    const refusal = new Error(`not at ${at}`);
    let told = 0;
    const opening = open(folder, {
      onProgress: ({ phase }) => {
        if (phase !== at && told === 0) return;
        told++;
        throw refusal;
      },
    });
    t.equal(await opening.catch((error: unknown) => error), refusal);
    t.equal(told, 1);
  }
  db = await open(folder);
  t.equal(db.get('key59999'), 'y'.repeat(100));
  await db.close();
  t.same(uncaught, []);
});

void t.test('where a task fails that builds the index the opening does, once the others have ended, and says why', async (t) => {
  const folder = tempFolder(t);
  const options = { durability: 'memory', poolThreads: 3 } as const;
  const db = await open(folder, options);
  for (let i = 0; i < 60_000; i++) void db.put(`k${i}`, i);
  await db.close();
  const full = { name: 'FlashVectorError', code: 'FV_MEMORY_FULL', message: 'no memory, says the test' };
  const late = { name: 'FlashVectorError', code: 'FV_TIMEOUT', message: 'the lock of a dead thread, says the test' };
  const failures: [string, Record<number, () => Promise<IndexResult>>, { code?: string; message: string }][] = [
    ['a result that says so', { 1: async () => ({ error: full }) }, full],
    [
      'a dead thread, for which another one has waited',
      { 0: async () => ({ error: late }), 2: () => Promise.reject(new Error('its worker has exited')) },
      { message: 'its worker has exited' },
    ],
    ['only time-outs', { 0: async () => ({ error: late }), 1: async () => ({ error: late }) }, late],
  ];
  let fails: (typeof failures)[number][1] = {};
  let running = 0;
  interceptTasks(t, async (task, run) => {
    if (task.kind !== 'leaves') return run();
    running++;
    const fail = fails[task.index];
    const result = await (
      fail === undefined
        ? run().then((done) => new Promise<IndexDone>((resolve) => setTimeout(() => resolve(done as IndexDone), 200)))
        : fail()
    ).finally(() => running--);
    return result;
  });
  for (const [name, failing, expected] of failures) {
    fails = failing;
    await t.rejects(open(folder, options), expected, name);
    t.equal(running, 0, 'nobody writes any more');
  }
  fails = {};
  const again = await open(folder, options);
  t.equal([...again.keys()].length, 60_000);
  await again.close();
});
