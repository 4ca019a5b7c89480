/**
 * FlashVector and its peers, the same work by kind of value: reads one by one, bulk writes until all are on disk, batches on disk before the next,
 * a mix of reads and writes, and a scan of everything. Same keys, values, order, durability and number in flight.
 */

import fs from 'node:fs';
import path from 'node:path';
import type { Engine } from './engines/engine.js';
import { loopsFor, type Loops } from './engines/loops.js';
import { availableEngines, ENGINES } from './engines/peers.js';
import { readDocuments } from './support/documents.js';
import { inFillOrder, makeDataSet, VALUE_NAMES, verify, verifyLater, type DataSet, type ValueKind } from './support/data-set.js';
import { runPaired, type Contestant, type PairedRates } from './support/paired.js';
import { LatencyLog, type Percentiles } from './support/percentiles.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

/** How many entries there are of each kind: some 25 to 130 MB. */
const COUNTS: Record<ValueKind, number> = {
  number: 200_000,
  short: 200_000,
  string: 200_000,
  object: 200_000,
  buffer: 50_000,
  record: 50_000,
  large: 2000,
};
const QUICK_SHARE = 10;
const BATCHES = [10, 1000];
/** Single puts on disk in one round: some 0.3 s of the quickest. With 500 most of what was measured was the compiling of code. */
const SINGLE_PUTS = 2000;
/** Least rate of batches of 1,000 against lmdb-js. */
const BATCH_TARGET = 3;
/** Batches on disk in one round, and entries in them, at most: of ten 500, of a thousand 100. */
const BATCHES_MAX = 500;
const BATCHED_MAX = 100_000;
const BASE = 'lmdb-js';
const LMDB_SHARING = 'lmdb-js, sharedStructuresKey';
const MAP = 'Map';
/** Below every key. */
const FIRST_KEY = '\u0001';
/** Reads of the rounds that are timed one by one, for the percentiles. */
const SINGLE_READS = 20_000;
/** Reads a second of an engine that reads later are fewer: it gets so many times fewer keys a round. */
const LATER_SHARE = 10;

interface Contender {
  name: string;
  loops: Loops;
}

/** A store of one contender, filled and checked. */
interface Filled extends Contender {
  engine: Engine;
}

class Suite {
  readonly sections: Section[] = [];
  readonly #shifts = new Map<string, number>();
  contenders: readonly Contender[] = [];

  constructor(
    readonly context: Context,
    readonly all: readonly Contender[],
    readonly missing: readonly string[],
  ) {}

