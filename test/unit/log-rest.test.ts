/** The log thread's rest while nobody listens for acknowledgements: who may end it, and who must not. */

import t from 'tap';
import { resolveOptions } from '../../src/base/options.js';
import { DURABILITY_INTERVAL, DURABILITY_MEMORY, DURABILITY_SYNC, KIND_WRITE } from '../../src/base/record.js';
import { createMemory } from '../../src/engine/memory.js';
import { Acks } from '../../src/engine/acks.js';
import { open } from '../../src/index.js';
import { Control } from '../../src/memory/control.js';
import * as L from '../../src/memory/layout.js';
import { ThreadMetrics } from '../../src/memory/metrics.js';
import { Region } from '../../src/memory/region.js';
import { RingReader } from '../../src/memory/ring-reader.js';
import { ANY_EPOCH, Ring } from '../../src/memory/ring.js';
import { SimulatedDisk } from '../support/simulated-disk.js';
import { HarnessStore } from '../support/store-harness.js';
import { tempFolder } from '../support/temp.js';

/** Far longer than the suite lets a test run: a rest that is not ended fails. */
const FOREVER_MS = 300_000;

function setUp(): { control: Control; words: Int32Array; ring: Ring; reader: RingReader } {
  const handle = createMemory(resolveOptions({ shards: 1, ringBytes: 65_536 }));
  const control = new Control(handle.control);
  const ring = new Ring(handle.ring, control, L.OWNER_SLOT);
  const reader = new RingReader(handle.ring, control, new Region(handle.staging, control.words, false));
  return { control, words: control.words, ring, reader };
}

void t.test('progress says whether anybody listened', async (t) => {
  const { words, reader } = setUp();
  t.equal(reader.announce(1, 1), false);
  const wait = Atomics.waitAsync(words, L.CONTROL_ACK_EPOCH, Atomics.load(words, L.CONTROL_ACK_EPOCH), FOREVER_MS);
  t.equal(reader.announce(2, 2), true);
  t.equal(reader.announce(3, 3), false, 'told once, it has to come round to listening again');
  t.equal(await wait.value, 'ok');
});

void t.test('who begins to listen after the announcement keeps the log thread from resting', (t) => {
  const { words, ring, reader } = setUp();
  reader.announce(1, 1);
  ring.callFromRest();
  reader.rest(FOREVER_MS);
  t.equal(Atomics.load(words, L.CONTROL_LOG_SLEEPING), 0);
  t.end();
});

void t.test('who begins to listen between the announcement and the rest is seen: the wake word is read before anybody is told', (t) => {
  const { control, words, ring, reader } = setUp();
  const bump = control.bump.bind(control);
  control.bump = (word) => {
    const told = bump(word);
    ring.callFromRest();
    return told;
  };
  t.equal(reader.announce(1, 1), false);
  reader.rest(FOREVER_MS);
  t.equal(Atomics.load(words, L.CONTROL_LOG_SLEEPING), 0);
  t.end();
});

void t.test('acknowledgements that are waited for end a rest', (t) => {
  const { control, words, ring } = setUp();
  Atomics.store(words, L.CONTROL_LOG_STATE, L.LOG_RUNNING);
  Atomics.store(words, L.CONTROL_LOG_SLEEPING, L.LOG_RESTING);
  const acks = new Acks(control, ring, new ThreadMetrics(control, L.OWNER_SLOT), L.OWNER_SLOT);
  const before = Atomics.load(words, L.CONTROL_LOG_WAKE);
  void acks.join(1, DURABILITY_SYNC);
  t.ok(Atomics.load(words, L.CONTROL_LOG_WAKE) > before, 'the first one begins to listen');
  const after = Atomics.load(words, L.CONTROL_LOG_WAKE);
  void acks.join(2, DURABILITY_SYNC);
  t.equal(Atomics.load(words, L.CONTROL_LOG_WAKE), after, 'the next ones are listened for by then');
  control.storeLsn(L.CONTROL_DURABLE, 2);
  control.bump(L.CONTROL_ACK_EPOCH);
  return acks.idle().then(() => acks.dispose());
});

void t.test('a write that waits for room, and a flush, wake a resting log thread', async (t) => {
  const store = await HarnessStore.open(new SimulatedDisk());
  const { words } = store.core;
  const wake = (): number => Atomics.load(words, L.CONTROL_LOG_WAKE);
  // More than the ring of 64 KiB takes: the last ones are deferred.
  const puts = Array.from({ length: 40 }, (_, i) => store.db.put(`key ${i}`, Buffer.alloc(4000)));
  Atomics.store(words, L.CONTROL_LOG_SLEEPING, L.LOG_RESTING);
  let before = wake();
  await new Promise((resolve) => setImmediate(resolve));
  t.ok(wake() > before, 'a deferred write');
  Atomics.store(words, L.CONTROL_LOG_SLEEPING, 0);
  await store.settle(Promise.all(puts));
  Atomics.store(words, L.CONTROL_LOG_SLEEPING, L.LOG_RESTING);
  before = wake();
  const flushed = store.db.flush();
  await new Promise((resolve) => setImmediate(resolve));
  t.ok(wake() > before, 'a flush');
  Atomics.store(words, L.CONTROL_LOG_SLEEPING, 0);
  await store.settle(flushed);
  await store.close();
});

