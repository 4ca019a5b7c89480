/** Values and keys that are read while others of other shapes take their place: each is one that somebody wrote, and no read throws or ends the process. */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { open } from '../../src/index.js';
import { isWhole, KEYS } from '../fixture/shapes.js';
import { TURNS } from '../fixture/take-turns.js';
import { tempFolder } from '../support/temp.js';

void t.test('a reader meets records, strings and buffers under the same keys', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1 });
  const worker = new Worker(new URL('../fixture/shapes.js', import.meta.url), { workerData: { handle: db.handle } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  let reads = 0;
  let broken = 0;
  let missed = 0;
  let brokenInSnapshot = 0;
  let missedInSnapshot = 0;
  // Until enough attempts were in vain for torn bytes to have been decoded: on one processor that takes its time.
  for (const until = performance.now() + 20_000; performance.now() < until && db.stats().contention.optimisticRetries < 60_000;) {
    for (const key of KEYS) {
      reads++;
      if (!isWhole(db.get(key))) broken++;
      if (!db.has(key)) missed++;
    }
    const snapshot = db.snapshot();
    for (let i = 0; i < 10; i++) {
      for (const key of KEYS) {
        if (!isWhole(snapshot.get(key))) brokenInSnapshot++;
        if (!snapshot.has(key)) missedInSnapshot++;
      }
    }
    snapshot.close();
    for (const [, value] of db.entries()) {
      reads++;
      if (!isWhole(value)) broken++;
    }
    if ((reads & 1023) < 6) await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal(broken, 0, `of ${reads} reads`);
  t.equal(missed, 0, 'a key that is there all the time was not found');
  t.equal(brokenInSnapshot, 0);
  t.equal(missedInSnapshot, 0);
  t.ok(db.stats().contention.optimisticRetries > 100, `${db.stats().contention.optimisticRetries} attempts were in vain`);
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  worker.postMessage('stop');
  await ended;
  await db.close();
});

void t.test('a walk without order meets keys that are not ASCII, and others in their place', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1, ordered: false });
  const worker = new Worker(new URL('../fixture/take-turns.js', import.meta.url), { workerData: { handle: db.handle } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const seen = new Map<unknown, number>();
  for (const until = performance.now() + 3000; performance.now() < until;) {
    for (let i = 0; i < 100; i++) for (const [key] of db.entries()) seen.set(key, (seen.get(key) ?? 0) + 1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok([...seen.keys()].every((key) => TURNS.includes(key as string)));
  t.ok([...seen.values()].reduce((sum, count) => sum + count, 0) > 100);
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  worker.postMessage('stop');
  await ended;
  await db.close();
});
