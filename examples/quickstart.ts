/**
 * The quickstart, `npm run quickstart`: stores every `package.json` under `node_modules`, durably, from three
 * threads at once; reads all of them back from all three; closes, reopens, and proves that nothing is missing.
 * Ends with code 1 if anything is.
 */

import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Worker } from 'node:worker_threads';
import { open, type FlashVector, type Stats } from '../src/index.js';
import {
  findDocuments,
  loadDocuments,
  readDocuments,
  writeDocuments,
  type Documents,
  type Work,
  type WorkerInput,
  type WorkerReply,
  type WorkerRequest,
} from './quickstart-documents.js';

const ROOT = path.resolve('node_modules');
const FOLDER = path.resolve('quickstart-data');
const WORKERS = 2;

/** What a user is told, without a stack. */
class Failure extends Error {}

/** The next reply of a worker; rejects when the worker fails. */
async function nextReply(worker: Worker): Promise<WorkerReply> {
  return (await once(worker, 'message'))[0] as WorkerReply;
}

async function ask(worker: Worker, request: WorkerRequest): Promise<Work> {
  worker.postMessage(request);
  const reply = await nextReply(worker);
  if (reply.type === 'ready') throw new Failure('a worker answered out of turn');
  return reply;
}

async function startWorkers(db: FlashVector, shares: readonly string[][], all: string[]): Promise<Worker[]> {
  const workers = shares.map((share) => {
    // The handle is plain data: it goes where any other data goes.
    const workerData: WorkerInput = { handle: db.handle, root: ROOT, share, all };
    return new Worker(new URL('./quickstart-worker.js', import.meta.url), { workerData });
  });
  await Promise.all(workers.map(nextReply));
  return workers;
}

async function closeWorkers(workers: readonly Worker[]): Promise<void> {
  const ended = workers.map((worker) => once(worker, 'exit'));
  for (const worker of workers) worker.postMessage('close' satisfies WorkerRequest);
  await Promise.all(ended);
}

/** One of `count` equal shares. */
function shareOf<T>(items: readonly T[], index: number, count: number): T[] {
  return items.filter((_, i) => i % count === index);
}

function printLine(...cells: (string | number)[]): void {
  console.log(cells.map((cell, at) => (at === 0 ? `  ${String(cell).padEnd(22)}` : String(cell).padStart(12))).join(''));
}

function printWork(what: string, works: readonly Work[]): void {
  const count = works.reduce((sum, work) => sum + work.count, 0);
  const ms = Math.max(...works.map((work) => work.ms));
  printLine(what, count.toLocaleString('en-US'), `${ms.toFixed(0)} ms`, `${Math.round((count * 1000) / ms).toLocaleString('en-US')}/s`);
}

function printLatencies({ latencies, log }: Stats): void {
  console.log('');
  printLine('latency', 'p50', 'p99', 'p99.9', 'max');
  const rows = {
    get: latencies.get,
    'put, in memory': latencies.putApplied,
    'put, durable': latencies.putDurable,
    'sync of the log': latencies.sync,
  };
  for (const [name, { p50Us, p99Us, p999Us, maxUs }] of Object.entries(rows)) {
    printLine(name, ...[p50Us, p99Us, p999Us, maxUs].map((us) => (us >= 1000 ? `${(us / 1000).toFixed(1)} ms` : `${us.toFixed(1)} µs`)));
  }
  console.log(`\n  ${log.records} records in ${log.syncs} syncs of the log, ${log.bytes.toLocaleString('en-US')} bytes`);
}

async function writeAndRead(documents: Documents): Promise<void> {
  const db = await open(FOLDER);
  try {
    const all = [...documents.keys()];
    const shares = Array.from({ length: WORKERS }, (_, i) => shareOf(all, i + 1, WORKERS + 1));
    const own: Documents = new Map(shareOf([...documents], 0, WORKERS + 1));
    const workers = await startWorkers(db, shares, all);
    printLine('', 'documents', 'time', 'rate');
    printWork('written, 3 threads', await Promise.all([...workers.map((worker) => ask(worker, 'write')), writeDocuments(db, own)]));
    const reads = workers.map((worker) => ask(worker, 'read'));
    printWork('read, 3 threads', [readDocuments(db, all), ...(await Promise.all(reads))]);
    await closeWorkers(workers);
    printLatencies(db.stats());
  } finally {
    await db.close();
  }
}

/** @throws Failure naming what is missing or different */
async function reopenAndProve(documents: Documents): Promise<void> {
  const startedMs = performance.now();
  const db = await open(FOLDER, { createIfMissing: false });
  const recoveryMs = performance.now() - startedMs;
  try {
    const wrong = [...documents].filter(([key, value]) => !isDeepStrictEqual(db.get(key), value));
    for (const [key] of wrong.slice(0, 10)) console.error(`  ${db.has(key) ? 'different' : 'missing'}: ${key}`);
    if (wrong.length > 0) throw new Failure(`${wrong.length} of ${documents.size} documents are missing or different after reopening`);
    if (db.size !== documents.size) throw new Failure(`the store has ${db.size} keys after reopening, and ${documents.size} were written`);
    console.log(
      `\nClosed and reopened: recovery took ${recoveryMs.toFixed(0)} ms. All ${db.size} documents are there, each deep-equal to its file.`,
    );
  } finally {
    await db.close();
  }
}

async function main(): Promise<void> {
  const found = findDocuments(ROOT);
  if (found.length === 0)
    throw new Failure(`there is no package.json under ${ROOT}; run \`npm install\` first, in the folder where you start this`);
  const documents = loadDocuments(ROOT, found);
  const skipped = found.length - documents.size;
  if (documents.size === 0) throw new Failure(`none of the ${found.length} package.json files under ${ROOT} parses`);
  console.log(
    `FlashVector quickstart: ${documents.size} package.json files under node_modules, ${skipped} skipped because they do not parse.\n`,
  );
  fs.rmSync(FOLDER, { recursive: true, force: true });
  try {
    await writeAndRead(documents);
    await reopenAndProve(documents);
  } finally {
    fs.rmSync(FOLDER, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Failure ? `quickstart: ${error.message}` : error);
  // At once: a worker that waits for the next message would keep the process alive.
  process.exit(1);
}