void t.test('whoever wants room, a sync, a new segment or the end keeps the log thread from resting', (t) => {
  for (const word of [L.CONTROL_ROOM_WAITERS, L.CONTROL_SYNC_REQUESTED, L.CONTROL_LOG_ROTATE, L.CONTROL_LOG_STOP]) {
    const { words, reader } = setUp();
    reader.announce(1, 1);
    Atomics.store(words, word, 1);
    reader.rest(FOREVER_MS);
    t.equal(Atomics.load(words, L.CONTROL_LOG_SLEEPING), 0);
  }
  t.end();
});

void t.test('a resting log thread is woken by who listens or wants room, not by a write', (t) => {
  const { words, ring } = setUp();
  const wake = (): number => Atomics.load(words, L.CONTROL_LOG_WAKE);
  for (const [state, byWrite] of [
    [0, 0],
    [L.LOG_RESTING, 0],
    [L.LOG_NAPPING, 1],
    [L.LOG_ASLEEP, 1],
  ]) {
    Atomics.store(words, L.CONTROL_LOG_SLEEPING, state);
    let before = wake();
    ring.wakeLog(DURABILITY_SYNC);
    t.equal(wake() - before, byWrite, `a write, state ${state}`);
    before = wake();
    ring.callLog();
    t.equal(wake() - before, state === 0 ? 0 : 1, `who wants room, state ${state}`);
    before = wake();
    ring.callFromRest();
    t.equal(wake() - before, 1, `who listens, state ${state}`);
  }
  t.end();
});

void t.test('the log thread naps over records that nobody waits for, and not over one that somebody does', (t) => {
  const { ring, reader } = setUp();
  const write = (durability: number): number => {
    const at = ring.reserve(64, 0, ANY_EPOCH);
    if (durability >= 0) ring.publish(at, KIND_WRITE, durability);
    return at;
  };
  t.equal(reader.gather(), true);
  write(DURABILITY_MEMORY);
  write(DURABILITY_MEMORY);
  t.equal(reader.gather(), true, 'they can gather on');
  const begun = write(-1);
  t.equal(reader.gather(), true, 'who publishes it will see that the log thread sleeps');
  write(DURABILITY_INTERVAL);
  t.equal(reader.gather(), false, 'somebody waits, behind one that is not published');
  ring.publish(begun, KIND_WRITE, DURABILITY_SYNC);
  t.equal(reader.take(1024)?.records, 4);
  t.equal(reader.gather(), true);
  for (let bytes = 0; bytes <= 65_536 / 4; bytes += 64) write(DURABILITY_MEMORY);
  t.equal(reader.gather(), false, 'a quarter of the ring is taken');
  while (reader.take(1 << 20) !== undefined);
  write(DURABILITY_SYNC);
  t.equal(reader.gather(), false);
  t.end();
});

void t.test('while a thread writes what nobody waits for, the log thread naps between frames', async (t) => {
  const db = await open(tempFolder(t), { shards: 2, durability: 'memory', snapshotIntervalSeconds: 0 });
  const before = db.stats().log;
  const started = performance.now();
  let puts = 0;
  for (; performance.now() - started < 300; puts++) void db.put(`key ${puts % 5000}`, puts);
  await db.flush();
  const elapsedMs = performance.now() - started;
  const { frames, records } = db.stats().log;
  // One in a millisecond; some 20 where it never naps.
  t.ok(frames - before.frames <= elapsedMs + 20, `${frames - before.frames} frames in ${Math.round(elapsedMs)} ms for ${puts} writes`);
  t.equal(records - before.records, puts);
  await db.close();
});

void t.test('while a thread only writes, the log thread does not sync for nobody', async (t) => {
  const db = await open(tempFolder(t), { shards: 2, snapshotIntervalSeconds: 0 });
  await db.put('first', 0);
  const before = db.stats().log;
  const started = performance.now();
  let last: Promise<number> | undefined;
  let puts = 0;
  for (; performance.now() - started < 300; puts++) last = db.put(`key ${puts % 5000}`, puts);
  await last;
  const elapsedMs = performance.now() - started;
  const syncs = db.stats().log.syncs - before.syncs;
  // One in 0.6 ms, and what the ends take; 5 in a millisecond without the rest.
  t.ok(syncs <= 2 * elapsedMs + 20, `${syncs} syncs in ${Math.round(elapsedMs)} ms for ${puts} writes`);
  t.equal(db.stats().log.records - before.records, puts);
  await db.close();
});
