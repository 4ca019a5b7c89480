/** The indexer's thread (src/engine/indexer.ts): puts waiting keys into ordered indexes, a few at a time. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { FlashVectorError } from '../src/base/errors.js';
import { Bell } from '../src/memory/bell.js';
import { Control } from '../src/memory/control.js';
import * as L from '../src/memory/layout.js';
import { Region } from '../src/memory/region.js';
import { claimSlot, freeSlot } from '../src/memory/registry.js';
import { giveWay } from '../src/platform/niceness.js';
import { systemThreadId } from '../src/platform/thread-life.js';
import { OrderedIndex } from '../src/table/ordered-index.js';

export type IndexerMessage =
  | { kind: 'store'; control: SharedArrayBuffer; shards: SharedArrayBuffer[]; index: SharedArrayBuffer }
  | { kind: 'end' };

interface Store {
  control: Control;
  index: OrderedIndex;
}

/** A writer adds some dozen keys to a queue meanwhile; a shorter nap wakes more often than it brings. */
const NAP_MS = 0.5;
/**
 * Who writes waits for no key to be settled, so with three threads for two processors it should be this one that waits: but not for long, or queues become crowded, and the
 * writers settle the keys.
 */
const NICENESS = 5;
/** Naps in a row after which it sleeps until somebody rings. */
const NAPS_MAX = 10;
const SLEEP_MS = 1000;
const DROPPED_BYTES_MAX = 1024 * 1024 * 1024;

const bell = new Bell(workerData as SharedArrayBuffer);
const stores = new Set<Store>();
let isEnding = false;
let isGarbageLeft = false;
/** Memory of stores that were closed since all garbage was collected last. */
let droppedBytes = 0;

function receive(): void {
  if (parentPort === null) return;
  for (let received = receiveMessageOnPort(parentPort); received !== undefined; received = receiveMessageOnPort(parentPort)) {
    const message = received.message as IndexerMessage;
    if (message.kind === 'end') {
      isEnding = true;
      continue;
    }
    const control = new Control(message.control);
    claimSlot(control, L.INDEXER_SLOT, systemThreadId());
    const regions = message.shards.map((buffer) => new Region(buffer, control.words));
    stores.add({ control, index: new OrderedIndex(new Region(message.index, control.words, true, true), regions, L.INDEXER_SLOT + 1) });
  }
}

function drop(store: Store): void {
  stores.delete(store);
  freeSlot(store.control, L.INDEXER_SLOT);
  droppedBytes += store.index.regions.reduce((sum, { buffer }) => sum + buffer.byteLength, store.index.region.buffer.byteLength);
  isGarbageLeft = true;
}

/**
 * This thread makes next to no garbage, so nothing would ever collect what it holds of the memory of closed stores. Young garbage, which that is
 * where stores are closed soon, is collected at once; all of it only when it may be much, because it costs optimized code.
 */
function collectGarbage(): void {
  isGarbageLeft = false;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as ((options: { type: 'minor' | 'major' }) => void) | undefined;
  collect?.({ type: droppedBytes > DROPPED_BYTES_MAX ? 'major' : 'minor' });
  if (droppedBytes > DROPPED_BYTES_MAX) droppedBytes = 0;
}

function settleAll(): boolean {
  let found = false;
  for (const store of stores) {
    if (store.control.status >= L.STATUS_CLOSED) {
      drop(store);
      continue;
    }
    try {
      if (store.index.settleInSlices()) found = true;
    } catch (error) {
      if (!(error instanceof FlashVectorError)) throw error;
      // The lock's holder is stuck, or the system has no memory: who writes or reads meets the same, and can say so.
      Atomics.store(store.control.words, L.CONTROL_INDEXER, L.INDEXER_NONE);
      drop(store);
    }
  }
  return found;
}

/** The last look before it sleeps: a store may have been assigned, and rung for, since the messages were read. */
function hasWork(): boolean {
  receive();
  return isEnding || settleAll();
}

function run(): void {
  giveWay(NICENESS);
  let naps = 0;
  for (;;) {
    receive();
    if (isEnding) break;
    const wasBusy = settleAll();
    if (isGarbageLeft) collectGarbage();
    if (wasBusy) {
      naps = 0;
    } else if (++naps < NAPS_MAX) {
      bell.nap(NAP_MS);
    } else {
      bell.sleep(SLEEP_MS, hasWork);
    }
  }
  for (const store of stores) drop(store);
}

run();
