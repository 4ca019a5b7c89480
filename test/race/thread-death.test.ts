/**
 * Threads that are terminated at random moments. The store goes on, or, when the thread died inside a
 * write, turns read-only with FV_IO; it never hangs, and reopening finds everything acknowledged.
 */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { FlashVectorError, open } from '../../src/index.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const ROUNDS = 30;

void t.test('terminated threads', { timeout: 300_000 }, async (t) => {
  const random = randomFrom(testSeed(t));
  const folder = tempFolder(t);
  let db = await open(folder, { ringBytes: 131_072 });
  let acknowledged = 0;
  let readOnly = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const worker = new Worker(new URL('../fixture/write-until-closed.js', import.meta.url), { workerData: { handle: db.handle } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await new Promise((resolve) => setTimeout(resolve, random() * 10));
    await worker.terminate();
    const outcome = await db.put('own', round + 1).then(
      () => 'goes on',
      (error: unknown) => (error instanceof FlashVectorError ? error.code : String(error)),
    );
    if (outcome === 'goes on') {
      acknowledged = round + 1;
      t.equal(db.stats().threads, 1, 'the slot of the dead is free');
      continue;
    }
    if (outcome !== 'FV_IO' && outcome !== 'FV_READONLY') t.fail(`round ${round}: ${outcome}`);
    readOnly++;
    await db.close().catch(() => undefined);
    db = await open(folder, { ringBytes: 131_072 });
    const own = (db.get('own') as number | undefined) ?? 0;
    if (own < acknowledged) t.fail(`${acknowledged} was acknowledged, ${own} found`);
  }
  t.comment(`${readOnly} of ${ROUNDS} deaths were inside a write`);
  t.ok(acknowledged > 0);
  await db.close();
});
