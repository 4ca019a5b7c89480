#!/usr/bin/env node
/** The command line: `flashvector verify|repair|inspect`. Exit codes: 0 all is well, 1 problems found, 2 wrong usage or the command failed. */

import { parseArgs } from 'node:util';
import { FlashVectorError, inspect, repair, verify } from '../index.js';

const USAGE = `usage: flashvector COMMAND

  verify DIR               reads every byte of a closed store, reports problems with their positions
  repair DIR --out NEW     saves whatever verifies into a new store, lists what was lost
  inspect DIR              prints checkpoints, segments, frames and records

  --json                   verify and repair: the report as JSON
  --help                   this text

Exit code: 0 without problems or losses, 1 with, 2 when the command could not run.`;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function runVerify(directory: string, isJson: boolean): Promise<number> {
  const report = await verify(directory);
  if (isJson) {
    say(JSON.stringify(report, undefined, 2));
    return report.problems.length === 0 ? 0 : 1;
  }
  for (const file of report.files) {
    say(`${file.problems.length === 0 ? 'ok     ' : 'PROBLEM'} ${file.file} (${file.bytes} bytes) ${file.contents}`);
  }
  for (const problem of report.problems)
    say(`problem at ${problem.file}:${problem.offset}${problem.bytes === 0 ? '' : ` (${problem.bytes} bytes)`}: ${problem.message}`);
  for (const note of report.notes) say(`note: ${note}`);
  say(report.problems.length === 0 ? `no problems; the last record is ${report.lastLsn}` : `${report.problems.length} problems`);
  return report.problems.length === 0 ? 0 : 1;
}

async function runRepair(directory: string, out: string, isJson: boolean): Promise<number> {
  const report = await repair(directory, out);
  if (isJson) {
    say(JSON.stringify(report, undefined, 2));
  } else {
    say(
      `${report.entries} entries saved to ${report.out}, from ${report.checkpointEntries} in checkpoints and ${report.records} log records; the last is ${report.lastLsn}`,
    );
    for (const loss of report.losses) say(`lost at ${loss.file}:${loss.offset}: ${loss.message}`);
    if (report.losses.length === 0) say('nothing was lost');
  }
  return report.losses.length === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        out: { type: 'string' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${USAGE}\n`);
    return 2;
  }
  const { values, positionals } = parsed;
  if (values.help) {
    say(USAGE);
    return 0;
  }
  const [command, directory, ...rest] = positionals;
  const isComplete = directory !== undefined && rest.length === 0 && (command === 'repair') === (values.out !== undefined);
  if (isComplete && command === 'verify') return runVerify(directory, values.json);
  if (isComplete && command === 'repair' && values.out !== undefined) return runRepair(directory, values.out, values.json);
  if (isComplete && command === 'inspect') {
    await inspect(directory, say);
    return 0;
  }
  process.stderr.write(`${USAGE}\n`);
  return 2;
}

// A reader that has seen enough closes the pipe.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 2));
try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${error instanceof FlashVectorError ? `${error.code}: ${error.message}` : String(error)}\n`);
  process.exitCode = 2;
}
