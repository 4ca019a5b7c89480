/** Every entry says of its block what the allocator says, however it was written, and where only a block of a larger class was to be had. */

import t from 'tap';
import { KEY_LENGTH_MASK, wordsOf } from '../../src/base/record.js';
import { open, type FlashVector } from '../../src/index.js';
import { Region } from '../../src/memory/region.js';
import { classAt, classOf } from '../../src/memory/slabs.js';
import { ENTRY_CLASS_SHIFT, ENTRY_HEADER_BYTES, ENTRY_OLDER, ENTRY_VALUE_LENGTH } from '../../src/table/entry.js';
import { HashTable } from '../../src/table/hash-table.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

/** More than the store can hold. */
const ENTRIES_MAX = 1_000_000;

/** Looks at every entry and its older versions. @returns entries, those with a wrong class, and those whose block is of a larger class than they need */
function countClasses(db: FlashVector): { entries: number; wrong: number; larger: number } {
  const counts = { entries: 0, wrong: 0, larger: 0 };
  const { handle } = db;
  for (const buffer of handle.shards) {
    const region = new Region(buffer, new Int32Array(handle.control));
    const { words } = region;
    const units: number[] = [];
    const table = new HashTable(region);
    for (let prefix = 0; prefix < 2 ** 32;) {
      const span = table.collect(prefix | 0, units);
      for (const newest of units) {
        for (let unit = newest; unit !== 0; unit = words[unit * 2 + ENTRY_OLDER]) {
          const entry = unit * 2;
          const sizeClass = words[entry] >>> ENTRY_CLASS_SHIFT;
          const keyWords = wordsOf(words[entry] & KEY_LENGTH_MASK);
          const needed = classOf(ENTRY_HEADER_BYTES + (keyWords + wordsOf(words[entry + ENTRY_VALUE_LENGTH])) * 4);
          counts.entries++;
          if (counts.entries > ENTRIES_MAX) throw new Error('older versions lead in a circle');
          if (sizeClass !== classAt(region, unit)) counts.wrong++;
          if (sizeClass > needed) counts.larger++;
        }
      }
      prefix += 2 ** span;
    }
  }
  return counts;
}

void t.test('puts, batches, long puts and removals under a snapshot, at the memory cap', { timeout: 60_000 }, async (t) => {
  const random = randomFrom(testSeed(t));
  const integer = (below: number): number => Math.floor(random() * below);
  const db = await open(tempFolder(t), { durability: 'memory', shards: 2, maxMemoryBytes: 12 * 1024 * 1024, ordered: false });
  const valueOf = (): string => 'v'.repeat(integer(20) === 0 ? 60_000 + integer(100_000) : integer(3000));
  let refused = 0;
  const settle = async (writes: Promise<unknown>[]): Promise<void> => {
    for (const result of await Promise.allSettled(writes)) {
      if (result.status === 'fulfilled') continue;
      t.match(result.reason, { code: 'FV_MEMORY_FULL' });
      refused++;
    }
  };
  const seen = { entries: 0, larger: 0 };
  for (let round = 0; round < 60; round++) {
    const snapshot = db.snapshot();
    const writes: Promise<unknown>[] = [];
    for (let i = 0; i < 150; i++) {
      const key = `key ${integer(6000)}`;
      const kind = integer(4);
      if (kind === 0) writes.push(db.del(key));
      else if (kind === 1) writes.push(db.put(key, valueOf()));
      else if (kind === 2) writes.push(db.put(key, 'v'.repeat(integer(400))));
      else {
        const other = `key ${integer(6000)}`;
        writes.push(
          db.batch([
            { type: 'put', key, value: valueOf() },
            { type: 'del', key: other },
          ]),
        );
      }
    }
    await settle(writes);
    const counts = countClasses(db);
    if (counts.wrong !== 0) t.fail(`round ${round}: ${counts.wrong} of ${counts.entries} entries have a wrong class`);
    seen.entries = Math.max(seen.entries, counts.entries);
    seen.larger = Math.max(seen.larger, counts.larger);
    snapshot.close();
  }
  t.ok(refused > 0, `${refused} writes had no memory`);
  t.ok(seen.entries > 500, `${seen.entries} entries`);
  t.ok(seen.larger > 0, `${seen.larger} of a larger class`);
  await db.close();
});

void t.test(
  'a removal under a snapshot takes a block of a larger class where there is no memory for a slab of its own',
  { timeout: 60_000 },
  async (t) => {
    const db = await open(tempFolder(t), { durability: 'memory', shards: 2, maxMemoryBytes: 8 * 1024 * 1024, ordered: false });
    const value = 'v'.repeat(300);
    let count = 0;
    for (let isFull = false; !isFull;) {
      const writes = Array.from({ length: 500 }, () => db.put(`key ${count++}`, value));
      isFull = (await Promise.allSettled(writes)).some(({ status }) => status === 'rejected');
    }
    // Free blocks of that class, a few in every slab, so that no slab is given back.
    for (let i = 0; i < count; i += 10) await db.del(`key ${i}`);
    const largerBefore = countClasses(db).larger;
    const snapshot = db.snapshot();
    const removed: string[] = [];
    for (let i = 5; i < count; i += 10) {
      const key = `key ${i}`;
      if (!db.has(key)) continue;
      const isRemoved = await db.del(key).then(
        () => true,
        (error: unknown) => {
          t.match(error, { code: 'FV_MEMORY_FULL' });
          return false;
        },
      );
      if (!isRemoved) break;
      removed.push(key);
    }
    const counts = countClasses(db);
    t.equal(counts.wrong, 0, `of ${counts.entries} entries`);
    t.ok(counts.larger - largerBefore > 100, `${counts.larger} of a larger class, ${largerBefore} before; ${removed.length} removed`);
    t.ok(removed.every((key) => !db.has(key) && snapshot.get(key) === value));
    snapshot.close();
    // What the tombstones had is whole again: as much can be put there as was there before.
    for (const key of removed) await db.put(key, value);
    t.match(countClasses(db), { wrong: 0 });
    await db.close();
  },
);
