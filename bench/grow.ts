/**
 * The slowest single call of `put` while a store grows to 5 million small keys, not durable: growth of tables and
 * of memory must not stop the event loop.
 *
 * A call during which the garbage collector ran says nothing about the store, so the slowest call with
 * no collection inside is reported beside the slowest. The machine may take the processor away for milliseconds
 * at any time. So the whole is done several times, and the median of the slowest calls is the result: what the store itself
 * does slowly, it does slowly every time. And where the kernel tells (Linux) how long this thread waited for a processor, it
 * is printed how slow calls were with that taken off: apart, for whoever looks into a miss; the target knows nothing of it.
 */

import { setImmediate as turn } from 'node:timers/promises';
import { GcLog } from './support/gc-log.js';
import { ProcessorWaits } from './support/processor-waits.js';
import { FLASHVECTOR, MAP, openFlashVector, removeStores } from './support/engines.js';
import { collectGarbage } from './support/paired.js';
import { LatencyLog, median, type Percentiles } from './support/percentiles.js';
import { formatFigure } from './support/render.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const KEYS = 5_000_000;
const KEYS_QUICK = 1_000_000;
const TARGET_MS = 2;
/** Puts between two turns of the event loop. */
const BURST = 10_000;
/** Puts between two looks at how long this thread has waited for a processor. */
const WATCH_EVERY = 250;
/** Calls that took longer are remembered one by one. */
const SLOW_MS = 0.5;
/** Between collecting garbage or opening a store and the first call that counts. */
const SETTLE_MS = 300;

interface SlowCall {
  startMs: number;
  durationMs: number;
  /** How many keys there were. */
  at: number;
  /** How long this thread waited for a processor since the last look; part of it inside this call. `undefined` where it cannot be known. */
  waitMs: number | undefined;
}

interface Growth {
  rate: number;
  latency: Percentiles | undefined;
  slowest: SlowCall;
  slowestWithoutGc: SlowCall;
  /** The same among the calls after the first WARM_KEYS: the engine itself, once the compiler's threads are done. */
  slowestWarm: SlowCall;
  /** Longest of a call with no collection inside, less what this thread waited for a processor about then: at least so much was the call's own. */
  runningMs: number | undefined;
  /** Calls longer than the target with no collection inside. */
  overTarget: number;
  gcCount: number;
  gcMaxMs: number;
}

/** Keys in whose time the just-in-time compiler, which runs on threads of its own, is busy. */
const WARM_KEYS = 100_000;

type Put = (key: string, value: number) => Promise<unknown> | undefined;

function keyOf(index: number): string {
  return `user:${String(index).padStart(10, '0')}`;
}

const NONE: SlowCall = { startMs: 0, durationMs: 0, at: 0, waitMs: undefined };

function slowestOf(calls: readonly SlowCall[]): SlowCall {
  return calls.reduce((slowest, call) => (call.durationMs > slowest.durationMs ? call : slowest), NONE);
}

/** Puts `count` keys, timing each call; now and then waits for the last, so that the log keeps up. */
async function growTo(count: number, put: Put): Promise<Growth> {
  collectGarbage();
  // Collecting leaves sweeping behind, and opening a store threads that are starting: they are not what is measured.
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const gc = new GcLog();
  const latency = new LatencyLog();
  const slow: SlowCall[] = [];
  const waits = new ProcessorWaits();
  let totalMs = 0;
  for (let at = 0; at < count; at += BURST) {
    let last: Promise<unknown> | undefined;
    for (let i = at; i < at + BURST; i++) {
      const key = keyOf(i);
      if (i % WATCH_EVERY === 0) waits.look();
      const startMs = performance.now();
      last = put(key, i);
      const durationMs = performance.now() - startMs;
      latency.add(durationMs);
      totalMs += durationMs;
      if (durationMs > SLOW_MS) slow.push({ startMs, durationMs, at: i, waitMs: waits.look() });
    }
    await last;
    await turn();
  }
  await gc.close();
  waits.close();
  const withoutGc = slow.filter((call) => !gc.overlaps(call));
  return {
    rate: (count * 1000) / totalMs,
    latency: latency.percentiles(),
    slowest: slowestOf(slow),
    slowestWithoutGc: slowestOf(withoutGc),
    slowestWarm: slowestOf(withoutGc.filter((call) => call.at >= WARM_KEYS)),
    runningMs: withoutGc.some((call) => call.waitMs !== undefined)
      ? Math.max(...withoutGc.map((call) => call.durationMs - (call.waitMs ?? 0)))
      : undefined,
    overTarget: withoutGc.filter((call) => call.durationMs > TARGET_MS).length,
    gcCount: gc.pauses.length,
    gcMaxMs: Math.max(0, ...gc.pauses.map((pause) => pause.duration)),
  };
}

