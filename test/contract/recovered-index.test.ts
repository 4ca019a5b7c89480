/** The ordered index after recovery: built by one task and by several, and what becomes of it from there on. */

import t from 'tap';
import { open } from '../../src/index.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

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
  for (const poolThreads of [3, 2, 4, 1]) {
    await db.flush();
    await db.close();
    const phases: number[] = [];
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
