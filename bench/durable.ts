/**
 * Durable writes with a number of them in flight: as many loops at once, each of which puts, waits until that is
 * durable, and puts again. With one in flight there is also the bare loop, which writes as many bytes as
 * FlashVector's log takes for such a put, and syncs, and nothing else: what the disk gives at best.
 */

import fs from 'node:fs';
import path from 'node:path';
import type { FlashVector } from '../src/index.js';
import { keyCount, makeDataSet, verify, type DataSet } from './support/data-set.js';
import {
  fillFlashVector,
  fillLmdb,
  FLASHVECTOR,
  LMDB,
  openFlashVector,
  openLmdb,
  removeStores,
  type LmdbStore,
} from './support/engines.js';
import { runPaired, type Contestant, type PairedRates } from './support/paired.js';
import { LatencyLog } from './support/percentiles.js';
import { formatFigure } from './support/render.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const BARE = 'bare loop: write, fdatasync';
/** Least rate against lmdb-js, by number in flight. */
const TARGETS: readonly (readonly [inFlight: number, ratio: number])[] = [
  [1, 2.3],
  [100, 5],
  [1000, 8],
  [10_000, 6],
];
/** Least share of the bare loop's rate. */
const BARE_TARGET = 0.7;
const BARE_FILE_BYTES = 64 * 1024 * 1024;

interface Stores {
  data: DataSet;
  db: FlashVector;
  lmdb: LmdbStore | undefined;
}

/** Runs `inFlight` loops of `put` for a while. @returns puts a second */
async function runLoops(inFlight: number, timeMs: number, put: (index: number) => Promise<unknown>, latency: LatencyLog): Promise<number> {
  const first = latency.count;
  const started = performance.now();
  const deadline = started + timeMs;
  let next = 0;
  const loop = async (): Promise<void> => {
    for (let now = performance.now(); now < deadline;) {
      await put(next++);
      const done = performance.now();
      latency.add(done - now);
      now = done;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, loop));
  return ((latency.count - first) * 1000) / (performance.now() - started);
}

/** The bare loop: a file whose blocks are there already, one write and one sync at a time. */
function bareContestant(folder: string, recordBytes: number, timeMs: number, latency: LatencyLog): Contestant & { close(): void } {
  const file = fs.openSync(path.join(folder, 'bare'), 'w');
  const zeros = Buffer.alloc(1024 * 1024);
  for (let at = 0; at < BARE_FILE_BYTES; at += zeros.length) fs.writeSync(file, zeros, 0, zeros.length, at);
  fs.fsyncSync(file);
  const record = Buffer.alloc(recordBytes, 'r');
  let at = 0;
  const run = (): Promise<number> => {
    const first = latency.count;
    const begun = performance.now();
    for (let now = begun; now < begun + timeMs;) {
      if (at + recordBytes > BARE_FILE_BYTES) at = 0;
      fs.writeSync(file, record, 0, recordBytes, at);
      fs.fdatasyncSync(file);
      at += recordBytes;
      const done = performance.now();
      latency.add(done - now);
      now = done;
    }
    return Promise.resolve(((latency.count - first) * 1000) / (performance.now() - begun));
  };
  return { name: BARE, run, close: () => fs.closeSync(file) };
}

function contestantsFor({ data, db, lmdb }: Stores, inFlight: number, timeMs: number, latency: Map<string, LatencyLog>): Contestant[] {
  const { keys, values } = data;
  const logOf = (name: string): LatencyLog => {
    const log = new LatencyLog();
    latency.set(name, log);
    return log;
  };
  const own = logOf(FLASHVECTOR);
  const put = (index: number): Promise<unknown> => db.put(keys[index % keys.length], values[index % keys.length]);
  const contestants: Contestant[] = [{ name: FLASHVECTOR, run: () => runLoops(inFlight, timeMs, put, own) }];
  if (lmdb === undefined) return contestants;
  const other = logOf(LMDB);
  const putLmdb = async (index: number): Promise<void> => {
    await lmdb.put(keys[index % keys.length], values[index % keys.length]);
    await lmdb.flushed;
  };
  contestants.push({ name: LMDB, run: () => runLoops(inFlight, timeMs, putLmdb, other) });
  return contestants;
}

