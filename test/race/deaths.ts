/**
 * Threads that die under load, in every way a thread can: terminated, by `process.exit`, by an uncaught error, out of
 * memory; at random moments, several at a time, while the owner and other threads go on. The store never turns
 * read-only, every key's history stays linearizable, batches stay whole, and nothing leaks.
 * `npm run test:crash -- --deaths N` runs it by hand.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { open, type FlashVector } from '../../src/index.js';
import { hammer } from '../fixture/hammer.js';
import { findViolation, type RecordedOperation } from '../support/linearizability.js';
import { randomFrom } from '../support/random.js';
import { RECORD_FIELDS, type VictimPlan } from '../support/victim-plan.js';

const RECORDS_MAX = 3000;
const KEYS = 12;
const VICTIMS_AT_ONCE = 3;
const DEATHS_PER_PHASE = 24;
const KINDS = ['r', 'r', 'w', 'd'] as const;

export interface DeathsResult {
  deaths: number;
  operations: number;
  /** Longest single put of the owner, acknowledged in memory, in ms. */
  longestMs: number;
  /** Resident memory after a quarter of the deaths, and at the end, in MiB. */
  earlyMiB: number;
  lateMiB: number;
}

function readNotes(notes: SharedArrayBuffer): RecordedOperation[] {
  const records = new Float64Array(notes);
  return Array.from({ length: records[0] }, (_, i) => {
    const [kind, key, value, start, end] = records.subarray(1 + i * RECORD_FIELDS);
    return { kind: KINDS[kind], key, value, start, end };
    // A read that was not finished was never noted.
  });
}

async function oneDeath(db: FlashVector, plan: VictimPlan): Promise<RecordedOperation[]> {
  const notes = new SharedArrayBuffer((1 + RECORDS_MAX * RECORD_FIELDS) * 8);
  const worker = new Worker(new URL('../fixture/victim.js', import.meta.url), {
    workerData: { handle: db.handle, plan, notes },
    resourceLimits: plan.death === 'memory' ? { maxOldGenerationSizeMb: 24 } : {},
    stderr: true,
  });
  let failure: unknown;
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  worker.on('error', (error: Error & { code?: string }) => {
    const expected = /ends by an uncaught error/.test(error.message) || error.code === 'ERR_WORKER_OUT_OF_MEMORY';
    if (!expected) failure = error;
  });
  await Promise.race([new Promise((resolve) => worker.once('message', resolve)), ended]);
  if (plan.death === 'terminate') {
    await new Promise((resolve) => setTimeout(resolve, plan.afterMs));
    await worker.terminate();
  }
  await ended;
  if (failure !== undefined) throw failure;
  return readNotes(notes);
}

/**
 * Leaves out the writes whose thread died before they were acknowledged, and whose value nobody ever read: whether they took
 * effect cannot be told, and each would double the orders to be searched.
 */
function withoutUnseen(history: readonly RecordedOperation[]): RecordedOperation[] {
  const seen = new Set<number>();
  for (const { kind, value } of history) if (kind === 'r') seen.add(value);
  return history.filter(({ kind, end, value }) => kind !== 'w' || end !== Infinity || seen.has(value));
}

/** A moment of the store: keys in order, halves that belong together, as many keys as there are values. */
function checkOrder(db: FlashVector, where: string): void {
  const snapshot = db.snapshot();
  try {
    const keys = [...snapshot.keys()] as string[];
    for (let i = 1; i < keys.length; i++) if (keys[i - 1] >= keys[i]) throw new Error(`${where}: ${keys[i]} comes behind ${keys[i - 1]}`);
    for (const key of keys) if (!snapshot.has(key)) throw new Error(`${where}: ${key} is in the index and not in the table`);
    if (snapshot.get('debit') !== snapshot.get('credit')) throw new Error(`${where}: half of a transaction`);
    const pair = [snapshot.get('left'), snapshot.get('right')] as ({ stamp: number } | undefined)[];
    if (pair[0]?.stamp !== pair[1]?.stamp) throw new Error(`${where}: half of a batch in a snapshot`);
  } finally {
    snapshot.close();
  }
}

