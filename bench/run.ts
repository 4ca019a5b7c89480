/**
 * The benchmark's entry: `node --expose-gc dist/bench/run.js [--only NAME[,NAME]] [--quick] [--json FILE] [--documents FILE]`.
 *
 * Runs the workloads one after the other, each in a child process of its own, so that what one leaves in
 * heap and compiler does not disturb the next; then prints what was reached of the targets, and leaves everything in `bench/results/`. `--child NAME` is such a child:
 * started by hand (or under a profiler) it prints its tables itself.
 */

import { parseArgs } from 'node:util';
import { runChild } from './support/child.js';
import { prepareFolder, removeFolder } from './support/data-folder.js';
import { loadLmdb } from './support/engines.js';
import { describeMachine } from './support/machine.js';
import { renderMachine, renderSection, renderSummary } from './support/render.js';
import { writeResults, type WorkloadReport } from './support/results.js';
import type { Section, Workload } from './support/workload.js';

/** In the order in which they run. */
const WORKLOADS: Record<string, () => Promise<{ workload: Workload }>> = {
  get: () => import('./get.js'),
  put: () => import('./put.js'),
  mixed: () => import('./mixed.js'),
  threads: () => import('./threads.js'),
  durable: () => import('./durable.js'),
  grow: () => import('./grow.js'),
  large: () => import('./large.js'),
  ranges: () => import('./ranges.js'),
  overhead: () => import('./overhead.js'),
  'loop-delay': () => import('./loop-delay.js'),
  recovery: () => import('./recovery.js'),
  server: () => import('./server.js'),
  peers: () => import('./peers.js'),
  ycsb: () => import('./ycsb.js'),
  'open-loop': () => import('./open-loop.js'),
};

class UsageError extends Error {}

interface Arguments {
  names: string[];
  child: string | undefined;
  quick: boolean;
  json: string | undefined;
  documents: string | undefined;
}

function checkName(name: string): string {
  if (Object.hasOwn(WORKLOADS, name)) return name;
  throw new UsageError(`there is no workload ${JSON.stringify(name)}; there are ${Object.keys(WORKLOADS).join(', ')}`);
}

function readArguments(): Arguments {
  const text = { type: 'string' } as const;
  const options = { only: text, child: text, quick: { type: 'boolean' }, json: text, documents: text } as const;
  let values;
  try {
    values = parseArgs({ options }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  const names = values.only === undefined ? Object.keys(WORKLOADS) : values.only.split(',').map(checkName);
  const child = values.child === undefined ? undefined : checkName(values.child);
  return { names, child, quick: values.quick === true, json: values.json, documents: values.documents };
}

// The child ------------------------------------------------------------------------------------

async function runWorkload(name: string, { quick, documents }: Arguments): Promise<Section[]> {
  const { workload } = await WORKLOADS[name]();
  const loaded = await loadLmdb();
  const folder = prepareFolder(name);
  try {
    const sections = await workload.run({ quick, folder, lmdb: loaded instanceof Error ? undefined : loaded, documents });
    if (loaded instanceof Error)
      for (const section of sections) section.notes.push(`lmdb-js left out: it cannot be imported (${loaded.message})`);
    return sections;
  } finally {
    removeFolder(folder);
  }
}

async function beChild(name: string, parsed: Arguments): Promise<void> {
  const sections = await runWorkload(name, parsed);
  if (process.send === undefined) for (const section of sections) console.log(renderSection(section));
  else await new Promise((sent) => process.send?.(sections, sent));
  process.disconnect?.();
}

// The parent -----------------------------------------------------------------------------------

async function runAll({ names, quick, json, documents }: Arguments): Promise<boolean> {
  const machine = describeMachine();
  console.log(`FlashVector benchmark${quick ? ' (quick: it shows that all works, the figures are rough)' : ''}`);
  console.log(`${renderMachine(machine)}\n`);
  const workloads: WorkloadReport[] = [];
  for (const name of names) {
    const { title } = (await WORKLOADS[name]()).workload;
    console.log(`== ${name}: ${title}\n`);
    const started = performance.now();
    const result = await runChild(name, quick, documents);
    const seconds = Math.round((performance.now() - started) / 100) / 10;
    if (result instanceof Error) {
      console.log(`  FAILED: ${result.message}\n`);
      workloads.push({ name, title, seconds, error: result.message });
      continue;
    }
    for (const section of result) console.log(renderSection(section));
    console.log(`  ${seconds} s\n`);
    workloads.push({ name, title, seconds, sections: result });
  }
  const targets = workloads.flatMap(({ sections }) => sections?.flatMap((section) => section.targets) ?? []);
  console.log(`== targets\n\n${renderSummary(targets)}`);
  const written = writeResults({ version: 1, machine, quick, workloads, targets }, json);
  console.log(`\n${written.json}, and ${written.charts} charts in bench/results`);
  return workloads.every(({ error }) => error === undefined);
}

async function main(): Promise<void> {
  const parsed = readArguments();
  if (parsed.child !== undefined) await beChild(parsed.child, parsed);
  else if (!(await runAll(parsed))) process.exitCode = 1;
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? `bench: ${error.message}` : error);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
