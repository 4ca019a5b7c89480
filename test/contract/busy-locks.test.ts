/** Writes of every kind whose shard's lock is busy at first, and free again as soon as this thread sleeps: none of them is deferred. */

import t from 'tap';
import { open, type FlashVector } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
import { releaseWrite } from '../../src/memory/lock.js';
import { tempFolder } from '../support/temp.js';

const SHARD = L.shardWord(0);
/** A slot that no thread has, and 1. */
const OTHER = 200;

const WRITES: Record<string, (db: FlashVector) => Promise<unknown>> = {
  put: (db) => db.put('a', 1),
  'put if a version': (db) => db.put('a', 2, { ifVersion: db.getEntry('a')?.lsn }),
  'a long put': (db) => db.put('long', Buffer.alloc(2_000_000)),
  increment: (db) => db.increment('a', 5),
  update: (db) => db.update('a', (value) => (value as number) + 1),
  modify: (db) => db.modify('a', () => ({ value: 9 })),
  expire: (db) => db.expire('a', 100_000),
  batch: (db) => db.batch([{ type: 'put', key: 'b', value: 1 }]),
  transaction: (db) => db.transaction((tx) => tx.put('c', 1)),
  del: (db) => db.del('b'),
};

void t.test('a busy lock is slept for once', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory', shards: 1, ordered: false });
  const words = new Int32Array(db.handle.control);
  const { wait } = Atomics;
  t.teardown(() => (Atomics.wait = wait));
  await db.put('a', 0);
  for (const [name, write] of Object.entries(WRITES)) {
    await new Promise((resolve) => setTimeout(resolve, 3));
    let sleeps = 0;
    Atomics.wait = () => {
      sleeps++;
      if (words[SHARD + L.SHARD_LOCK] === OTHER) releaseWrite(words, SHARD);
      return 'ok';
    };
    const before = db.stats().contention.deferrals;
    words[SHARD + L.SHARD_LOCK] = OTHER;
    const written = write(db);
    Atomics.wait = wait;
    await written;
    t.equal(sleeps, 1, `${name} slept`);
    t.equal(db.stats().contention.deferrals, before, `${name} was not deferred`);
  }
  t.equal(db.get('a'), 9);
  t.equal(db.get('c'), 1);
  await db.close();
});
