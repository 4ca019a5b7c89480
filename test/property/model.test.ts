/**
 * Every operation against a plain Map, over random sequences, with reopening in between. fast-check
 * shrinks what fails; its seed is printed.
 */

import t from 'tap';
import fc from 'fast-check';
import fs from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { open, type AnyKey, type BatchOperation, type FlashVector, type Key, type OpenOptions } from '../../src/index.js';
import { testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const key: fc.Arbitrary<Key> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', 'b', 'c', 'd', 'key with some length', 'x'.repeat(100), 'ž', '🐎') },
  {
    weight: 2,
    arbitrary: fc
      .string({ minLength: 1, maxLength: 40, unit: 'binary' })
      .filter((text) => (text as string & { isWellFormed(): boolean }).isWellFormed()),
  },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 40 }) },
);
const value: fc.Arbitrary<unknown> = fc.oneof(
  fc.integer(),
  fc.double(),
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.constant(null),
  fc.boolean(),
  fc.uint8Array({ maxLength: 300 }),
  fc.record(
    { id: fc.nat(), name: fc.string({ unit: 'grapheme' }), tags: fc.array(fc.string({ unit: 'grapheme' })) },
    { noNullPrototype: true },
  ),
  fc.nat({ max: 200_000 }).map((size) => 'v'.repeat(size)),
);

type Step =
  | { kind: 'put'; key: Key; value: unknown }
  | { kind: 'del' | 'absent' | 'version' | 'staleVersion'; key: Key; value: unknown }
  | { kind: 'increment'; key: Key; by: number }
  | { kind: 'update'; key: Key; value: unknown }
  | { kind: 'batch'; operations: BatchOperation[] }
  | { kind: 'reopen' | 'flush' };

const operation: fc.Arbitrary<BatchOperation> = fc.oneof(
  fc.record({ type: fc.constant('put' as const), key, value }),
  fc.record({ type: fc.constant('del' as const), key }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('put' as const), key, value }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('del' as const, 'absent' as const, 'version' as const, 'staleVersion' as const),
      key,
      value,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('increment' as const), key, by: fc.integer({ min: -1000, max: 1000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('update' as const), key, value }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('batch' as const), operations: fc.array(operation, { maxLength: 30 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('reopen' as const, 'flush' as const) }) },
);

/** Keys as the model knows them: by their bytes. */
const idOf = (k: AnyKey): string => Buffer.from(k as string).toString('hex');

/** -0 in a plain number is kept; what msgpack makes of odd doubles inside objects is not drawn. */
const same = (a: unknown, b: unknown): boolean => Object.is(a, b) || isDeepStrictEqual(a, b);

async function rejects(promise: Promise<unknown>, code: string): Promise<void> {
  const error: unknown = await promise.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  if ((error as { code?: string } | undefined)?.code !== code) throw new Error(`expected ${code}, got ${String(error)}`);
}

async function run(db: FlashVector, model: Map<string, unknown>, next: Step): Promise<void> {
  if (next.kind === 'batch') {
    await db.batch(next.operations);
    for (const op of next.operations) {
      if (op.type === 'put') model.set(idOf(op.key), op.value);
      else model.delete(idOf(op.key));
    }
    return;
  }
  if (next.kind === 'flush') await db.flush();
  if (!('key' in next)) return;
  const id = idOf(next.key);
  const before = model.get(id);
  switch (next.kind) {
    case 'put':
      await db.put(next.key, next.value);
      model.set(id, next.value);
      break;
    case 'del':
      await db.del(next.key);
      model.delete(id);
      break;
    case 'absent':
      if (model.has(id)) await rejects(db.put(next.key, next.value, { ifAbsent: true }), 'FV_CONFLICT');
      else {
        await db.put(next.key, next.value, { ifAbsent: true });
        model.set(id, next.value);
      }
      break;
    case 'version': {
      const entry = db.getEntry(next.key);
      if (entry === undefined) break;
      const lsn = await db.put(next.key, next.value, { ifVersion: entry.lsn });
      if (db.getEntry(next.key)?.lsn !== lsn) throw new Error('a conditional put resolves with its LSN');
      model.set(id, next.value);
      break;
    }
    case 'staleVersion':
      await rejects(db.del(next.key, { ifVersion: (db.getEntry(next.key)?.lsn ?? 0) + 1_000_000 }), 'FV_CONFLICT');
      break;
    case 'increment':
      if (model.has(id) && typeof before !== 'number') await rejects(db.increment(next.key, next.by), 'FV_VALUE');
      else if (Number.isFinite(((before as number | undefined) ?? 0) + next.by)) {
        const sum = ((before as number | undefined) ?? 0) + next.by;
        if (!Object.is(await db.increment(next.key, next.by), sum)) throw new Error('increment');
        model.set(id, sum);
      }
      break;
    case 'update': {
      const made = await db.update(next.key, (seen) => {
        if (!same(seen, before)) throw new Error('update saw another value');
        return next.value;
      });
      if (!same(made, next.value)) throw new Error('update resolves with what was written');
      model.set(id, next.value);
      break;
    }
  }
}

function compare(db: FlashVector, model: Map<string, unknown>): void {
  if (db.size !== model.size) throw new Error(`size ${db.size}, model ${model.size}`);
  for (const [id, wanted] of model) {
    const k = Buffer.from(id, 'hex');
    if (!db.has(k)) throw new Error(`${id} is absent`);
    const found = db.get(k);
    if (!same(found, wanted)) throw new Error(`${id} differs`);
  }
  const seen = new Set<string>();
  for (const [k, found] of db.entries()) {
    const id = idOf(k);
    if (seen.has(id) || !model.has(id) || !same(found, model.get(id))) throw new Error(`entries() has ${id} wrongly`);
    seen.add(id);
  }
  if (seen.size !== model.size) throw new Error('entries() left something out');
}

const shapes: [name: string, options: OpenOptions, runs: number][] = [
  ['small shape', { shards: 2, ringBytes: 65_536, walSegmentBytes: 65_536 }, 60],
  ['default shape', {}, 20],
];

for (const [name, options, runs] of shapes) {
  void t.test(name, async (t) => {
    const seed = testSeed(t);
    const folder = tempFolder(t);
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
        const own = `${folder}/${round++}`;
        const model = new Map<string, unknown>();
        let db = await open(own, options);
        try {
          for (const next of steps) {
            await run(db, model, next);
            if (next.kind === 'reopen') {
              compare(db, model);
              await db.close();
              db = await open(own, options);
              compare(db, model);
            }
          }
          compare(db, model);
          await db.close();
          db = await open(own, options);
          compare(db, model);
        } finally {
          await db.close();
          fs.rmSync(own, { recursive: true, force: true });
        }
      }),
      { seed, numRuns: runs },
    );
    t.ok(round >= runs, `${round} sequences; a difference throws`);
  });
}
