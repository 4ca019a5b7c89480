/** The two promises between snapshots and writers, one thread's step at a time: a program's threads seldom meet exactly here. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { Core } from '../../src/engine/core.js';
import * as L from '../../src/memory/layout.js';
import { takeSlot } from '../../src/memory/registry.js';
import { EPOCH_MASK } from '../../src/memory/ring.js';
import { emptyCore } from '../support/index-harness.js';

const RECORD_BYTES = 64;

function twoThreads(): { reader: Core; writer: Core } {
  const reader = emptyCore(1);
  return { reader, writer: new Core(reader.handle, takeSlot(reader.control, 0)) };
}

const epochOf = (core: Core): number => core.words[L.CONTROL_SNAPSHOT_EPOCH] & EPOCH_MASK;
const busyWord = (core: Core): number => core.threadWord + L.THREAD_BUSY;

void t.test('a write that was planned before a snapshot was opened gets no LSN after it', async (t) => {
  const { reader, writer } = twoThreads();
  const epoch = epochOf(writer);
  const snapshot = reader.snapshots.open();
  const next = reader.control.readLsn(L.CONTROL_NEXT_LSN);
  t.ok(writer.ring.reserve(RECORD_BYTES, 0, epoch) < 0, 'refused');
  t.equal(reader.control.readLsn(L.CONTROL_NEXT_LSN), next, 'no LSN is taken');
  t.equal(writer.words[busyWord(writer)], 0, 'and the thread is not busy');
  const at = writer.ring.reserve(RECORD_BYTES, 0, epochOf(writer));
  t.ok(at >= 0, 'planned again, it goes through');
  t.equal(writer.ring.lsnAt(at), reader.snapshots.lsnOf(snapshot) + 1);
  reader.snapshots.close(snapshot);
});

void t.test('a snapshot is not open before the records up to it are in the tables', async (t) => {
  const { reader, writer } = twoThreads();
  const at = writer.ring.reserve(RECORD_BYTES, 0, epochOf(writer));
  t.ok(at >= 0);
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    const control = new Int32Array(workerData.control);
    parentPort.postMessage('ready');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    Atomics.store(control, workerData.busyWord, 0);`;
  const worker = new Worker(code, { eval: true, workerData: { control: reader.handle.control, busyWord: busyWord(writer) } });
  const ended = once(worker, 'exit');
  await once(worker, 'message');
  t.equal(Atomics.load(writer.words, busyWord(writer)), 1, 'the record is on its way');
  const snapshot = reader.snapshots.open();
  t.equal(Atomics.load(writer.words, busyWord(writer)), 0, 'and has arrived');
  t.equal(reader.snapshots.lsnOf(snapshot), writer.ring.lsnAt(at));
  reader.snapshots.close(snapshot);
  await ended;
});