async function growFlashVector(context: Context, count: number): Promise<Growth> {
  const db = await openFlashVector(context.folder, { durability: 'memory' });
  const growth = await growTo(count, (key, value) => db.put(key, value));
  if (db.size !== count) throw new Error(`${FLASHVECTOR} holds ${db.size} keys of ${count}`);
  for (let i = 0; i < count; i += 997) if (db.get(keyOf(i)) !== i) throw new Error(`${FLASHVECTOR} returns a wrong value for ${keyOf(i)}`);
  await db.close();
  removeStores(context.folder);
  return growth;
}

async function growMap(count: number): Promise<Growth> {
  const map = new Map<string, number>();
  return growTo(count, (key, value) => {
    map.set(key, value);
    return undefined;
  });
}

function describe(task: string, growth: Growth, out: Section): void {
  const { slowest, slowestWithoutGc, slowestWarm, runningMs, overTarget, gcCount, gcMaxMs } = growth;
  const ms = (value: number): string => `${formatFigure(value)} ms`;
  const waited = runningMs === undefined ? '' : `, waits for a processor taken off ${ms(runningMs)}`;
  out.rows.push({ task, rate: growth.rate, latency: growth.latency, detail: `${gcCount} GCs, longest ${ms(gcMaxMs)}` });
  out.notes.push(
    `${task}: slowest ${ms(slowest.durationMs)}; with no GC inside ${ms(slowestWithoutGc.durationMs)}, at key ${slowestWithoutGc.at.toLocaleString('en-US')}${waited}; ` +
      `past the first ${WARM_KEYS.toLocaleString('en-US')} keys ${ms(slowestWarm.durationMs)}; ${overTarget} without GC over ${TARGET_MS} ms`,
  );
}

async function measure(context: Context): Promise<Section> {
  const count = context.quick ? KEYS_QUICK : KEYS;
  const many = count.toLocaleString('en-US');
  const out = section(`slowest put while growing to ${many} keys of 15 bytes, values numbers, not durable`, 'puts');
  const runs: Growth[] = [];
  for (let run = 1; run <= (context.quick ? 2 : 3); run++) {
    const growth = await growFlashVector(context, count);
    runs.push(growth);
    describe(`${FLASHVECTOR}, run ${run}`, growth, out);
  }
  describe(MAP, await growMap(count), out);
  const reached = median(runs.map((growth) => growth.slowestWithoutGc.durationMs));
  const whole = median(runs.map((growth) => growth.slowest.durationMs));
  out.notes.push(
    `FlashVector, median of ${runs.length} runs: slowest call ${formatFigure(whole)} ms, slowest call with no GC inside ${formatFigure(reached)} ms`,
  );
  out.targets.push({ work: `slowest put growing to ${many} keys, GC aside`, unit: 'ms', target: TARGET_MS, reached, bound: 'at most' });
  return out;
}

export const workload: Workload = {
  title: 'Growing',
  async run(context) {
    return [await measure(context)];
  },
};
