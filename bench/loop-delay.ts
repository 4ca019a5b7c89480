/**
 * Delay of the event loop under 100,000 durable puts a second, and under 200,000 while checkpoints are written one after the other. The puts are
 * paced by a timer in small bursts.
 *
 * The delay is what `monitorEventLoopDelay` measures with a resolution of 1 ms: the time between two of its own timer
 * callbacks, so an idle loop shows a little more than 1 ms. Nothing is subtracted.
 */

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FlashVector } from '../src/index.js';
import { keyCount, makeDataSet, VALUE_NAMES, verify, type DataSet } from './support/data-set.js';
import { FLASHVECTOR, LMDB, openFlashVector, openLmdb, removeStores } from './support/engines.js';
import { collectGarbage } from './support/paired.js';
import { LatencyLog } from './support/percentiles.js';
import { formatFigure } from './support/render.js';
import { section, type Context, type Row, type Section, type Workload } from './support/workload.js';

interface Load {
  /** Puts a second. */
  rate: number;
  checkpoints: boolean;
  targetMs: number;
}

const LOADS: readonly Load[] = [
  { rate: 100_000, checkpoints: false, targetMs: 5 },
  { rate: 200_000, checkpoints: true, targetMs: 3 },
];
/** Share of the rate that counts as sustained. */
const RATE_TOLERANCE = 0.99;
/** Puts in one burst at most: catching up after a delay must not make the next. */
const BURST_MAX = 1000;

interface Outcome {
  row: Row;
  p99Ms: number;
  rate: number;
}

type DurablePut = (index: number) => Promise<unknown>;

class Pacer {
  readonly latency = new LatencyLog();
  sent = 0;
  acknowledged = 0;
  failure: unknown;

  constructor(
    readonly put: DurablePut,
    readonly rate: number,
  ) {}

  /** Puts what is due by now, and accounts for each promise. */
  burst(due: number): void {
    const count = Math.min(due - this.sent, BURST_MAX);
    const startedMs = performance.now();
    const onDone = (): void => {
      this.acknowledged++;
      this.latency.add(performance.now() - startedMs);
    };
    const onError = (error: unknown): void => {
      this.failure ??= error;
    };
    for (let i = 0; i < count; i++) this.put(this.sent++).then(onDone, onError);
  }

  /** @returns puts acknowledged a second */
  async run(timeMs: number): Promise<number> {
    const startedMs = performance.now();
    for (let elapsedMs = 0; elapsedMs < timeMs && this.failure === undefined; elapsedMs = performance.now() - startedMs) {
      this.burst(Math.floor((elapsedMs * this.rate) / 1000));
      await sleep(1);
    }
    while (this.acknowledged < this.sent && this.failure === undefined) await sleep(1);
    if (this.failure !== undefined) throw this.failure;
    return (this.acknowledged * 1000) / (performance.now() - startedMs);
  }
}

async function observe(task: string, timeMs: number, put: DurablePut | undefined, putsPerSecond: number): Promise<Outcome> {
  collectGarbage();
  const monitor = monitorEventLoopDelay({ resolution: 1 });
  const pacer = put === undefined ? undefined : new Pacer(put, putsPerSecond);
  // Started after the collection, and after the first turn: neither is the work's.
  await sleep(10);
  monitor.enable();
  const rate = (await pacer?.run(timeMs)) ?? 0;
  if (pacer === undefined) await sleep(timeMs);
  monitor.disable();
  const toMs = (ns: number): number => ns / 1e6;
  const p99Ms = toMs(monitor.percentile(99));
  const delay = `loop delay p50 ${formatFigure(toMs(monitor.percentile(50)))} ms, p99 ${formatFigure(p99Ms)} ms, max ${formatFigure(toMs(monitor.max))} ms`;
  const row: Row = { task, latency: pacer?.latency.percentiles(), detail: delay };
  if (pacer !== undefined) row.rate = rate;
  return { row, p99Ms, rate };
}

/** Writes checkpoints one after the other. @returns what ends that, and says how many there were */
function keepCheckpointing(db: FlashVector): () => Promise<number> {
  let isOver = false;
  const loop = async (): Promise<number> => {
    let made = 0;
    for (; !isOver; made++) await db.checkpoint();
    return made;
  };
  const made = loop();
  made.catch(() => undefined);
  return () => {
    isOver = true;
    return made;
  };
}

async function observeFlashVector(context: Context, { keys, values }: DataSet, timeMs: number, load: Load): Promise<Outcome> {
  const db = await openFlashVector(context.folder);
  const put: DurablePut = (index) => db.put(keys[index % keys.length], values[index % keys.length]);
  await new Pacer(put, load.rate).run(1000);
  const endCheckpoints = load.checkpoints ? keepCheckpointing(db) : undefined;
  let outcome: Outcome;
  let checkpoints: number | undefined;
  try {
    outcome = await observe(FLASHVECTOR, timeMs, put, load.rate);
  } finally {
    checkpoints = await endCheckpoints?.();
  }
  if (checkpoints !== undefined) outcome.row.detail += `, ${checkpoints} checkpoints`;
  verify(FLASHVECTOR, { keys: keys.slice(0, 50_000), values }, (key) => db.get(key));
  await db.close();
  return outcome;
}

async function observeLmdb(context: Context, { keys, values }: DataSet, timeMs: number, load: Load): Promise<Outcome | undefined> {
  if (context.lmdb === undefined) return undefined;
  const db = openLmdb(context.lmdb, context.folder);
  const put: DurablePut = async (index) => {
    await db.put(keys[index % keys.length], values[index % keys.length]);
    await db.flushed;
  };
  await new Pacer(put, load.rate).run(1000);
  const outcome = await observe(LMDB, timeMs, put, load.rate);
  await db.close();
  return outcome;
}

async function measure(context: Context, load: Load): Promise<Section> {
  const timeMs = context.quick ? 2000 : 10_000;
  const data = makeDataSet('object', keyCount(context.quick));
  const idle = await observe('no puts', Math.min(timeMs, 2000), undefined, 0);
  const own = await observeFlashVector(context, data, timeMs, load);
  const other = await observeLmdb(context, data, timeMs, load);
  removeStores(context.folder);
  const work = `${load.rate.toLocaleString('en-US')} durable puts a second${load.checkpoints ? ', checkpoints one after the other' : ''}`;
  const out = section(`event-loop delay, ${work}, for ${timeMs / 1000} s, ${VALUE_NAMES.object}`, 'puts');
  out.rows.push(idle.row, own.row);
  if (other !== undefined)
    out.rows.push(load.checkpoints ? { ...other.row, detail: `${other.row.detail}; it has no checkpoints` } : other.row);
  out.notes.push('p50 to max: of acknowledging a put; a delay includes the 1 ms between two timers of the monitor');
  const isSustained = own.rate >= load.rate * RATE_TOLERANCE;
  if (!isSustained) out.notes.push(`${FLASHVECTOR} did not sustain the rate, so the target counts as missed`);
  // A delay under less than the load asked for does not count.
  out.targets.push({
    work: `event-loop delay p99, ${work}`,
    unit: 'ms',
    target: load.targetMs,
    reached: own.p99Ms,
    bound: 'at most',
    isMissed: !isSustained,
  });
  return out;
}

export const workload: Workload = {
  title: 'Delay of the event loop',
  async run(context) {
    const sections: Section[] = [];
    for (const load of LOADS) sections.push(await measure(context, load));
    return sections;
  },
};
