/**
 * The RESP server against redis-server, through redis-benchmark: both servers run all the time, and are asked in turn. FlashVector acknowledges a SET when it is on
 * disk, and so does Redis, with `appendonly yes` and `appendfsync always`. Then GET while a checkpoint of a million keys is written.
 *
 * Needs Debian's redis-server and redis-tools; without them it says so and measures nothing.
 */

import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const execute = promisify(execFile);
const CLI = fileURLToPath(new URL('../src/cli/main.js', import.meta.url));
const CLIENTS = 50;
const VALUE_BYTES = 100;
const KEYS = 100_000;
const CHECKPOINT_KEYS = 1_000_000;
const FLASHVECTOR = 'FlashVector';
const REDIS = 'redis-server';

interface Running {
  port: number;
  stop: () => Promise<void>;
}

interface Measured {
  rate: number;
  p50Ms: number;
  p99Ms: number;
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function listening(port: number, child: ChildProcess): Promise<void> {
  for (let i = 0; i < 400 && child.exitCode === null; i++) {
    const socket = net.connect(port, '127.0.0.1');
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await sleep(25);
  }
  throw new Error('a server did not start');
}

async function start(command: string, args: readonly string[], port: number): Promise<Running> {
  const child = spawn(command, args, { stdio: 'ignore' });
  await listening(port, child);
  return {
    port,
    stop: async () => {
      if (child.exitCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}

async function startFlashVector(folder: string): Promise<Running> {
  const port = await freePort();
  const config = path.join(folder, 'config.json');
  fs.writeFileSync(
    config,
    JSON.stringify({ DataDir: path.join(folder, 'flashvector'), ListenAddr: `:${port}`, HttpAddr: 'off', SnapshotIntervalSeconds: 0 }),
  );
  return start(process.execPath, [CLI, 'serve', '--config', config], port);
}

async function startRedis(folder: string): Promise<Running> {
  const port = await freePort();
  const data = path.join(folder, 'redis');
  fs.mkdirSync(data);
  const durability = ['--appendonly', 'yes', '--appendfsync', 'always', '--save', ''];
  return start('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--dir', data, ...durability], port);
}

/** Runs redis-benchmark for one command. */
async function measure(port: number, command: 'set' | 'get', pipeline: number, requests: number, keys = KEYS): Promise<Measured> {
  const { stdout } = await execute('redis-benchmark', [
    ...['-p', String(port), '-c', String(CLIENTS), '-d', String(VALUE_BYTES), '-r', String(keys)],
    ...['-P', String(pipeline), '-n', String(requests), '-t', command, '--csv'],
  ]);
  const fields = (stdout.trim().split('\n').at(-1) ?? '').split(',').map((field) => Number(field.replaceAll('"', '')));
  if (!(fields[1] > 0)) throw new Error(`redis-benchmark said ${stdout}`);
  // test, rate, average, least, p50, p95, p99, most
  return { rate: fields[1], p50Ms: fields[4], p99Ms: fields[6] };
}

function median(list: readonly number[]): number {
  return [...list].sort((a, b) => a - b)[list.length >>> 1];
}

async function compare(ours: Running, theirs: Running, command: 'set' | 'get', pipeline: number, quick: boolean): Promise<Section> {
  const target = command === 'set' ? 0.8 : pipeline === 1 ? 0.6 : 0.5;
  const requests = (quick ? 20_000 : 100_000) * (pipeline === 1 ? 1 : 5);
  const rounds = quick ? 2 : 7;
  const results: [Measured, Measured][] = [];
  // The first round warms both up.
  for (let round = 0; round <= rounds; round++) {
    const pair: [Measured, Measured] = [
      await measure(ours.port, command, pipeline, requests),
      await measure(theirs.port, command, pipeline, requests),
    ];
    if (round > 0) results.push(pair);
  }
  const ratio = median(results.map(([a, b]) => a.rate / b.rate));
  const durable = command === 'set' ? 'durable before the reply' : 'in memory';
  const out = section(
    `${command.toUpperCase()}, ${durable}, ${CLIENTS} connections, pipeline ${pipeline}, ${VALUE_BYTES}-byte values`,
    'requests',
  );
  for (const [i, task] of [FLASHVECTOR, REDIS].entries()) {
    const own = results.map((pair) => pair[i]);
    const detail = `p50 ${median(own.map(({ p50Ms }) => p50Ms))} ms, p99 ${median(own.map(({ p99Ms }) => p99Ms))} ms`;
    const row = { task, rate: median(own.map(({ rate }) => rate)), detail };
    out.rows.push(i === 0 ? { ...row, ratio, target } : { ...row, ratio: 1 });
  }
  out.notes.push(`against redis-server --appendonly yes --appendfsync always, median of ${rounds} rounds`);
  out.targets.push({
    work: `${command.toUpperCase()}, pipeline ${pipeline}`,
    unit: `x ${REDIS}`,
    target,
    reached: ratio,
    bound: 'at least',
  });
  return out;
}

async function cli(port: number, ...args: string[]): Promise<string> {
  return (await execute('redis-cli', ['-p', String(port), ...args])).stdout.trim();
}

/** GET alone and beside checkpoints, in turn. */
async function besideCheckpoint(ours: Running, quick: boolean): Promise<Section> {
  const keys = quick ? CHECKPOINT_KEYS / 10 : CHECKPOINT_KEYS;
  // Ten keys at a time: filling is not measured. Keys at random leave a third out, so it goes on until all are there.
  for (let i = 0; i < 20 && Number(await cli(ours.port, 'DBSIZE')) < keys * 0.99; i++) await measure(ours.port, 'set', 100, keys, keys);
  const alone: Measured[] = [];
  const beside: Measured[] = [];
  const rounds = quick ? 2 : 5;
  let checkpoints = 0;
  for (let round = 0; round <= rounds; round++) {
    const undisturbed = await measure(ours.port, 'get', 1, quick ? 20_000 : 200_000, keys);
    let isOver = false;
    const running = (async () => {
      while (!isOver) {
        await cli(ours.port, 'FV.CHECKPOINT');
        checkpoints++;
      }
    })();
    const disturbed = await measure(ours.port, 'get', 1, quick ? 20_000 : 200_000, keys);
    isOver = true;
    await running;
    if (round === 0) continue;
    alone.push(undisturbed);
    beside.push(disturbed);
  }
  const factor = median(beside.map(({ p99Ms }, i) => p99Ms / alone[i].p99Ms));
  const out = section(`GET while checkpoints of ${(keys / 1e6).toFixed(1)} million keys are written, one after the other`, 'requests');
  for (const [task, own] of [
    ['undisturbed', alone],
    ['beside checkpoints', beside],
  ] as const)
    out.rows.push({ task, rate: median(own.map(({ rate }) => rate)), detail: `p99 ${median(own.map(({ p99Ms }) => p99Ms))} ms` });
  out.notes.push(`${checkpoints} checkpoints`);
  out.targets.push({ work: 'p99 of GET beside a checkpoint', unit: 'x undisturbed', target: 2, reached: factor, bound: 'at most' });
  return out;
}

export const workload: Workload = {
  title: 'The RESP server against redis-server',
  async run({ folder, quick }: Context): Promise<Section[]> {
    try {
      await execute('redis-server', ['--version']);
      await execute('redis-benchmark', ['--version']);
    } catch {
      const out = section('The RESP server against redis-server', 'requests');
      out.notes.push('left out: redis-server and redis-tools are not installed (Debian: apt-get install redis-server redis-tools)');
      return [out];
    }
    const ours = await startFlashVector(folder);
    const theirs = await startRedis(folder);
    try {
      const sections: Section[] = [];
      for (const command of ['set', 'get'] as const)
        for (const pipeline of [1, 16]) sections.push(await compare(ours, theirs, command, pipeline, quick));
      sections.push(await besideCheckpoint(ours, quick));
      return sections;
    } finally {
      await Promise.all([ours.stop(), theirs.stop()]);
    }
  },
};