/** Bytes that the log takes for one put that is alone in its group, as measured. */
async function recordBytesOf({ db, data }: Stores): Promise<number> {
  const puts = 20;
  const before = db.stats().log.bytes;
  for (let i = 0; i < puts; i++) await db.put(data.keys[i], data.values[i]);
  return Math.round((db.stats().log.bytes - before) / puts);
}

function describe(rates: PairedRates, latency: ReadonlyMap<string, LatencyLog>, inFlight: number, target: number): Section {
  const many = inFlight.toLocaleString('en-US');
  const out = section(`durable put, 100-byte string, ${many} in flight`, 'puts');
  for (const [task, log] of latency) {
    const ratio = rates.ratio(task, LMDB);
    out.rows.push({ task, rate: rates.rate(task), latency: log.percentiles(), ratio, target: task === FLASHVECTOR ? target : undefined });
  }
  out.targets.push({
    work: `durable put, ${many} in flight`,
    unit: 'x lmdb-js',
    target,
    reached: rates.ratio(FLASHVECTOR, LMDB),
    bound: 'at least',
  });
  return out;
}

/** A round to warm up, of which the latencies are forgotten too, and then those that count. */
async function runWarm(contestants: readonly Contestant[], rounds: number, latency: ReadonlyMap<string, LatencyLog>): Promise<PairedRates> {
  await runPaired(contestants, { rounds: 0, warmups: 1 });
  for (const log of latency.values()) log.clear();
  return runPaired(contestants, { rounds, warmups: 0 });
}

async function measure(context: Context, stores: Stores, inFlight: number, target: number): Promise<Section> {
  const timeMs = context.quick ? 300 : 1000;
  const latency = new Map<string, LatencyLog>();
  const contestants = contestantsFor(stores, inFlight, timeMs, latency);
  const rounds = context.quick ? 2 : 5;
  if (inFlight !== 1) return describe(await runWarm(contestants, rounds, latency), latency, inFlight, target);
  const recordBytes = await recordBytesOf(stores);
  const log = new LatencyLog();
  latency.set(BARE, log);
  const bare = bareContestant(context.folder, recordBytes, timeMs, log);
  const rates = await runWarm([...contestants, bare], rounds, latency);
  bare.close();
  const out = describe(rates, latency, inFlight, target);
  const share = rates.ratio(FLASHVECTOR, BARE);
  out.notes.push(
    `FlashVector's share of the bare loop's rate: ${formatFigure(share ?? Number.NaN)} (target ${BARE_TARGET}); a record of ${recordBytes} bytes`,
  );
  out.targets.push({ work: 'durable put, 1 in flight', unit: 'of the bare loop', target: BARE_TARGET, reached: share, bound: 'at least' });
  return out;
}

async function openStores(context: Context): Promise<Stores> {
  const data = makeDataSet('string', keyCount(context.quick));
  const db = await openFlashVector(context.folder);
  await fillFlashVector(db, data);
  verify(FLASHVECTOR, data, (key) => db.get(key));
  if (context.lmdb === undefined) return { data, db, lmdb: undefined };
  const lmdb = openLmdb(context.lmdb, context.folder);
  await fillLmdb(lmdb, data);
  verify(LMDB, data, (key) => lmdb.get(key));
  return { data, db, lmdb };
}

export const workload: Workload = {
  title: 'Durable writes, so many in flight',
  async run(context) {
    const stores = await openStores(context);
    const sections: Section[] = [];
    for (const [inFlight, target] of TARGETS) sections.push(await measure(context, stores, inFlight, target));
    await stores.db.close();
    await stores.lmdb?.close();
    removeStores(context.folder);
    return sections;
  },
};