  get #rounds(): number {
    return this.context.quick ? 2 : 3;
  }

  async #open(name: string, durable: boolean, kind: ValueKind): Promise<{ engine: Engine; remove: () => void }> {
    const folder = fs.mkdtempSync(path.join(this.context.folder, 'store-'));
    const engine = await ENGINES[name]({ folder, durable, kind });
    return { engine, remove: () => fs.rmSync(folder, { recursive: true, force: true }) };
  }

  #report(title: string, unit: string, rates: PairedRates, latency?: ReadonlyMap<string, Percentiles | undefined>): Section {
    const out = section(title, unit);
    for (const { name } of this.contenders) {
      if (rates.rate(name) === undefined) continue;
      out.rows.push({ task: name, rate: rates.rate(name), latency: latency?.get(name), ratio: rates.ratio(name, BASE) });
    }
    for (const name of ['classic-level', 'better-sqlite3', 'rocksdb-native']) {
      const ratio = rates.ratio('FlashVector', name);
      if (ratio !== undefined) out.targets.push({ work: title, unit: `x ${name}`, target: 1, reached: ratio, bound: 'at least' });
    }
    out.notes.push(...this.missing);
    this.sections.push(out);
    return out;
  }

  async run(kind: ValueKind, data: DataSet, name: string): Promise<void> {
    // Shared structures make a difference for objects only.
    this.contenders = this.all.filter((contender) => contender.name !== LMDB_SHARING || kind === 'object' || kind === 'record');
    const many = `${name}, ${data.keys.length.toLocaleString('en-US')} keys`;
    await this.#fillings(kind, data, many);
    const filling = inFillOrder(data);
    const filled: Filled[] = [];
    const removers: (() => void)[] = [];
    for (const contender of this.contenders) {
      const { engine, remove } = await this.#open(contender.name, true, kind);
      removers.push(remove);
      await engine.fill(filling.keys, filling.values);
      if (engine.readsAtOnce) verify(contender.name, data, (key) => engine.get(key));
      else await verifyLater(contender.name, data, (key) => engine.getLater(key));
      filled.push({ ...contender, engine });
    }
    await this.#reads(filled, data, many);
    await this.#scans(filled, data, many);
    await this.#mixes(filled, data, many);
    await this.#singles(filled, data, name);
    if (kind !== 'large') for (const size of BATCHES) await this.#batches(filled, data, name, size);
    for (const { engine } of filled) await engine.close();
    for (const remove of removers) remove();
  }

  /** Values that no key has: each time those of the neighbours. SQLite does not write what is there already. */
  #others(name: string, { values }: DataSet): unknown[] {
    const shift = (this.#shifts.get(name) ?? 0) + 1;
    this.#shifts.set(name, shift);
    return [...values.slice(shift), ...values.slice(0, shift)];
  }

  async #fillings(kind: ValueKind, data: DataSet, many: string): Promise<void> {
    const contestants = this.contenders
      .filter(({ name }) => name !== MAP)
      .map(({ name }): Contestant => ({
        name,
        run: async () => {
          const { engine, remove } = await this.#open(name, true, kind);
          const started = performance.now();
          await engine.fill(data.keys, data.values);
          const rate = perSecond(data.keys.length, started);
          await engine.close();
          remove();
          return rate;
        },
      }));
    this.#report(
      `put until all are on disk, new keys, ${many}`,
      'puts',
      await runPaired(contestants, { rounds: this.#rounds, warmups: 1 }),
    );
  }

  async #reads(filled: readonly Filled[], data: DataSet, many: string): Promise<void> {
    const few = data.keys.slice(0, Math.ceil(data.keys.length / LATER_SHARE));
    const contestants = filled.map(({ name, engine, loops }): Contestant => ({
      name,
      run: async () => {
        const keys = engine.readsAtOnce ? data.keys : few;
        const started = performance.now();
        const missing = engine.readsAtOnce ? loops.readAll(engine, keys) : await loops.readAllLater(engine, keys);
        if (missing !== 0) throw new Error(`${name} lost ${missing} keys`);
        return perSecond(keys.length, started);
      },
    }));
    const rates = await runPaired(contestants, { rounds: this.#rounds * 2 + 1, warmups: 2, collects: false });
    const latency = new Map<string, Percentiles | undefined>();
    for (const { name, engine } of filled) latency.set(name, await singleReads(engine, few.slice(0, SINGLE_READS)));
    this.#report(`get, ${many}`, 'gets', rates, latency);
  }

  async #scans(filled: readonly Filled[], data: DataSet, many: string): Promise<void> {
    const contestants = filled
      .filter(({ name }) => name !== MAP)
      .map(({ name, engine }): Contestant => ({
        name,
        run: async () => {
          const started = performance.now();
          const count = await engine.scan(FIRST_KEY, data.keys.length);
          if (count !== data.keys.length) throw new Error(`${name} scanned ${count} entries`);
          return perSecond(count, started);
        },
      }));
    this.#report(
      `scan of everything, ${many}`,
      'entries',
      await runPaired(contestants, { rounds: this.#rounds, warmups: 1, collects: false }),
    );
  }

  async #mixes(filled: readonly Filled[], data: DataSet, many: string): Promise<void> {
    const keys = data.keys.slice(0, data.keys.length >>> 1);
    const contestants = filled
      // It would be asked to write tables over and over: it has no other way to be durable.
      .filter(({ name }) => name !== 'rocksdb-native')
      .map(({ name, engine, loops }): Contestant => ({
        name,
        run: async () => {
          const values = this.#others(name, data);
          const started = performance.now();
          const missing = await loops.mix(engine, keys, values);
          if (missing !== 0) throw new Error(`${name} lost ${missing} keys`);
          return perSecond(keys.length * 2, started);
        },
      }));
    const rates = await runPaired(contestants, { rounds: this.#rounds, warmups: 1, collects: false });
    this.#report(`a get and a put in turn, on disk every 1,000, ${many}`, 'operations', rates);
  }

  /** What only engines do that can sync a small write. @param write does it with values that the keys have not, until all are on disk */
  async #synced(
    filled: readonly Filled[],
    data: DataSet,
    count: number,
    title: string,
    write: (one: Filled, values: unknown[]) => Promise<void>,
  ): Promise<Section> {
    const contestants = filled
      .filter(({ name }) => name !== 'rocksdb-native' && name !== MAP)
      .map((one): Contestant => ({
        name: one.name,
        run: async () => {
          const values = this.#others(one.name, data);
          const started = performance.now();
          await write(one, values);
          return perSecond(count, started);
        },
      }));
    return this.#report(title, 'puts', await runPaired(contestants, { rounds: this.#rounds, warmups: 1 }));
  }

  async #singles(filled: readonly Filled[], data: DataSet, name: string): Promise<void> {
    const keys = data.keys.slice(0, SINGLE_PUTS);
    await this.#synced(filled, data, keys.length, `put, each on disk before the next, ${name}`, ({ loops, engine }, values) =>
      loops.putEachSafely(engine, keys, values),
    );
  }

  async #batches(filled: readonly Filled[], data: DataSet, name: string, size: number): Promise<void> {
    const keys = data.keys.slice(0, Math.min(data.keys.length, size * BATCHES_MAX, BATCHED_MAX));
    const title = `batches of ${size.toLocaleString('en-US')}, each on disk before the next, ${name}`;
    const out = await this.#synced(filled, data, keys.length, title, ({ loops, engine }, values) =>
      loops.batchAll(engine, keys, values, size),
    );
    const reached = out.rows.find(({ task }) => task === 'FlashVector')?.ratio;
    if (size === 1000) out.targets.push({ work: title, unit: `x ${BASE}`, target: BATCH_TARGET, reached, bound: 'at least' });
  }
}

