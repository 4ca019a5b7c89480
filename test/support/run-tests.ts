/**
 * `npm test`: runs every compiled test under tap and closes with `N passed, N failed, N skipped`.
 *
 * Counts come from tap's own report; the exit code decides. A test process that was killed by a signal
 * can look like a pass in the counts, so a run is only a success when tap says so in both ways.
 * Arguments: test files to run instead of all; `--node PATH` runs them under another Node.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const tap = path.join(path.dirname(createRequire(import.meta.url).resolve('tap/package.json')), 'dist', 'esm', 'run.mjs');

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

/** Builds tap's test class once, without its TypeScript and mock plugins; see .taprc. */
function buildTap(node: string): void {
  if (existsSync('.tap/plugins-built')) return;
  const built = spawnSync(node, [tap, 'build'], { stdio: 'inherit' });
  if (built.status !== 0) throw new Error(`tap build ended with ${built.status ?? built.signal}`);
}

/** Reads the totals that tap prints at the end of its TAP output. */
function totalsOf(output: string): Totals | undefined {
  const match = /# \{ total: (\d+), pass: (\d+)(.*)\}/.exec(output);
  if (match === null) return undefined;
  const field = (name: string): number => Number(new RegExp(`${name}: (\\d+)`).exec(match[3])?.[1] ?? 0);
  return { passed: Number(match[2]), failed: field('fail'), skipped: field('skip') + field('todo') };
}

function killedBySignal(output: string): string[] {
  return [...output.matchAll(/^\s*signal: (SIG\w+)$/gm)].map((match) => match[1]);
}

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  const at = args.indexOf('--node');
  const node = at === -1 ? process.execPath : args.splice(at, 2)[1];
  buildTap(node);
  const child = spawn(node, [tap, 'run', '--reporter=tap', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  let output = '';
  let shown = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text: string) => {
    output += text;
    shown += text;
    const lines = shown.split('\n');
    shown = lines.pop() ?? '';
    // One line a test file, failures and comments; the rest is kept for the totals.
    for (const line of lines)
      if (/^(not )?ok |^\s*not ok |^\s*# (seed|Seed)|^\s+(at|found|wanted|message|diff|code|stack|error):|^# \{/.test(line))
        console.log(line);
  });
  const status = await new Promise<number>((resolve) => child.on('close', (code, signal) => resolve(signal === null ? (code ?? 1) : 1)));
  const totals = totalsOf(output);
  const killed = killedBySignal(output);
  if (totals === undefined) {
    console.error('tap printed no totals');
    console.log('0 passed, 1 failed, 0 skipped');
    return 1;
  }
  if (killed.length > 0) console.error(`test processes were killed: ${killed.join(', ')}`);
  const bad = status !== 0 || killed.length > 0;
  const failed = bad && totals.failed === 0 ? 1 : totals.failed;
  if (failed > 0) console.log(output.split('\n').slice(-200).join('\n'));
  console.log(`${totals.passed} passed, ${failed} failed, ${totals.skipped} skipped`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
