/**
 * Order, snapshots, iterators held open, transactions and expiry against an ordered map of which a copy is kept for every moment
 * that somebody still reads at; on a clock that the test sets, with reopening in between. fast-check shrinks what fails; its seed is printed.
 */

import t from 'tap';
import fc from 'fast-check';
import fs from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { open, type FlashVector, type OpenOptions, type Range, type Snapshot } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
import { testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

/** Few keys, so that they meet; some begin others, some are long. */
const KEYS = ['a', 'a\0', 'aa', 'ab', 'b', 'b/1', 'b/2', 'b/2/x', `c${'c'.repeat(80)}1`, `c${'c'.repeat(80)}2`, 'd', 'é', '🐎'];
const bytes = (key: string): Buffer => Buffer.from(key);
const byBytes = (a: string, b: string): number => Buffer.compare(bytes(a), bytes(b));

/** Nothing here takes that long, however slow the machine is. */
const SECOND = 1000;

interface Stored {
  value: unknown;
  expiresMs: number;
}
type Model = Map<string, Stored>;

const key = fc.constantFrom(...KEYS);
const value: fc.Arbitrary<unknown> = fc.oneof(
  fc.integer(),
  fc.nat({ max: 400 }).map((length) => 'v'.repeat(length)),
  fc.record({ id: fc.nat(), name: fc.constantFrom('x', 'a longer name') }, { noNullPrototype: true }),
  fc.nat({ max: 30_000 }).map((length) => 'w'.repeat(length)),
);
const range: fc.Arbitrary<Range> = fc.record(
  {
    gt: key,
    gte: key,
    lt: key,
    lte: key,
    prefix: fc.constantFrom('a', 'b', 'b/', 'c', 'é'),
    reverse: fc.boolean(),
    limit: fc.nat({ max: 8 }),
  },
  { requiredKeys: [], noNullPrototype: true },
);

type Step =
  | { kind: 'put'; key: string; value: unknown; ttl: number }
  | { kind: 'del' | 'increment'; key: string }
  | { kind: 'expire' | 'persist'; key: string; ttl: number }
  | { kind: 'batch'; changes: { key: string; value: unknown; isPut: boolean }[] }
  | { kind: 'transaction'; reads: string[]; range: Range; writes: { key: string; value: unknown; isPut: boolean }[]; throws: boolean }
  | { kind: 'snapshot' | 'closeSnapshot' | 'reopen' | 'checkpoint' | 'abandon' }
  | { kind: 'iterate'; range: Range; first: number }
  | { kind: 'goOn'; count: number }
  | { kind: 'range'; range: Range }
  | { kind: 'clear'; range: Range }
  | { kind: 'clock'; ms: number };

const change = fc.record({ key, value, isPut: fc.boolean() });
const kind = <K extends string>(name: K): fc.Arbitrary<K> => fc.constant(name);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ kind: kind('put'), key, value, ttl: fc.constantFrom(0, 0, 0, 0, 100 * SECOND, 1000 * SECOND) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constantFrom('del' as const, 'increment' as const), key }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('expire' as const, 'expire' as const, 'persist' as const),
      key,
      ttl: fc.constantFrom(50 * SECOND, 500 * SECOND),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: kind('batch'), changes: fc.array(change, { maxLength: 12 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: kind('transaction'),
      reads: fc.array(key, { maxLength: 4 }),
      range,
      writes: fc.array(change, { maxLength: 6 }),
      throws: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('snapshot' as const, 'closeSnapshot' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('reopen' as const, 'checkpoint' as const, 'abandon' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('iterate'), range, first: fc.nat({ max: 5 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('goOn'), count: fc.nat({ max: 6 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: kind('range'), range }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('clear'), range }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: kind('clock'), ms: fc.constantFrom(...[30, 60, 120, 600, 2000].map((seconds) => seconds * SECOND)) }),
  },
);

/** What a range of a model holds at a moment. */
function select(model: Model, nowMs: number, { gt, gte, lt, lte, prefix, reverse, limit }: Range): [string, unknown][] {
  const keys = [...model.keys()].filter((name) => {
    const { expiresMs } = model.get(name) as Stored;
    const b = bytes(name);
    return (
      (expiresMs === 0 || expiresMs > nowMs) &&
      (gt === undefined || Buffer.compare(b, bytes(gt as string)) > 0) &&
      (gte === undefined || Buffer.compare(b, bytes(gte as string)) >= 0) &&
      (lt === undefined || Buffer.compare(b, bytes(lt as string)) < 0) &&
      (lte === undefined || Buffer.compare(b, bytes(lte as string)) <= 0) &&
      (prefix === undefined || b.subarray(0, bytes(prefix as string).length).equals(bytes(prefix as string)))
    );
  });
  keys.sort(byBytes);
  if (reverse === true) keys.reverse();
  return keys.slice(0, limit ?? Infinity).map((name) => [name, (model.get(name) as Stored).value]);
}

function expectSame(found: unknown, expected: unknown, what: string): void {
  if (!isDeepStrictEqual(found, expected))
    throw new Error(`${what}: found ${JSON.stringify(found)?.slice(0, 300)}, expected ${JSON.stringify(expected)?.slice(0, 300)}`);
}

/** One store beside its model. */
class Pair {
  model: Model = new Map();
  nowMs = 1_700_000_000_000;
  snapshots: { snapshot: Snapshot; model: Model; nowMs: number }[] = [];
  iterators: { iterator: IterableIterator<unknown>; rest: unknown[] }[] = [];

  constructor(public db: FlashVector) {
    this.setClock();
  }

  /** The store's clock stands still at `nowMs`, to within the time that a step takes: what the test counts in is much longer. */
  setClock(): void {
    const difference = new Float64Array(this.db.handle.control, L.CONTROL_CLOCK_WORD * 4, 1);
    const [seconds, nanoseconds] = process.hrtime();
    difference[0] = this.nowMs - seconds * 1000 - nanoseconds / 1e6;
  }

  live(name: string): Stored | undefined {
    const stored = this.model.get(name);
    return stored !== undefined && (stored.expiresMs === 0 || stored.expiresMs > this.nowMs) ? stored : undefined;
  }

  apply({ key: name, value: v, isPut }: { key: string; value: unknown; isPut: boolean }): void {
    if (isPut) this.model.set(name, { value: v, expiresMs: 0 });
    else this.model.delete(name);
  }

  async run(next: Step): Promise<void> {
    this.setClock();
    const { db } = this;
    switch (next.kind) {
      case 'put':
        await db.put(next.key, next.value, next.ttl === 0 ? {} : { ttl: next.ttl });
        this.model.set(next.key, { value: next.value, expiresMs: next.ttl === 0 ? 0 : this.nowMs + next.ttl });
        break;
      case 'del':
        await db.del(next.key);
        this.model.delete(next.key);
        break;
      case 'increment': {
        const before = this.live(next.key);
        if (before !== undefined && typeof before.value !== 'number') break;
        const sum = ((before?.value as number | undefined) ?? 0) + 1;
        expectSame(await db.increment(next.key), sum, 'increment');
        this.model.set(next.key, { value: sum, expiresMs: before?.expiresMs ?? 0 });
        break;
      }
      case 'persist':
      case 'expire': {
        const stored = this.live(next.key);
        const found = await (next.kind === 'persist' ? db.persist(next.key) : db.expire(next.key, next.ttl));
        expectSame(found, stored !== undefined, next.kind);
        if (stored !== undefined)
          this.model.set(next.key, { value: stored.value, expiresMs: next.kind === 'persist' ? 0 : this.nowMs + next.ttl });
        break;
      }
      case 'batch':
        await db.batch(next.changes.map((c) => (c.isPut ? { type: 'put', key: c.key, value: c.value } : { type: 'del', key: c.key })));
        for (const c of next.changes) this.apply(c);
        break;
      case 'transaction':
        await this.transaction(next);
        break;
      case 'snapshot':
        if (this.snapshots.length < 4) this.snapshots.push({ snapshot: db.snapshot(), model: new Map(this.model), nowMs: this.nowMs });
        break;
      case 'closeSnapshot':
        this.checkSnapshots();
        this.snapshots.shift()?.snapshot.close();
        break;
      case 'iterate': {
        if (this.iterators.length >= 4) break;
        const iterator = db.entries(next.range)[Symbol.iterator]();
        const rest = select(this.model, this.nowMs, next.range);
        this.iterators.push({ iterator, rest });
        this.take(this.iterators.length - 1, next.first);
        break;
      }
      case 'goOn':
        if (this.iterators.length > 0) this.take(0, next.count);
        break;
      case 'abandon':
        this.iterators.pop()?.iterator.return?.();
        break;
      case 'range':
        this.checkRange(next.range);
        break;
      case 'clear':
        await db.clear(next.range);
        for (const [name] of select(this.model, this.nowMs, next.range)) this.model.delete(name);
        break;
      case 'clock':
        this.nowMs += next.ms;
        this.setClock();
        break;
      case 'checkpoint':
        await db.checkpoint();
        break;
      case 'reopen':
        break;
    }
  }

  async transaction({ reads, range: asked, writes, throws }: Step & { kind: 'transaction' }): Promise<void> {
    const own = new Map(this.model);
    const body = (tx: Parameters<Parameters<FlashVector['transaction']>[0]>[0]): void => {
      for (const name of reads) expectSame(tx.get(name), this.live(name)?.value, 'tx.get');
      writes.forEach((c, i) => {
        if (c.isPut) tx.put(c.key, c.value);
        else tx.del(c.key);
        if (c.isPut) own.set(c.key, { value: c.value, expiresMs: 0 });
        else own.delete(c.key);
        if (i % 2 === 0) expectSame([...tx.entries(asked)], select(own, this.nowMs, asked), 'tx.entries');
        expectSame(tx.has(c.key), c.isPut, 'tx.has');
      });
      if (throws) throw new Error('on purpose');
    };
    await this.db.transaction(body).then(
      () => {
        if (throws) throw new Error('a body that throws rejects');
        this.model = own;
      },
      (error: unknown) => {
        if (!throws || (error as Error).message !== 'on purpose') throw error;
      },
    );
  }

  take(index: number, count: number): void {
    const { iterator, rest } = this.iterators[index];
    for (let i = 0; i < count; i++) {
      const { done, value: found } = iterator.next();
      if (done === true) {
        expectSame([], rest, 'an iterator ends');
        this.iterators.splice(index, 1);
        return;
      }
      expectSame(found, rest.shift(), 'an iterator');
    }
  }

  checkRange(asked: Range): void {
    const expected = select(this.model, this.nowMs, asked);
    expectSame([...this.db.entries(asked)], expected, 'entries');
    expectSame(this.db.count(asked), expected.length, 'count');
    for (const { snapshot, model, nowMs } of this.snapshots) {
      const then = select(model, nowMs, asked);
      expectSame([...snapshot.entries(asked)], then, 'entries of a snapshot');
      expectSame(snapshot.count(asked), then.length, 'count of a snapshot');
    }
  }

  checkSnapshots(): void {
    for (const { snapshot, model, nowMs } of this.snapshots) {
      for (const name of KEYS) {
        const stored = model.get(name);
        const isLive = stored !== undefined && (stored.expiresMs === 0 || stored.expiresMs > nowMs);
        expectSame(snapshot.get(name), isLive ? stored.value : undefined, `get of a snapshot, ${name}`);
        expectSame(snapshot.has(name), isLive, 'has of a snapshot');
      }
    }
  }

  check(): void {
    this.setClock();
    for (const name of KEYS) {
      const stored = this.live(name);
      expectSame(this.db.get(name), stored?.value, `get ${name}`);
      expectSame(this.db.getEntry(name)?.expiresAt === undefined, (stored?.expiresMs ?? 0) === 0, 'expiresAt');
    }
    this.checkRange({});
    this.checkRange({ reverse: true });
    this.checkSnapshots();
  }

  /** Lets go of everything that reads at a moment, and sees that nothing is kept then. */
  async end(): Promise<void> {
    this.check();
    for (let i = this.iterators.length - 1; i >= 0; i--) this.take(i, 100);
    for (const { snapshot } of this.snapshots.splice(0)) snapshot.close();
    for (let turn = 0; turn < 1000 && this.db.stats().snapshots.versions > 0; turn++) await new Promise((resolve) => setImmediate(resolve));
    const { snapshots } = this.db.stats();
    expectSame({ open: snapshots.open, bytes: snapshots.versionBytes }, { open: 0, bytes: 0 }, 'what is kept');
  }
}

const shapes: [name: string, options: OpenOptions, runs: number][] = [
  ['two shards', { shards: 2, ringBytes: 65_536, walSegmentBytes: 65_536 }, 80],
  ['one shard', { shards: 1, ringBytes: 65_536, walSegmentBytes: 1024 * 1024 }, 40],
];

for (const [name, options, runs] of shapes) {
  void t.test(name, { timeout: 300_000 }, async (t) => {
    const seed = testSeed(t);
    const folder = tempFolder(t);
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 80 }), async (steps) => {
        const own = `${folder}/${round++}`;
        const settings: OpenOptions = { durability: 'interval', syncIntervalMs: 5, snapshotIntervalSeconds: 0, ...options };
        const pair = new Pair(await open(own, settings));
        try {
          for (const next of steps) {
            await pair.run(next);
            if (next.kind !== 'reopen') continue;
            await pair.end();
            await pair.db.close();
            pair.db = await open(own, settings);
            pair.check();
          }
          await pair.end();
        } finally {
          await pair.db.close();
          fs.rmSync(own, { recursive: true, force: true });
        }
      }),
      { seed, numRuns: runs },
    );
    t.ok(round >= runs, `${round} sequences; a difference throws`);
  });
}
