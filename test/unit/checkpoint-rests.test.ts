/** When a checkpoint's threads rest: while the store is written to, unless its owner's thread has no time to spare, its log grows fast, and the checkpoint is short. */

import t from 'tap';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { AckPoll, polledMs } from '../../src/engine/ack-poll.js';
import { Checkpointer } from '../../src/engine/checkpoints.js';
import { OwnerLoad } from '../../src/engine/owner-load.js';
import type { Pool } from '../../src/engine/pool.js';
import type { Writer } from '../../src/engine/writer.js';
import * as L from '../../src/memory/layout.js';
import * as M from '../../src/memory/metrics.js';
import type { CheckpointTask } from '../../workers/checkpoint.js';
import { emptyCore } from '../support/index-harness.js';
import { tempFolder } from '../support/temp.js';

/** Longer than between two of its looks at the load. */
const LOOKS_MS = 600;
/** Bytes logged every 5 ms, or in every turn of a loop that takes 20: more and less than what makes a checkpoint hurry. */
const FAST = 1_000_000;
const SLOW = 100_000;

/** A checkpointer whose tasks are noted and not carried out, over a log that does at once what it is told. */
function harness(
  t: Tap.Test,
  directory: string,
): { checkpointer: Checkpointer; counters: Float64Array; rests: () => Promise<number[]>; makeLong: () => void } {
  const core = emptyCore(4);
  Atomics.store(core.words, L.CONTROL_LOG_STATE, L.LOG_RUNNING);
  const log = setInterval(() => {
    Atomics.store(core.words, L.CONTROL_LOG_ROTATE, 0);
    Atomics.notify(core.words, L.CONTROL_LOG_ROTATE);
  }, 1);
  t.teardown(() => clearInterval(log));
  const tasks: CheckpointTask[] = [];
  const pool = {
    threads: 2,
    run: (_: string, task: CheckpointTask) => {
      tasks.push(task);
      const part = { part: 0, bytes: 0, entries: 0, blocks: 1, checksum: 0n };
      return Promise.resolve(task.kind === 'write' ? { part } : { retired: 0 });
    },
  };
  const writer = { makeDurable: () => Promise.resolve() };
  const checkpointer = new Checkpointer(
    core,
    writer as unknown as Writer,
    pool as unknown as Pool,
    {
      directory,
      files: { kind: 'node' } as never,
      storeId: Buffer.alloc(16),
      segmentBytes: 1 << 20,
      intervalMs: 0,
      logBytes: Number.MAX_SAFE_INTEGER,
    },
    { number: 0, lsn: 0, entries: 0, bytes: 0, logBytes: 0 },
    () => undefined,
  );
  const rests = async (): Promise<number[]> => {
    tasks.length = 0;
    await checkpointer.request();
    return tasks.flatMap((task) => (task.kind === 'write' || task.kind === 'publish' ? [task.restMs] : []));
  };
  const makeLong = (): void => {
    for (const { region } of core.shards) Object.defineProperty(region, 'buffer', { value: { byteLength: 64 * 1024 * 1024 } });
  };
  return { checkpointer, counters: new M.ThreadMetrics(core.control, L.LOG_SLOT).counters, rests, makeLong };
}

void t.test('rests while the store is written to, unless its thread has no time to spare', async (t) => {
  const { checkpointer, counters, rests, makeLong } = harness(t, tempFolder(t));
  await sleep(LOOKS_MS);
  t.same(await rests(), [0, 0], 'nobody writes');

  let logged = FAST;
  const writes = setInterval(() => (counters[M.COUNTER_LOG_BYTES] += logged), 5);
  await sleep(LOOKS_MS);
  t.same(await rests(), [0.2, 0.2], 'parts and reading back, while somebody writes who has time to spare');

  let isOver = false;
  const spin = async (): Promise<void> => {
    while (!isOver) {
      for (const end = performance.now() + 20; performance.now() < end;);
      await turn();
    }
  };
  const spinning = spin();
  await sleep(LOOKS_MS);
  t.same(await rests(), [0, 0], 'no time to spare, and a short checkpoint');
  logged = SLOW;
  await sleep(LOOKS_MS);
  t.same(await rests(), [0.1, 0.1], 'no time to spare, it seems, and little that is logged');
  logged = FAST;
  await sleep(LOOKS_MS);
  t.same(await rests(), [0, 0]);
  makeLong();
  t.same(await rests(), [0.1, 0.1], 'no time to spare, and a long one');
  isOver = true;
  await spinning;
  clearInterval(writes);
  await checkpointer.stop();
});

