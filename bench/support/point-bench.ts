/**
 * Rates of point operations, by tinybench: a task's iteration does a batch of operations, because one alone
 * is shorter than the clock resolves. Tasks take turns in short rounds (see `paired.ts`); each round is a
 * tinybench run of its own.
 */

import { Bench, type Task } from 'tinybench';
import { PairedRates } from './paired.js';
import { median } from './percentiles.js';

export interface PointTask {
  name: string;
  /** Does `BATCH_SIZE` operations, from the data set's index `start` on. */
  batch: (start: number) => unknown;
}

export interface PointOptions {
  rounds: number;
  /** Time of one task in one round. */
  timeMs: number;
  /** Time of one task before the first round. */
  warmupMs: number;
  /** Size of the data set, a multiple of `BATCH_SIZE`. */
  count: number;
  isAsync: boolean;
}

/** Slow and fast batches of a task: mean nanoseconds for one operation of such a batch. */
interface BatchSpread {
  p50Ns: number;
  p99Ns: number;
}

export interface PointResult {
  rates: PairedRates;
  spreads: Map<string, BatchSpread>;
}

export const BATCH_SIZE = 10_000;

function addTask(bench: Bench, task: PointTask, options: PointOptions): void {
  let start = 0;
  const next = (): number => {
    const current = start;
    start = current + BATCH_SIZE < options.count ? current + BATCH_SIZE : 0;
    return current;
  };
  bench.add(task.name, () => task.batch(next()), { async: options.isAsync });
}

// No collection is forced between tasks: it shrinks the young generation, and whoever allocates pays for that.

/** The rate counts everything, garbage collection too: total time, not the median batch. */
function readTask(task: Task, result: PointResult, spreads: Map<string, BatchSpread[]>): void {
  const measured = task.result;
  if (measured.state === 'errored') throw measured.error;
  if (measured.state !== 'completed') throw new Error(`tinybench left task ${task.name} in state ${measured.state}`);
  result.rates.add(task.name, (BATCH_SIZE * 1000) / measured.period);
  const toNs = 1e6 / BATCH_SIZE;
  const spread = { p50Ns: measured.latency.p50 * toNs, p99Ns: measured.latency.p99 * toNs };
  const known = spreads.get(task.name);
  if (known === undefined) spreads.set(task.name, [spread]);
  else known.push(spread);
}

export async function runPoints(tasks: readonly PointTask[], options: PointOptions): Promise<PointResult> {
  const result: PointResult = { rates: new PairedRates(), spreads: new Map() };
  const spreads = new Map<string, BatchSpread[]>();
  for (let round = 0; round < options.rounds; round++) {
    const bench = new Bench({
      time: options.timeMs,
      iterations: 1,
      warmup: round === 0,
      warmupTime: options.warmupMs,
      warmupIterations: 1,
    });
    for (const task of round % 2 === 0 ? tasks : [...tasks].reverse()) addTask(bench, task, options);
    await bench.run();
    for (const task of bench.tasks) readTask(task, result, spreads);
  }
  for (const [name, all] of spreads) {
    result.spreads.set(name, { p50Ns: median(all.map((one) => one.p50Ns)), p99Ns: median(all.map((one) => one.p99Ns)) });
  }
  return result;
}
