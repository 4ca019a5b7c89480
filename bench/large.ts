/**
 * Ten million keys: how long single calls of `put` take while they are written, and reads at random when all are there. Values are strings of 100 bytes; the
 * data is some ten times as large as any processor cache.
 */

import { setImmediate as turn } from 'node:timers/promises';
import { keyOf, randomFrom, stringOf } from './support/data-set.js';
import { FLASHVECTOR, LMDB, openFlashVector, openLmdb, removeStores } from './support/engines.js';
import { GcLog } from './support/gc-log.js';
import { collectGarbage, runPaired, type Contestant } from './support/paired.js';
import { formatFigure } from './support/render.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const KEYS = 10_000_000;
const KEYS_QUICK = 1_000_000;
/** Different keys that are read, so that the keys themselves do not fill the heap. */
const READS = 1_000_000;
const BURST = 10_000;
/** Calls that took longer are looked at one by one: whether a collection ran meanwhile. */
const SLOW_MS = 0.02;
const PUT_TARGET_US = 200;
const GET_TARGET = 2;
const SEED = 7;
/** Neighbours in number lie far apart in time: an odd step goes through all numbers. */
const STEP = 7_368_787;

interface Calls {
  /** Sorted, ms; without those during which a collection ran. */
  durations: Float64Array;
  all: Float64Array;
  seconds: number;
  collections: number;
  longestCollectionMs: number;
}

function quantileUs(sorted: Float64Array, quantile: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] * 1000;
}

/** Puts all keys, in an order that is not that of the keys, and times each call. */
async function fillTimed(count: number, put: (key: string, value: string) => Promise<unknown>): Promise<Calls> {
  collectGarbage();
  const gc = new GcLog();
  const durations = new Float64Array(count);
  const started = performance.now();
  const slow: { index: number; startMs: number; durationMs: number }[] = [];
  for (let at = 0; at < count; at += BURST) {
    let last: Promise<unknown> | undefined;
    for (let i = at; i < at + BURST; i++) {
      const number = (i * STEP) % count;
      const key = keyOf(number);
      const value = stringOf(number);
      const startMs = performance.now();
      last = put(key, value);
      const durationMs = performance.now() - startMs;
      durations[i] = durationMs;
      if (durationMs > SLOW_MS) slow.push({ index: i, startMs, durationMs });
    }
    await last;
    await turn();
  }
  const seconds = (performance.now() - started) / 1000;
  await gc.close();
  const collected = new Set(slow.filter((call) => gc.overlaps(call)).map(({ index }) => index));
  return {
    durations: durations.filter((_, i) => !collected.has(i)).sort(),
    all: durations.sort(),
    seconds,
    collections: gc.pauses.length,
    longestCollectionMs: gc.pauses.reduce((most, { duration }) => Math.max(most, duration), 0),
  };
}

async function measure(context: Context): Promise<Section[]> {
  const count = context.quick ? KEYS_QUICK : KEYS;
  const many = count.toLocaleString('en-US');
  const db = await openFlashVector(context.folder, { durability: 'memory' });
  const calls = await fillTimed(count, (key, value) => db.put(key, value));
  const puts = section(`single calls of put while growing to ${many} keys, 100-byte strings, not durable`, 'puts');
  puts.rows.push({
    task: FLASHVECTOR,
    rate: count / calls.seconds,
    detail: 'waits for the log and the making of keys and values included',
  });
  for (const [what, sorted] of [
    ['collections aside', calls.durations],
    ['all', calls.all],
  ] as const)
    puts.notes.push(
      `${what}: ${[0.5, 0.99, 0.999, 0.9999, 1].map((q) => `p${q * 100} ${formatFigure(quantileUs(sorted, q))} µs`).join(', ')} (${sorted.length.toLocaleString('en-US')} calls)`,
    );
  puts.notes.push(`${calls.collections} collections, the longest ${formatFigure(calls.longestCollectionMs)} ms`);
  puts.targets.push({
    work: `put call p99.99 growing to ${many} keys, collections aside`,
    unit: 'µs',
    target: PUT_TARGET_US,
    reached: quantileUs(calls.durations, 0.9999),
    bound: 'at most',
  });

  const random = randomFrom(SEED);
  const keys = Array.from({ length: READS }, () => keyOf(Math.floor(random() * count)));
  const readOwn = (): number => {
    let missing = 0;
    for (let i = 0; i < keys.length; i++) if (db.get(keys[i]) === undefined) missing++;
    return missing;
  };
  const timed = (name: string, read: () => number): Contestant => ({
    name,
    run: () => {
      const started = performance.now();
      const missing = read();
      if (missing > 0) throw new Error(`${name} lost ${missing} keys`);
      return Promise.resolve((keys.length * 1000) / (performance.now() - started));
    },
  });
  const contestants = [timed(FLASHVECTOR, readOwn)];
  let close = (): Promise<void> => Promise.resolve();
  if (context.lmdb !== undefined) {
    const lmdb = openLmdb(context.lmdb, context.folder, { noSync: true });
    for (let i = 0; i < count; i++) {
      const written = lmdb.put(keyOf(i), stringOf(i));
      if (i % BURST === 0) await written;
    }
    await lmdb.flushed;
    const readLmdb = (): number => {
      let missing = 0;
      for (let i = 0; i < keys.length; i++) if (lmdb.get(keys[i]) === undefined) missing++;
      return missing;
    };
    contestants.push(timed(LMDB, readLmdb));
    close = () => lmdb.close();
  }
  const rates = await runPaired(contestants, { rounds: 5, warmups: 1, collects: false });
  const gets = section(`get, 100-byte string, ${many} keys, at random`, 'gets');
  for (const { name } of contestants) gets.rows.push({ task: name, rate: rates.rate(name), ratio: rates.ratio(name, LMDB) });
  gets.targets.push({
    work: `get, ${many} keys`,
    unit: 'x lmdb-js',
    target: GET_TARGET,
    reached: rates.ratio(FLASHVECTOR, LMDB),
    bound: 'at least',
  });
  const { memory, index, entries } = db.stats();
  gets.notes.push(
    `FlashVector holds ${formatFigure(memory.totalBytes / entries)} bytes of memory an entry, of them ${formatFigure(index.memoryBytes / entries)} for the order`,
  );
  await db.close();
  await close();
  removeStores(context.folder);
  return [puts, gets];
}

export const workload: Workload = { title: 'Ten million keys', run: measure };
