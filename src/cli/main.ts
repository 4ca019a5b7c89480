#!/usr/bin/env node
/** The command line; see usage.ts. */

import { parseArgs } from 'node:util';
import { SettingsError } from '../config/load.js';
import { FlashVectorError, type Range } from '../index.js';
import { runBench } from './bench.js';
import { runDel, runGet, runPut, runScan, runStats } from './data.js';
import { runBackup, runInspect, runRepair, runVerify } from './offline.js';
import { say } from './output.js';
import { runConfig, runServe } from './serve.js';
import { openTarget, type Target } from './targets.js';
import { runDump, runLoad } from './transfer.js';
import { EXIT_FAILED, EXIT_OK, USAGE, UsageError } from './usage.js';
import { version } from './version.js';

const OPTIONS = {
  dir: { type: 'string', default: './data' },
  connect: { type: 'string' },
  tls: { type: 'boolean', default: false },
  out: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
  version: { type: 'boolean', default: false },
  'value-json': { type: 'boolean', default: false },
  prefix: { type: 'string' },
  gt: { type: 'string' },
  gte: { type: 'string' },
  lt: { type: 'string' },
  lte: { type: 'string' },
  limit: { type: 'string' },
  reverse: { type: 'boolean', default: false },
  keys: { type: 'boolean', default: false },
  key: { type: 'string' },
  'key-prefix': { type: 'string', default: '' },
  dumped: { type: 'boolean', default: false },
  watch: { type: 'boolean', default: false },
  count: { type: 'string', default: '100000' },
  'value-bytes': { type: 'string', default: '100' },
} as const;

type Values = ReturnType<typeof parse>['values'];

function parse(args: string[]) {
  return parseArgs({ args, options: OPTIONS, allowPositionals: true, strict: true });
}

function numberOption(name: string, text: string, least: number): number {
  if (!/^\d{1,12}$/.test(text) || Number(text) < least)
    throw new UsageError(`--${name} is ${JSON.stringify(text)}; allowed is a number of at least ${least}`);
  return Number(text);
}

function rangeOf(values: Values): Range {
  const range: Range = {};
  for (const name of ['prefix', 'gt', 'gte', 'lt', 'lte'] as const) {
    const bound = values[name];
    if (bound !== undefined && bound !== '') range[name] = bound;
  }
  if (values.limit !== undefined) range.limit = numberOption('limit', values.limit, 0);
  if (values.reverse) range.reverse = true;
  return range;
}

/** @throws UsageError */
function need(rest: readonly string[], count: number, what: string): void {
  if (rest.length !== count) throw new UsageError(`${what}; see flashvector --help`);
}

async function withTarget(values: Values, writes: boolean, work: (target: Target) => Promise<number>): Promise<number> {
  const target = await openTarget(values, writes);
  try {
    return await work(target);
  } finally {
    await target.close();
  }
}

async function run(command: string, args: string[]): Promise<number> {
  const { values, positionals: rest } = parse(args);
  const { json } = values;
  switch (command) {
    case 'get':
      need(rest, 1, 'get takes a key');
      return withTarget(values, false, (target) => runGet(target, rest[0], json));
    case 'put':
      need(rest, 2, 'put takes a key and a value');
      return withTarget(values, true, (target) => runPut(target, rest[0], rest[1], values['value-json'], json));
    case 'del':
      need(rest, 1, 'del takes a key');
      return withTarget(values, true, (target) => runDel(target, rest[0], json));
    case 'scan': {
      need(rest, 0, 'scan takes no arguments but options');
      const range = rangeOf(values);
      return withTarget(values, false, (target) => runScan(target, range, values.keys, json));
    }
    case 'load':
      need(rest, 1, 'load takes a file');
      return withTarget(values, true, (target) =>
        runLoad(target, { file: rest[0], keyField: values.key, keyPrefix: values['key-prefix'], isDumped: values.dumped, isJson: json }),
      );
    case 'dump':
      need(rest, 0, 'dump takes no arguments but options');
      return withTarget(values, false, (target) => runDump(target, values.out, json));
    case 'stats':
      need(rest, 0, 'stats takes no arguments but options');
      return withTarget(values, false, (target) => runStats(target, values.watch, json));
    case 'bench':
      need(rest, 0, 'bench takes no arguments but options');
      return runBench(values, numberOption('count', values.count, 1), numberOption('value-bytes', values['value-bytes'], 0), json);
    case 'verify':
      need(rest, 1, 'verify takes a folder');
      return runVerify(rest[0], json);
    case 'inspect':
      need(rest, 1, 'inspect takes a folder');
      return runInspect(rest[0], json);
    case 'repair':
    case 'backup':
      if (rest.length !== 1 || values.out === undefined) throw new UsageError(`${command} takes a folder, and --out with another one`);
      return command === 'repair' ? runRepair(rest[0], values.out, json) : runBackup(rest[0], values.out, json);
    default:
      throw new UsageError(`there is no command ${JSON.stringify(command)}; see flashvector --help`);
  }
}

async function main(args: string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === 'serve') return runServe(rest);
  if (command === 'config') return runConfig(rest);
  const options = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  if (options.includes('--help') || options.includes('-h')) {
    say(USAGE);
    return EXIT_OK;
  }
  if (command === '--version') {
    say(version());
    return EXIT_OK;
  }
  if (command === undefined || command.startsWith('-')) throw new UsageError('a command is missing; see flashvector --help');
  return run(command, rest);
}

function explain(error: unknown): string {
  if (error instanceof UsageError || error instanceof SettingsError) return error.message;
  if (error instanceof FlashVectorError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

// A reader that has seen enough closes the pipe.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? EXIT_OK : EXIT_FAILED));
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  // With --json the reason is JSON, too, so that programs need not guess.
  const code = error instanceof FlashVectorError ? error.code : error instanceof UsageError ? 'usage' : 'failed';
  const text = process.argv.includes('--json') ? JSON.stringify({ error: { code, message: explain(error) } }) : explain(error);
  process.stderr.write(`${text}\n`);
  process.exitCode = EXIT_FAILED;
}
