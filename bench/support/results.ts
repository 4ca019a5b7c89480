/** Where a run's results are left: `bench/results/`, a JSON file with everything, and a chart for each table. */

import fs from 'node:fs';
import path from 'node:path';
import { renderChart } from './chart.js';
import type { Machine } from './machine.js';
import { renderMachine } from './render.js';
import type { Section, TargetResult } from './workload.js';

const FOLDER = path.resolve('bench/results');

export interface WorkloadReport {
  name: string;
  title: string;
  seconds: number;
  sections?: Section[];
  error?: string;
}

export interface Report {
  /** Of this form; raised when a reader of older ones would go wrong. */
  version: 1;
  machine: Machine;
  quick: boolean;
  workloads: WorkloadReport[];
  targets: TargetResult[];
}

function fileName(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
}

/** @param file where the JSON goes; by default its name says date and commit @returns the files' folder and the JSON's name */
export function writeResults(report: Report, file?: string): { json: string; charts: number } {
  const { machine } = report;
  fs.mkdirSync(FOLDER, { recursive: true });
  const json = file ?? path.join(FOLDER, `${machine.date.slice(0, 19).replaceAll(':', '')}-${fileName(machine.commit ?? 'unknown')}.json`);
  fs.writeFileSync(json, `${JSON.stringify(report, undefined, 2)}\n`);
  let charts = 0;
  for (const { name, sections } of report.workloads)
    for (const section of sections ?? []) {
      const chart = renderChart(section, renderMachine(machine));
      if (chart === undefined) continue;
      fs.writeFileSync(path.join(FOLDER, `${name}-${fileName(section.title)}.svg`), chart);
      charts++;
    }
  return { json, charts };
}

/** @throws Error when it is not a file of such results */
export function readResults(file: string): Report {
  const report = JSON.parse(fs.readFileSync(file, 'utf8')) as Partial<Report>;
  if (report.version !== 1 || report.workloads === undefined || report.machine === undefined)
    throw new Error(`${file} is no file of this benchmark's results`);
  return report as Report;
}
