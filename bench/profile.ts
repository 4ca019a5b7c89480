/**
 * Where a workload spends its time: `npm run profile -- WORKLOAD [--quick]`.
 *
 * Runs the workload under `node --cpu-prof`, which writes one profile a thread, and prints for each the functions
 * with most self time. The files open in the performance tools of Chrome and of VS Code.
 */

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { layOut } from './support/render.js';

const TOP = 12;

/** What is used of the format of V8's profiles. */
interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  samples: number[];
  /** Microseconds between two samples; the first from the start on. */
  timeDeltas: number[];
}

interface SelfTime {
  name: string;
  place: string;
  us: number;
}

function shortPlace(url: string, line: number): string {
  if (url === '') return '(native)';
  const file = url.startsWith('file:') ? path.relative(process.cwd(), fileURLToPath(url)) : url;
  return `${file}:${line + 1}`;
}

/** Self time by function: what one of its samples took lies between that sample and the next. */
function selfTimes(profile: CpuProfile): SelfTime[] {
  const byNode = new Map<number, number>();
  for (let i = 0; i < profile.samples.length; i++) {
    const us = profile.timeDeltas[i + 1] ?? 0;
    byNode.set(profile.samples[i], (byNode.get(profile.samples[i]) ?? 0) + us);
  }
  const byFunction = new Map<string, SelfTime>();
  for (const { id, callFrame } of profile.nodes) {
    const us = byNode.get(id);
    if (us === undefined) continue;
    const name = callFrame.functionName === '' ? '(anonymous)' : callFrame.functionName;
    const place = shortPlace(callFrame.url, callFrame.lineNumber);
    const known = byFunction.get(`${name} ${place}`);
    if (known === undefined) byFunction.set(`${name} ${place}`, { name, place, us });
    else known.us += us;
  }
  return [...byFunction.values()].sort((a, b) => b.us - a.us);
}

function renderProfile(file: string): string {
  const times = selfTimes(JSON.parse(fs.readFileSync(file, 'utf8')) as CpuProfile);
  const totalUs = times.reduce((sum, { us }) => sum + us, 0);
  const lines = times
    .slice(0, TOP)
    .map(({ name, place, us }) => [`${((us * 100) / totalUs).toFixed(1)}%`, `${(us / 1000).toFixed(0)} ms`, name, place]);
  const head = ['self', 'time', 'function', 'where'];
  return `${path.basename(file)}, ${(totalUs / 1e6).toFixed(1)} s\n${layOut([head, ...lines], [false, false, true, true])}\n`;
}

function main(parameters: string[]): number {
  const [workload] = parameters.filter((parameter) => !parameter.startsWith('--'));
  if (workload === undefined) {
    console.error('usage: npm run profile -- WORKLOAD [--quick]');
    return 2;
  }
  const stamp = new Date().toISOString().replaceAll(/[:.]/g, '-');
  const folder = path.join('profiles', `${path.basename(workload)}-${stamp}`);
  const run = fileURLToPath(new URL('run.js', import.meta.url));
  const flags = parameters.filter((parameter) => parameter.startsWith('--'));
  const node = ['--expose-gc', '--cpu-prof', `--cpu-prof-dir=${folder}`, run, '--child', workload, ...flags];
  const { status, signal } = spawnSync(process.execPath, node, { stdio: 'inherit' });
  if (status !== 0) {
    console.error(`profile: the workload ended with ${signal ?? `code ${status}`}`);
    return status ?? 1;
  }
  const files = fs.readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'));
  console.log(`Profiles, one a thread, in ${folder}\n`);
  for (const name of files.sort()) console.log(renderProfile(path.join(folder, name)));
  return 0;
}

process.exitCode = main(process.argv.slice(2));