void t.test('how long it rests goes by the time that its owner has to spare, the log, and its own length', (t) => {
  const looksMs = 100;
  const cases: [share: number, mebibytes: number, short: number, long: number][] = [
    [0.1, 0.5, 0, 0],
    [0.6, 0.5, 0.2, 0.2],
    [0.1, 2, 0.2, 0.2],
    [0.1, 500, 0.2, 0.2],
    [0.79, 500, 0.2, 0.2],
    [0.81, 0.5, 0.1, 0.1],
    [0.81, 63, 0.1, 0.1],
    [0.81, 65, 0, 0.1],
    [0.94, 65, 0, 0.1],
    [0.96, 15, 0.1, 0.1],
    [0.96, 17, 0, 0.1],
    [0.96, 500, 0, 0.1],
  ];
  for (const [share, mebibytes, short, long] of cases) {
    let nowMs = 5000;
    let logged = 0;
    const load = new OwnerLoad(
      looksMs,
      () => nowMs,
      () => ({ active: share * nowMs, idle: (1 - share) * nowMs }),
    );
    const pass = (ms: number): void => {
      nowMs += ms;
      logged += (mebibytes * 1024 * 1024 * ms) / 1000;
      load.look(logged);
    };
    pass(looksMs / 2);
    t.same([load.restMs(false), load.restMs(true)], [0, 0], 'nothing is known yet');
    pass(looksMs);
    t.same([load.restMs(false), load.restMs(true)], [short, long], `${share} of its time, ${mebibytes} MiB a second`);
  }
  t.end();
});

void t.test('regression: a checkpoint at once after opening was taken for one beside a busy loop', async (t) => {
  // Until its first turn a loop has no utilization.
  await turn();
  const { checkpointer, rests } = harness(t, tempFolder(t));
  for (const end = performance.now() + 5; performance.now() < end;);
  t.same(await rests(), [0, 0]);
  await checkpointer.stop();
});

/** A clock of its own for a loop that is kept turning: only runs ahead. */
let fakeMs = 1e9;

/** Three milliseconds by that clock in which a loop turns for nothing else. */
function pollForAWhile(): void {
  const asked: (() => void)[] = [];
  const poll = new AckPoll(new Int32Array(1024), 512, Infinity, () => undefined, {
    now: () => fakeMs,
    soon: (run) => void asked.push(run),
    processors: 2,
  });
  poll.begin();
  while (asked.length === 0) {
    fakeMs += 2;
    poll.end();
    poll.begin();
  }
  for (let run = asked.pop(); run !== undefined; run = asked.pop()) {
    fakeMs += 0.02;
    run();
  }
}

void t.test('a loop that is kept turning for acknowledgements has time to spare', async (t) => {
  const { checkpointer, counters, rests } = harness(t, tempFolder(t));
  const writes = setInterval(() => (counters[M.COUNTER_LOG_BYTES] += FAST), 5);
  let isOver = false;
  let isPolled = true;
  const spin = async (): Promise<void> => {
    while (!isOver) {
      for (const end = performance.now() + 20; performance.now() < end;);
      if (isPolled) pollForAWhile();
      await turn();
    }
  };
  const spinning = spin();
  await sleep(LOOKS_MS);
  const before = performance.eventLoopUtilization();
  const polledBefore = polledMs();
  await sleep(LOOKS_MS);
  t.ok(performance.eventLoopUtilization(before).utilization > 0.95, 'it looks as if it had none');
  t.ok(polledMs() - polledBefore > LOOKS_MS * 0.08, 'but a tenth of it is nothing else');
  t.same(await rests(), [0.1, 0.1]);
  isPolled = false;
  await sleep(LOOKS_MS);
  t.same(await rests(), [0, 0], 'and none when it has work again');
  isOver = true;
  await spinning;
  clearInterval(writes);
  await checkpointer.stop();
});
