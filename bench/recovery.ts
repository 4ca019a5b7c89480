/**
 * Checkpoints and recovery of a store of two million entries (16-byte keys, 100-byte strings): replay of its log, the checkpoint
 * itself, what writers notice of it, recovery from it; and the space on disk of a store that is written over and over.
 *
 * Opening is timed as a whole, threads and all.
 */

import fs from 'node:fs';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { open, type FlashVector, type OpenOptions } from '../src/index.js';
import { shuffledNumbers, stringOf } from './support/data-set.js';
import { removeStores } from './support/engines.js';
import { collectGarbage } from './support/paired.js';
import { formatFigure } from './support/render.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const ENTRIES = 2_000_000;
const ENTRIES_QUICK = 200_000;
const KEY_BYTES = 16;
const MIB = 1024 * 1024;
const BURST = 1000;
/** Puts a second while the delay of the event loop is measured, as in loop-delay.ts. */
const PACED_RATE = 100_000;
/** No checkpoint but by call. */
const BY_CALL: OpenOptions = { snapshotIntervalSeconds: 0, checkpointLogBytes: Number.MAX_SAFE_INTEGER };
/** Pieces between syncs of the plain write that a checkpoint is held against. */
const SYNC_BYTES = 4 * MIB;

function keyOf(number: number): string {
  return `user:${String(number).padStart(KEY_BYTES - 5, '0')}`;
}

async function fill(db: FlashVector, numbers: Int32Array): Promise<void> {
  for (let i = 0; i < numbers.length; i++) {
    const promise = db.put(keyOf(numbers[i]), stringOf(numbers[i]));
    if (i % 10_000 === 0) await promise;
  }
  await db.flush();
}

function check(db: FlashVector, count: number): void {
  if (db.size !== count) throw new Error(`the store holds ${db.size} entries of ${count}`);
  for (let i = 0; i < count; i += 1009) if ((db.get(keyOf(i)) as string).length !== 100) throw new Error(`${keyOf(i)} is wrong`);
}

/** @returns the store, and seconds that opening took */
async function timedOpen(folder: string): Promise<[FlashVector, number]> {
  collectGarbage();
  const started = performance.now();
  const db = await open(folder, BY_CALL);
  return [db, (performance.now() - started) / 1000];
}

/** Plain writes of as many bytes, synced as a checkpoint syncs. @returns MB a second */
function diskRate(folder: string, bytes: number): number {
  const file = path.join(folder, 'plain');
  const block = Buffer.alloc(256 * 1024, 0x5a);
  const fd = fs.openSync(file, 'w');
  const started = performance.now();
  let unsynced = 0;
  for (let at = 0; at < bytes; at += block.length) {
    fs.writeSync(fd, block, 0, block.length, at);
    unsynced += block.length;
    if (unsynced < SYNC_BYTES) continue;
    fs.fdatasyncSync(fd);
    unsynced = 0;
  }
  fs.fdatasyncSync(fd);
  const seconds = (performance.now() - started) / 1000;
  fs.closeSync(fd);
  fs.rmSync(file);
  return bytes / 1e6 / seconds;
}

/** Puts over old keys at a steady rate, until told to stop: the loop's own work is small then. @returns puts a second */
async function paced(db: FlashVector, numbers: Int32Array, stopped: () => boolean): Promise<number> {
  const started = performance.now();
  let count = 0;
  let last: Promise<unknown> | undefined;
  while (!stopped()) {
    const due = Math.floor(((performance.now() - started) * PACED_RATE) / 1000);
    for (const end = Math.min(due, count + BURST); count < end; count++)
      last = db.put(keyOf(numbers[count % numbers.length]), stringOf(count % numbers.length));
    await sleep(1);
  }
  await last;
  return (count * 1000) / (performance.now() - started);
}

/** Puts over old keys, a burst in flight at a time, until told to stop. @returns puts a second */
async function load(db: FlashVector, numbers: Int32Array, stopped: () => boolean): Promise<number> {
  const started = performance.now();
  let count = 0;
  while (!stopped()) {
    let last: Promise<unknown> | undefined;
    for (let i = 0; i < BURST; i++, count++) last = db.put(keyOf(numbers[count % numbers.length]), stringOf(count % numbers.length));
    await last;
  }
  return (count * 1000) / (performance.now() - started);
}

type Load = typeof load;

async function during(
  db: FlashVector,
  numbers: Int32Array,
  run: Load,
  work: () => Promise<unknown>,
): Promise<{ rate: number; p99Ms: number; seconds: number }> {
  const monitor = monitorEventLoopDelay({ resolution: 1 });
  let isDone = false;
  monitor.enable();
  const started = performance.now();
  const rate = run(db, numbers, () => isDone);
  await work();
  isDone = true;
  const seconds = (performance.now() - started) / 1000;
  const reached = await rate;
  monitor.disable();
  return { rate: reached, p99Ms: monitor.percentile(99) / 1e6, seconds };
}

