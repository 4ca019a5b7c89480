/** The pool when threads die and when it is destroyed: no thread may be ended while it loads code, which can abort the process. */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { FlashVectorError } from '../../src/index.js';
import { Pool } from '../../src/engine/pool.js';
import type { FileSystemSource } from '../../src/platform/files.js';
import { NODE_FILES } from '../../src/platform/node-files.js';
import type { CheckpointResult, CheckpointTask } from '../../workers/checkpoint.js';
import { tempFolder } from '../support/temp.js';

/** Threads that were told to end before they had said that they were ready. */
const endedEarly: number[] = [];
let started = 0;
const ready = new WeakSet<Worker>();
const seen = new WeakSet<Worker>();
const postMessage = Reflect.get(Worker.prototype, 'postMessage') as (this: Worker, message: unknown, transfer?: readonly unknown[]) => void;
const terminate = Reflect.get(Worker.prototype, 'terminate');
// The first thing that a thread is sent is what it is to load.
Worker.prototype.postMessage = function (this: Worker, message: unknown, transfer?: readonly unknown[]): void {
  if (!seen.has(this)) {
    seen.add(this);
    started++;
    this.once('message', () => ready.add(this));
  }
  postMessage.call(this, message, transfer);
};
Worker.prototype.terminate = function (this: Worker): Promise<number> {
  if (!ready.has(this) && this.threadId >= 0) endedEarly.push(this.threadId);
  return terminate.call(this);
};

const fixture = (name: string): FileSystemSource => ({ module: new URL(`../fixture/${name}.js`, import.meta.url).href, config: undefined });
const ENDS = fixture('end-thread');

function taskIn(directory: string, files: FileSystemSource): CheckpointTask {
  return { kind: 'sweep', directory, files, storeId: new Uint8Array(16), checkpoint: 1, givesWay: false };
}

void t.test('destroyed at once after the lead thread has died: the one that takes its place is not ended while it loads', async (t) => {
  for (let round = 0; round < 3; round++) {
    const pool = new Pool(2);
    const task = taskIn(tempFolder(t), ENDS);
    const before = started;
    await t.rejects(pool.runOnLead('checkpoint', task), { name: 'FlashVectorError', code: 'FV_ABORTED', message: /task checkpoint/ });
    t.equal(started - before, 1, 'another one was started');
    await pool.destroy();
    t.same(endedEarly, []);
  }
});

void t.test('destroyed while threads start and have tasks: those are done', async (t) => {
  const folder = tempFolder(t);
  const pool = new Pool(2);
  const tasks = [1, 2, 3].map(() => pool.run<CheckpointTask, CheckpointResult>('checkpoint', taskIn(folder, NODE_FILES)));
  await pool.destroy();
  for (const result of await Promise.all(tasks)) t.same(result, {});
  t.same(endedEarly, []);
  await t.rejects(pool.run('checkpoint', taskIn(folder, ENDS)), { code: 'FV_CLOSED' });
});

void t.test('destroyed as soon as it is made', async (t) => {
  const pool = new Pool(1);
  await pool.destroy();
  await pool.destroy();
  t.same(endedEarly, []);
});

void t.test('a task whose thread dies while the pool is being destroyed', async (t) => {
  const pool = new Pool(1);
  const run = pool.run('checkpoint', taskIn(tempFolder(t), ENDS)).then(
    () => t.fail('its thread died'),
    (error: unknown) => error,
  );
  await pool.destroy();
  const error = await run;
  t.ok(error instanceof FlashVectorError);
  t.match(error, { code: 'FV_CLOSED', cause: Error });
  t.same(endedEarly, []);
});

void t.test('a task that hangs does not keep the pool from being destroyed', async (t) => {
  const pool = new Pool(1, 2000);
  const hung = pool.run('checkpoint', taskIn(tempFolder(t), fixture('hang-thread'))).then(
    () => t.fail('it hangs'),
    (error: unknown) => error,
  );
  await pool.destroy();
  t.match(await hung, { code: 'FV_CLOSED' });
  t.same(endedEarly, []);
});
