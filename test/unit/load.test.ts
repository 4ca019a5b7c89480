/** Loading a checkpoint's entries beside another loader: a busy shard is left for later, and nothing of it is lost. */

import t from 'tap';
import { VALUE_TYPE_SHIFT } from '../../src/base/record.js';
import { releaseWrite, tryAcquireWrite } from '../../src/memory/lock.js';
import { TYPE_UTF8 } from '../../src/table/entry.js';
import { encodeKey } from '../../src/table/key-codec.js';
import { Loader, type LoadedEntry } from '../../src/table/load.js';
import { open } from '../../src/index.js';
import { emptyCore } from '../support/index-harness.js';
import { tempFolder } from '../support/temp.js';

/** An entry as a block has it: a key of eight bytes and a value of four. */
function stored(key: string, value: string, lsn: number): { entry: LoadedEntry; payload: Buffer } {
  const payload = Buffer.allocUnsafeSlow(12);
  payload.write(key + value);
  const meta = key.length | (TYPE_UTF8 << VALUE_TYPE_SHIFT);
  const words = new Int32Array(payload.buffer, payload.byteOffset, payload.length / 4);
  return { entry: { words, meta, keyLength: 8, valueLength: 4, lsnLow: lsn, lsnHigh: 0, keyStart: 0, valueStart: 8 }, payload };
}

void t.test('an entry whose shard another loader has is refused, and loaded when it is offered again', (t) => {
  const core = emptyCore(4);
  const loader = new Loader(core.shards, core.scratch, 1);
  const { entry, payload } = stored('key-0001', 'abcd', 1);
  encodeKey(core.scratch, 'key-0001');
  const shard = core.shards[core.scratch.keyHash & 3];
  const other = stored('key-0001', 'zzzz', 3);
  t.ok(tryAcquireWrite(core.words, shard.lockWord, 2, 0));
  t.equal(loader.offer(entry, payload), false);
  t.equal(shard.entryCount, 0);
  t.equal(loader.loaded, 0);
  releaseWrite(core.words, shard.lockWord);
  t.equal(loader.offer(entry, payload), true);
  t.equal(shard.entryCount, 1);
  t.equal(loader.offer(other.entry, other.payload), true, 'the younger of two under one key counts');
  t.equal(loader.offer(entry, payload), true);
  t.equal(loader.loaded, 3);
  encodeKey(core.scratch, 'key-0001');
  t.equal(shard.get(), 'zzzz');
  t.end();
});

void t.test('two loaders that want the same two shards all the time lose nothing', async (t) => {
  // Two parts, which it takes two threads to load.
  const ENTRIES = 110_000;
  const folder = tempFolder(t);
  const options = { shards: 2, poolThreads: 2, snapshotIntervalSeconds: 0 };
  let db = await open(folder, { ...options, durability: 'memory' });
  for (let i = 0; i < ENTRIES; i += 1000) {
    await db.batch(Array.from({ length: 1000 }, (_, j) => ({ type: 'put' as const, key: `key:${i + j}`, value: (i + j) * 3 })));
  }
  await db.checkpoint();
  await db.close();
  db = await open(folder, options);
  t.equal(db.size, ENTRIES);
  t.equal(db.stats().checkpoints?.entries, ENTRIES, 'from the checkpoint, not from the log');
  let wrong = 0;
  for (let i = 0; i < ENTRIES; i++) if (db.get(`key:${i}`) !== i * 3) wrong++;
  t.equal(wrong, 0);
  t.equal(db.count(), ENTRIES, 'in the ordered index, too');
  await db.close();
});
