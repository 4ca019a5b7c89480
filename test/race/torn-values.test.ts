/** Values that are read while others of other shapes are written over them: each is one that somebody wrote, and no read throws. */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { open } from '../../src/index.js';
import { isWhole, KEYS } from '../fixture/shapes.js';
import { tempFolder } from '../support/temp.js';

void t.test('a reader meets records, strings and buffers under the same keys', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1 });
  const worker = new Worker(new URL('../fixture/shapes.js', import.meta.url), { workerData: { handle: db.handle } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  let reads = 0;
  let broken = 0;
  // Until enough attempts were in vain for torn bytes to have been decoded: on one processor that takes its time.
  for (const until = performance.now() + 20_000; performance.now() < until && db.stats().contention.optimisticRetries < 20_000;) {
    for (const key of KEYS) {
      reads++;
      if (!isWhole(db.get(key))) broken++;
    }
    for (const [, value] of db.entries()) {
      reads++;
      if (!isWhole(value)) broken++;
    }
    if ((reads & 1023) < 6) await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal(broken, 0, `of ${reads} reads`);
  t.ok(db.stats().contention.optimisticRetries > 100, `${db.stats().contention.optimisticRetries} attempts were in vain`);
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  worker.postMessage('stop');
  await ended;
  await db.close();
});