function perSecond(count: number, started: number): number {
  return (count * 1000) / (performance.now() - started);
}

async function singleReads(engine: Engine, keys: readonly string[]): Promise<Percentiles | undefined> {
  const log = new LatencyLog();
  for (const key of keys) {
    const started = performance.now();
    if (engine.readsAtOnce) engine.get(key);
    else await engine.getLater(key);
    log.add(performance.now() - started);
  }
  return log.percentiles();
}

export const workload: Workload = {
  title: 'FlashVector and its peers, by kind of value',
  async run(context) {
    const { names, missing } = await availableEngines();
    const contenders: Contender[] = [];
    for (const name of names) contenders.push({ name, loops: await loopsFor(name) });
    const suite = new Suite(context, contenders, missing);
    for (const kind of Object.keys(COUNTS) as ValueKind[]) {
      const count = context.quick ? COUNTS[kind] / QUICK_SHARE : COUNTS[kind];
      await suite.run(kind, makeDataSet(kind, count), VALUE_NAMES[kind]);
    }
    if (context.documents === undefined)
      suite.sections.at(-1)?.notes.push('real documents left out: --documents FILE.ndjson[.gz] names some');
    else
      await suite.run('object', await readDocuments(context.documents, context.quick), `documents of ${path.basename(context.documents)}`);
    return suite.sections;
  },
};