/** After the deaths: what the dead had open is closed, what was kept for them is freed, the index holds what the tables hold. */
async function checkReleased(db: FlashVector, where: string): Promise<void> {
  for (let i = 0; i < 300 && (db.stats().snapshots.open > 0 || db.stats().snapshots.versions > 0); i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  const { snapshots, entries } = db.stats();
  if (snapshots.open > 0 || snapshots.versionBytes > 0) throw new Error(`${where}: ${JSON.stringify(snapshots)} stay`);
  const counted = db.count();
  if (counted !== entries) throw new Error(`${where}: ${counted} keys in order, ${entries} entries`);
}

/** @throws Error naming what is wrong */
async function phase(db: FlashVector, number: number, deaths: number, random: () => number): Promise<RecordedOperation[]> {
  const firstKey = number * KEYS;
  const histories: Promise<RecordedOperation[]>[] = [];
  let started = 0;
  const lane = async (): Promise<void> => {
    while (started < deaths) {
      const index = ++started;
      const draw = random();
      const plan: VictimPlan = {
        death: draw < 0.7 ? 'terminate' : draw < 0.82 ? 'exit' : draw < 0.96 ? 'throw' : 'memory',
        afterMs: random() * 12,
        firstKey,
        keys: KEYS,
        firstStamp: index * 10_000_000,
        size: random() < 0.3 ? 3000 : 100,
        seed: Math.floor(random() * 0x7fff_ffff),
      };
      const history = oneDeath(db, plan);
      histories.push(history);
      await history;
    }
  };
  await Promise.all(Array.from({ length: VICTIMS_AT_ONCE }, lane));
  return (await Promise.all(histories)).flat();
}

/** @param deadlineMs stops after the phase in which it passes */
export async function runDeaths(total: number, seed: number, deadlineMs: number): Promise<DeathsResult> {
  const random = randomFrom(seed);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'flashvector-deaths-'));
  const db = await open(folder, { durability: 'memory', shards: 2, ringBytes: 131_072, walSegmentBytes: 1024 * 1024 });
  const result: DeathsResult = { deaths: 0, operations: 0, longestMs: 0, earlyMiB: 0, lateMiB: 0 };
  const resident = (): number => Math.round(process.memoryUsage().rss / 1024 / 1024);
  db.on('readonly', (cause) => {
    throw new Error(`seed ${seed}: the store turned read-only after ${result.deaths} deaths`, { cause });
  });
  try {
    for (let number = 0; result.deaths < total && performance.now() < deadlineMs; number++) {
      const deaths = Math.min(DEATHS_PER_PHASE, total - result.deaths);
      let running = true;
      const own: RecordedOperation[] = [];
      const owner = (async () => {
        for (let turn = 0; running; turn++) {
          const started = performance.now();
          await db.put('pulse', turn);
          result.longestMs = Math.max(result.longestMs, performance.now() - started);
          checkOrder(db, `seed ${seed}, phase ${number}`);
          const left = db.get('left') as { stamp: number } | undefined;
          if (left !== undefined && db.get('right') === undefined) throw new Error('half of a batch');
          const plan = { thread: 900 + (turn % 90), keys: KEYS, operations: 40, size: 300, seed: seed + number * 1000 + turn };
          if (turn < 90) own.push(...(await hammer(db, plan, number * KEYS)));
          await new Promise((resolve) => setTimeout(resolve, 2));
        }
      })();
      const histories = await phase(db, number, deaths, random).finally(() => (running = false));
      await owner;
      const history = [...own, ...histories];
      const violation = findViolation(withoutUnseen(history));
      if (violation !== undefined) throw new Error(`seed ${seed}, phase ${number}: the history of key${violation} cannot be ordered`);
      const pair = [db.get('left'), db.get('right')] as ({ stamp: number } | undefined)[];
      if (pair[0]?.stamp !== pair[1]?.stamp) throw new Error(`seed ${seed}, phase ${number}: a torn batch`);
      checkOrder(db, `seed ${seed}, phase ${number}`);
      await checkReleased(db, `seed ${seed}, phase ${number}`);
      const { threads, status } = db.stats();
      if (status !== 'open' || threads !== 1) throw new Error(`seed ${seed}, phase ${number}: ${status}, ${threads} threads`);
      for (let key = number * KEYS; key < (number + 1) * KEYS; key++) await db.del(`key${key}`);
      result.deaths += deaths;
      result.operations += history.length;
      if (result.deaths >= total / 4 && result.earlyMiB === 0) result.earlyMiB = resident();
    }
    result.lateMiB = resident();
    const { memory } = db.stats();
    if (memory.usedBytes > 4 * 1024 * 1024) throw new Error(`seed ${seed}: ${memory.usedBytes} bytes in use by next to nothing`);
    await db.close();
    const again = await open(folder);
    await again.close();
    return result;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
