/** Reports as text: tables with columns that are as wide as they need to be. */

import type { Machine } from './machine.js';
import { isMet, type Row, type Section, type TargetResult } from './workload.js';

interface Column {
  head: string;
  /** Text is aligned left, figures right. */
  isText?: boolean;
  cell: (row: Row) => string;
}

/** Three significant digits, and never a power of ten. */
export function formatFigure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString('en-US');
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

function formatUs(us: number | undefined): string {
  if (us === undefined) return '';
  return us >= 1000 ? `${formatFigure(us / 1000)} ms` : `${formatFigure(us)} µs`;
}

const optional = (value: number | undefined, suffix = ''): string => (value === undefined ? '' : `${formatFigure(value)}${suffix}`);

function columns(unit: string): Column[] {
  return [
    { head: 'task', isText: true, cell: (row) => row.task },
    { head: `${unit}/s`, cell: (row) => optional(row.rate) },
    { head: 'p50', cell: (row) => formatUs(row.latency?.p50Us) },
    { head: 'p99', cell: (row) => formatUs(row.latency?.p99Us) },
    { head: 'p99.9', cell: (row) => formatUs(row.latency?.p999Us) },
    { head: 'max', cell: (row) => formatUs(row.latency?.maxUs) },
    { head: 'x lmdb-js', cell: (row) => optional(row.ratio) },
    { head: 'target', cell: (row) => optional(row.target) },
    { head: 'detail', isText: true, cell: (row) => row.detail ?? '' },
  ];
}

/** Lays out a table; the first of `lines` is its head. */
export function layOut(lines: readonly string[][], isText: readonly boolean[]): string {
  const widths = lines[0].map((_, at) => Math.max(...lines.map((line) => line[at].length)));
  const pad = (cell: string, at: number): string => (isText[at] ? cell.padEnd(widths[at]) : cell.padStart(widths[at]));
  const texts = lines.map((line) => `  ${line.map(pad).join('  ')}`.trimEnd());
  const rule = `  ${widths.map((width) => '-'.repeat(width)).join('  ')}`;
  return [texts[0], rule, ...texts.slice(1)].join('\n');
}

export function renderSection(section: Section): string {
  // A column that nobody fills is left out.
  const used = columns(section.unit).filter((column) => section.rows.some((row) => column.cell(row) !== ''));
  const lines = [used.map((column) => column.head), ...section.rows.map((row) => used.map((column) => column.cell(row)))];
  const table =
    section.rows.length === 0
      ? []
      : [
          layOut(
            lines,
            used.map((column) => column.isText === true),
          ),
        ];
  return [section.title, ...table, ...section.notes.map((note) => `  ${note}`), ''].join('\n');
}

export function renderMachine(machine: Machine): string {
  const { cpu, cores, memoryGib, load, platform, node, commit, date } = machine;
  return `${cpu}, ${cores} cores, ${memoryGib} GiB, load ${load.toFixed(1)} | ${platform} | Node ${node} | commit ${commit ?? 'unknown'} | ${date}`;
}

function renderTarget(result: TargetResult): string[] {
  const met = isMet(result);
  return [
    result.work,
    `${result.bound} ${formatFigure(result.target)} ${result.unit}`,
    result.reached === undefined ? '-' : `${formatFigure(result.reached)} ${result.unit}`,
    met === undefined ? 'not measured' : met ? 'yes' : 'NO',
  ];
}

export function renderSummary(results: readonly TargetResult[]): string {
  if (results.length === 0) return 'No targets in what was run.';
  return layOut([['work', 'target', 'reached', 'met?'], ...results.map(renderTarget)], [true, true, true, true]);
}