async function measureCheckpoints(context: Context): Promise<Section> {
  const count = context.quick ? ENTRIES_QUICK : ENTRIES;
  const many = count.toLocaleString('en-US');
  const numbers = shuffledNumbers(count);
  const folder = path.join(context.folder, 'store');
  const out = section(`checkpoint and recovery, ${many} entries, 16-byte keys, 100-byte strings`, 'entries');
  let db = await open(folder, BY_CALL);
  await fill(db, numbers);
  await db.close();

  const [replayed, replaySeconds] = await timedOpen(folder);
  db = replayed;
  check(db, count);
  out.rows.push({ task: 'replay of the log', rate: count / replaySeconds, detail: `${formatFigure(replaySeconds)} s` });

  await db.checkpoint();
  const alone = db.stats().checkpoints;
  const plain = diskRate(context.folder, alone?.bytes ?? 0);
  const rate = ((alone?.bytes ?? 0) / 1e6 / (alone?.durationMs ?? 1)) * 1000;
  out.rows.push({
    task: 'checkpoint, no load',
    rate: (count * 1000) / (alone?.durationMs ?? 1),
    detail: `${formatFigure(rate)} MB/s, written, synced, read back; plain writing and syncing ${formatFigure(plain)} MB/s`,
  });

  await during(db, numbers, load, () => sleep(1000));
  const ratios: number[] = [];
  const delays: number[] = [];
  for (let round = 0; round < (context.quick ? 1 : 3); round++) {
    const undisturbed = await during(db, numbers, load, () => sleep(3000));
    const disturbed = await during(db, numbers, load, () => db.checkpoint());
    const steady = await during(db, numbers, paced, () => db.checkpoint());
    ratios.push(disturbed.rate / undisturbed.rate);
    delays.push(steady.p99Ms);
    out.rows.push({
      task: `puts beside it, round ${round + 1}`,
      rate: disturbed.rate,
      detail: `${formatFigure(undisturbed.rate)} undisturbed; checkpoint ${formatFigure(disturbed.seconds)} s; loop delay p99 ${formatFigure(disturbed.p99Ms)} ms, undisturbed ${formatFigure(undisturbed.p99Ms)} ms; at ${formatFigure(steady.rate)} puts/s ${formatFigure(steady.p99Ms)} ms`,
    });
  }
  await db.checkpoint();
  await db.close();
  const middle = (values: number[]): number => values.sort((a, b) => a - b)[values.length >>> 1];

  const rates: number[] = [];
  for (let round = 0; round < (context.quick ? 1 : 3); round++) {
    const [recovered, seconds] = await timedOpen(folder);
    check(recovered, count);
    await recovered.close();
    rates.push(count / seconds);
    out.rows.push({
      task: `recovery from the checkpoint, round ${round + 1}`,
      rate: count / seconds,
      detail: `${formatFigure(seconds)} s`,
    });
  }
  removeStores(context.folder);
  out.targets.push(
    { work: 'recovery from a checkpoint', unit: 'million entries/s', target: 1, reached: middle(rates) / 1e6, bound: 'at least' },
    { work: 'replay of the log', unit: 'million records/s', target: 0.6, reached: count / replaySeconds / 1e6, bound: 'at least' },
    { work: 'checkpoint', unit: 'MB/s', target: Math.min(150, plain), reached: rate, bound: 'at least' },
    { work: 'puts beside a checkpoint', unit: 'of undisturbed', target: 0.6, reached: middle(ratios), bound: 'at least' },
    { work: 'event-loop delay p99 beside a checkpoint, 100,000 puts/s', unit: 'ms', target: 5, reached: middle(delays), bound: 'at most' },
  );
  return out;
}

/** Bytes that the files take on disk: a segment that is not full has blocks for its first part only. */
function folderBytes(folder: string): number {
  let sum = 0;
  for (const name of fs.readdirSync(folder)) sum += (fs.statSync(path.join(folder, name), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  return sum;
}

async function measureSpace(context: Context): Promise<Section> {
  const count = context.quick ? 50_000 : 200_000;
  const times = context.quick ? 20 : 100;
  const folder = path.join(context.folder, 'rewritten');
  const out = section(`space on disk of ${count.toLocaleString('en-US')} entries written ${times} times over`, 'puts');
  const db = await open(folder);
  const numbers = shuffledNumbers(count);
  let largest = 0;
  let segments = 0;
  const watch = setInterval(() => {
    const bytes = folderBytes(folder);
    if (bytes > largest) largest = bytes;
    segments = Math.max(segments, fs.readdirSync(folder).filter((name) => name.endsWith('.wal')).length);
  }, 20);
  const started = performance.now();
  for (let i = 0; i < times; i++) await fill(db, numbers);
  const rate = (count * times * 1000) / (performance.now() - started);
  clearInterval(watch);
  const { keyBytes, valueBytes, checkpoints } = db.stats();
  const live = keyBytes + valueBytes;
  await db.checkpoint();
  const kept = fs.readdirSync(folder).filter((name) => name.endsWith('.wal')).length;
  await db.close();
  removeStores(context.folder);
  const limit = 3 * live + 2 * 64 * MIB;
  out.rows.push({
    task: 'FlashVector',
    rate,
    detail: `live ${formatFigure(live / 1e6)} MB, at most ${formatFigure(largest / 1e6)} MB on disk of ${formatFigure(limit / 1e6)}; ${checkpoints?.completed} checkpoints; ${segments} segments at most, ${kept} after a checkpoint`,
  });
  out.targets.push({
    work: `space, written ${times} times over`,
    unit: 'of the limit',
    target: 1,
    reached: largest / limit,
    bound: 'at most',
  });
  return out;
}

export const workload: Workload = {
  title: 'Checkpoints and recovery',
  async run(context) {
    return [await measureCheckpoints(context), await measureSpace(context)];
  },
};
