/**
 * Compares two runs: `npm run bench:compare -- A.json B.json [--threshold PERCENT]`. Exit code 1 when B is slower somewhere by more than the threshold.
 *
 * Machines change their speed, so what is compared is FlashVector's ratio to lmdb-js of the same run wherever a table has it, and the bare rate only where it has not;
 * bare rates are shown but do not count.
 */

import { parseArgs } from 'node:util';
import { layOut, formatFigure } from './support/render.js';
import { readResults, type Report } from './support/results.js';
import type { Row } from './support/workload.js';

const THRESHOLD_PERCENT = 15;

class UsageError extends Error {}

function rowsOf({ workloads }: Report): Map<string, Row> {
  const rows = new Map<string, Row>();
  for (const { name, sections } of workloads)
    for (const { title, rows: own } of sections ?? [])
      for (const row of own) if (row.task.startsWith('FlashVector')) rows.set(`${name}: ${title}: ${row.task}`, row);
  return rows;
}

interface Change {
  what: string;
  measure: string;
  before: number;
  after: number;
  /** Percent; negative when it became slower. */
  percent: number;
  counts: boolean;
}

function changesBetween(a: Report, b: Report): Change[] {
  const before = rowsOf(a);
  const changes: Change[] = [];
  for (const [what, row] of rowsOf(b)) {
    const old = before.get(what);
    if (old === undefined) continue;
    const isRatio = old.ratio !== undefined && row.ratio !== undefined;
    const [x, y] = isRatio ? [old.ratio, row.ratio] : [old.rate, row.rate];
    if (x === undefined || y === undefined || !(x > 0)) continue;
    changes.push({ what, measure: isRatio ? 'x lmdb-js' : 'per second', before: x, after: y, percent: (y / x - 1) * 100, counts: isRatio });
  }
  return changes.sort((one, other) => one.percent - other.percent);
}

function main(): number {
  const { values, positionals } = parseArgs({ options: { threshold: { type: 'string' } }, allowPositionals: true });
  const threshold = values.threshold === undefined ? THRESHOLD_PERCENT : Number(values.threshold);
  if (positionals.length !== 2 || !(threshold > 0))
    throw new UsageError('usage: npm run bench:compare -- A.json B.json [--threshold PERCENT]');
  const [a, b] = positionals.map(readResults);
  for (const { machine, quick } of [a, b])
    console.log(`${machine.commit ?? 'unknown'}, ${machine.date}, ${machine.cpu}, Node ${machine.node}${quick ? ', quick' : ''}`);
  if (a.quick !== b.quick) console.log('One of them was quick: the two measure different amounts of work.');
  const changes = changesBetween(a, b);
  if (changes.length === 0) throw new UsageError('the two have no work in common');
  const lines = changes.map(({ what, measure, before, after, percent }) => [
    what,
    measure,
    formatFigure(before),
    formatFigure(after),
    `${percent > 0 ? '+' : ''}${percent.toFixed(0)} %`,
  ]);
  console.log(`\n${layOut([['work', 'in', 'before', 'after', 'change'], ...lines], [true, true, false, false, false])}`);
  const slower = changes.filter(({ percent, counts }) => counts && percent < -threshold);
  console.log(`\n${slower.length} of ${changes.length} slower by more than ${threshold} %`);
  return slower.length === 0 ? 0 : 1;
}

try {
  process.exitCode = main();
} catch (error) {
  console.error(`bench:compare: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
}
