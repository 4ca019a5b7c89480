/** One thread of the threads workload: attaches to the store it is given, and reads or writes when told to. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach, type FlashVector } from '../../src/index.js';
import { makeDataSet } from './data-set.js';
import { loadLmdb, type LmdbStore } from './engines.js';
import type { ThreadData, ThreadReply, ThreadRequest, ThreadWork } from './thread-messages.js';

/** Operations between two looks at the clock; so many writes are in flight at once. */
const BURST = 1000;

type Burst = (start: number) => Promise<void> | void;

const { store, index, keyCount } = workerData as ThreadData;
const { keys, values } = makeDataSet('object', keyCount);
const port = parentPort;
if (port === null) throw new Error('thread-worker.js runs as a worker of the threads workload');

function missing(key: string): never {
  throw new Error(`no value for ${key}`);
}

// Loops of its own for each engine: see get.ts.

function flashVectorBursts(db: FlashVector): Record<ThreadWork, Burst> {
  const write = async (start: number): Promise<void> => {
    let last: Promise<unknown> | undefined;
    for (let i = start; i < start + BURST; i++) last = db.put(keys[i], values[i]);
    await last;
  };
  const read = (start: number): void => {
    for (let i = start; i < start + BURST; i++) if (db.get(keys[i]) === undefined) missing(keys[i]);
  };
  // How durable a put is, is the store's setting.
  return { read, write, 'write durably': write };
}

function lmdbBursts(db: LmdbStore): Record<ThreadWork, Burst> {
  const write = async (start: number): Promise<void> => {
    let last: Promise<unknown> | undefined;
    for (let i = start; i < start + BURST; i++) last = db.put(keys[i], values[i]);
    await last;
  };
  const writeDurably = async (start: number): Promise<void> => {
    await write(start);
    await db.flushed;
  };
  const read = (start: number): void => {
    for (let i = start; i < start + BURST; i++) if (db.get(keys[i]) === undefined) missing(keys[i]);
  };
  return { read, write, 'write durably': writeDurably };
}

async function openStore(): Promise<{ bursts: Record<ThreadWork, Burst>; close: () => Promise<void> }> {
  if (store.engine === 'flashvector') {
    const db = await attach(store.handle);
    return { bursts: flashVectorBursts(db), close: () => db.close() };
  }
  const lmdb = await loadLmdb();
  if (lmdb instanceof Error) throw lmdb;
  const db: LmdbStore = lmdb.open<unknown, string>({ path: store.path, ...(store.noSync ? { noSync: true } : {}) });
  return { bursts: lmdbBursts(db), close: () => db.close() };
}

const { bursts, close } = await openStore();
let at = (index * keys.length) / 2;

/** Works for a while, and says how much that was. */
async function work(burst: Burst, timeMs: number): Promise<ThreadReply> {
  const started = performance.now();
  let operations = 0;
  for (; performance.now() - started < timeMs; operations += BURST) {
    const burstDone = burst(at);
    if (burstDone !== undefined) await burstDone;
    at = (at + BURST) % keys.length;
  }
  return { type: 'done', operations, elapsedMs: performance.now() - started };
}

async function answer(request: ThreadRequest): Promise<void> {
  if (request.type === 'run') {
    port?.postMessage(await work(bursts[request.work], request.timeMs));
    return;
  }
  await close();
  port?.close();
}

port.on('message', (request: ThreadRequest) => {
  // A failure ends this thread, and its parent is told by the `error` event.
  void answer(request);
});
port.postMessage({ type: 'ready' } satisfies ThreadReply);
