/**
 * What a workload is, and what it reports. A report is plain data: it crosses from the child process to
 * the parent, and goes into the file of `--json` as it is.
 */

import type { Lmdb } from './engines.js';
import type { Percentiles } from './percentiles.js';

/** What a workload is given to run with. */
export interface Context {
  /** Fewer rounds and shorter ones: shows that everything works, not what it reaches. */
  quick: boolean;
  /** A fresh folder on disk for this workload's data; removed by the caller. */
  folder: string;
  /** `undefined` when lmdb-js cannot be imported: its tasks are left out. */
  lmdb: Lmdb | undefined;
  /** File of real documents, if one was named. */
  documents?: string;
}

/** A figure that the project has set itself, and what was measured. */
export interface TargetResult {
  work: string;
  /** What the two numbers count, such as `x lmdb-js` or `ms`. */
  unit: string;
  target: number;
  /** `undefined` when it could not be measured, because lmdb-js is missing. */
  reached: number | undefined;
  /** Whether the figure is to be at least the target, or at most. */
  bound: 'at least' | 'at most';
  /** Set when it counts as missed whatever was reached, because the work was not done in full. Results go through JSON, which knows no Infinity. */
  isMissed?: boolean;
}

/** One line of a table. */
export interface Row {
  task: string;
  /** Per second, of what the section's `unit` says. */
  rate?: number;
  latency?: Percentiles;
  /** Rate against lmdb-js with its default settings, median of the rounds. */
  ratio?: number;
  /** Least ratio wanted. */
  target?: number;
  /** What has no column of its own. */
  detail?: string;
}

/** One table: one kind of work, by several engines. */
export interface Section {
  /** Says the work, the durability, the value and the number of writes in flight. */
  title: string;
  /** What `rate` counts, such as `gets`. */
  unit: string;
  rows: Row[];
  notes: string[];
  targets: TargetResult[];
}

export interface Workload {
  title: string;
  run(context: Context): Promise<Section[]>;
}

export function section(title: string, unit: string): Section {
  return { title, unit, rows: [], notes: [], targets: [] };
}

export function isMet(result: TargetResult): boolean | undefined {
  if (result.isMissed === true) return false;
  if (result.reached === undefined) return undefined;
  return result.bound === 'at least' ? result.reached >= result.target : result.reached <= result.target;
}
