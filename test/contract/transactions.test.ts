/** What a transaction finds of its own writes, and what it has read counts for once: of few keys and of many, in every form in which a key can be given. */

import t from 'tap';
import { open, type FlashVector, type TransactionView } from '../../src/index.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const KEYS = 300;

/** Keys of a few words and of many, some of which begin alike; every third may be given as bytes, too. */
function keyOf(number: number): string {
  if (number % 5 === 0) return `ключ-${number}`;
  return `key${number}`.padEnd(number % 7 === 0 ? 90 : 6, number % 2 === 0 ? '.' : 'x');
}

interface Own {
  value: unknown;
  expiresAt: number | undefined;
}

function compare(t: Tap.Test, tx: TransactionView, number: number, model: ReadonlyMap<string, Own>, what: string): void {
  const name = keyOf(number);
  const expected = model.get(name);
  const key = number % 3 === 0 ? Buffer.from(name) : name;
  if (tx.has(key) !== (expected !== undefined)) t.fail(`${what}: has(${name})`);
  if (tx.get(key) !== expected?.value) t.fail(`${what}: get(${name}) is ${String(tx.get(key))} instead of ${String(expected?.value)}`);
  const entry = tx.getEntry(key);
  if (entry?.value !== expected?.value) t.fail(`${what}: getEntry(${name}) has another value`);
  if (entry?.expiresAt !== expected?.expiresAt) t.fail(`${what}: ${name} expires at ${entry?.expiresAt} instead of ${expected?.expiresAt}`);
}

async function compareStore(t: Tap.Test, db: FlashVector, model: ReadonlyMap<string, Own>, what: string): Promise<void> {
  t.same(
    [...db.keys()],
    [...model.keys()].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    `${what}: keys`,
  );
  await db.transaction((tx) => {
    for (let number = 0; number < KEYS; number++) compare(t, tx, number, model, what);
  });
}

void t.test('transactions of any length see the last of their own writes, and the store sees all of them', async (t) => {
  const random = randomFrom(testSeed(t));
  const integer = (below: number): number => Math.floor(random() * below);
  const db = await open(tempFolder(t), { durability: 'memory', shards: 4 });
  const model = new Map<string, Own>();
  const future = Date.now() + 3_600_000;
  for (let round = 0; round < 120; round++) {
    const staged = new Map(model);
    const isKept = integer(4) !== 0;
    const transact = db.transaction((tx) => {
      // Longer than the first table of keys, and than the ones after it.
      for (let step = integer(3) === 0 ? integer(400) : integer(12); step >= 0; step--) {
        const number = integer(KEYS);
        const name = keyOf(number);
        const kind = integer(5);
        if (kind === 0) {
          tx.del(name);
          staged.delete(name);
        } else if (kind === 1) {
          const expiresAt = future + integer(1000);
          tx.put(name, step, { expiresAt });
          staged.set(name, { value: step, expiresAt });
        } else if (kind === 2) {
          const value = `${round} ${step} `.padEnd(integer(300), 'v');
          tx.put(name, value);
          staged.set(name, { value, expiresAt: undefined });
        } else {
          compare(t, tx, number, staged, `round ${round}`);
        }
      }
      for (let i = 0; i < 20; i++) compare(t, tx, integer(KEYS), staged, `end of round ${round}`);
      const [from, to] = [keyOf(integer(KEYS)), keyOf(integer(KEYS))].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      const expected = [...staged.keys()]
        .filter(
          (name) => Buffer.compare(Buffer.from(name), Buffer.from(from)) >= 0 && Buffer.compare(Buffer.from(name), Buffer.from(to)) < 0,
        )
        .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      t.same([...tx.keys({ gte: from, lt: to })], expected, `round ${round}: a range with its own writes`);
      if (!isKept) throw new Error('given up');
    });
    if (isKept) {
      await transact;
      model.clear();
      for (const [name, own] of staged) model.set(name, own);
    } else {
      await t.rejects(transact, /given up/);
    }
    if (round % 20 === 19) await compareStore(t, db, model, `after round ${round}`);
  }
  await db.close();
});

void t.test('a key that is read often is compared once; one of many that has changed is a conflict', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (let number = 0; number < KEYS; number++) await db.put(keyOf(number), number);
  for (const changed of [0, 1, 99, KEYS - 1]) {
    let runs = 0;
    await db.transaction(async (tx) => {
      for (let times = 0; times < 3; times++)
        for (let number = 0; number < KEYS; number++) tx.get(number % 2 === 0 ? keyOf(number) : Buffer.from(keyOf(number)));
      if (runs++ === 0) await db.put(keyOf(changed), `changed ${changed}`);
      tx.put('result', tx.get(keyOf(changed)));
    });
    t.equal(runs, 2, `key ${changed} was seen to have changed`);
    t.equal(db.get('result'), `changed ${changed}`);
  }
  // Absent keys are noted, too.
  let runs = 0;
  await db.transaction(async (tx) => {
    for (let number = 0; number < 50; number++) tx.has(`absent ${number}`);
    if (runs++ === 0) await db.put('absent 49', 1);
    tx.put('result', runs);
  });
  t.equal(db.get('result'), 2);
  await db.close();
});

void t.test('a small transaction after a large one, and the other way round', async (t) => {
  const db = await open(tempFolder(t), { durability: 'memory' });
  for (const size of [3000, 3, 600, 1, 3000]) {
    await db.transaction((tx) => {
      for (let i = 0; i < size; i++) tx.put(`many ${i}`, `${size}.${i}`);
      for (let i = 0; i < 3000; i += i < 10 ? 1 : 7) {
        const expected: unknown = i < size ? `${size}.${i}` : db.get(`many ${i}`);
        if (tx.get(`many ${i}`) !== expected) t.fail(`key ${i} of a transaction of ${size}`);
      }
    });
    t.equal(db.get(`many ${size - 1}`), `${size}.${size - 1}`);
  }
  t.equal(db.size, 3000);
  await db.close();
});
