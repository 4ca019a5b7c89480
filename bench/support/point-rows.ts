/** Turns what `point-bench.ts` measured into a section's rows. */

import { FLASHVECTOR, LMDB } from './engines.js';
import type { Percentiles } from './percentiles.js';
import { BATCH_SIZE, type PointResult } from './point-bench.js';
import { formatFigure } from './render.js';
import type { Section } from './workload.js';

/**
 * @param latency by task, of single calls
 * @param target least rate of FlashVector against lmdb-js, where there is one
 * @param work how the summary names the target
 */
export function pointRows(
  out: Section,
  result: PointResult,
  latency: ReadonlyMap<string, Percentiles | undefined>,
  target: number | undefined,
  work: string,
): void {
  for (const [task, spread] of result.spreads) {
    out.rows.push({
      task,
      rate: result.rates.rate(task),
      latency: latency.get(task),
      ratio: result.rates.ratio(task, LMDB),
      target: task === FLASHVECTOR ? target : undefined,
      detail: `batches of ${BATCH_SIZE.toLocaleString('en-US')}: p50 ${formatFigure(spread.p50Ns)} ns, p99 ${formatFigure(spread.p99Ns)} ns each`,
    });
  }
  if (target !== undefined) {
    out.targets.push({ work, unit: 'x lmdb-js', target, reached: result.rates.ratio(FLASHVECTOR, LMDB), bound: 'at least' });
  }
}
