/** When the event loop is kept turning for an acknowledgement: in chains of writes, where it pays, and never where it takes the processor from others. */

import { availableParallelism } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { resolveOptions } from '../../src/base/options.js';
import { DURABILITY_INTERVAL, DURABILITY_SYNC } from '../../src/base/record.js';
import { AckPoll, polledMs, type LoopClock } from '../../src/engine/ack-poll.js';
import { Acks } from '../../src/engine/acks.js';
import { createMemory } from '../../src/engine/memory.js';
import { open } from '../../src/index.js';
import { Control } from '../../src/memory/control.js';
import * as L from '../../src/memory/layout.js';
import { ThreadMetrics } from '../../src/memory/metrics.js';
import { Ring } from '../../src/memory/ring.js';
import { tempFolder } from '../support/temp.js';

const THREAD_WORD = 512;
/** What a round of the loop takes here. */
const TURN_MS = 0.01;
/** What a thread does between an acknowledgement and its next wait. */
const WRITE_MS = 0.02;
const WAITS_UNTIL_DECIDED = 4 + 64;

/** A loop whose time passes only when it is told to. */
class FakeLoop implements LoopClock {
  nowMs = 1000;
  turns = 0;
  readonly #queue: (() => void)[] = [];

  constructor(readonly processors: number) {}

  now(): number {
    return this.nowMs;
  }

  soon(run: () => void): void {
    this.#queue.push(run);
  }

  /** Lets time pass: in rounds of the loop as long as somebody asks for one, asleep otherwise. @returns rounds */
  pass(ms: number): number {
    const until = this.nowMs + ms;
    let turns = 0;
    while (this.#queue.length > 0 && this.nowMs + TURN_MS < until) {
      this.nowMs += TURN_MS;
      turns++;
      const run = this.#queue.shift() as () => void;
      run();
    }
    this.nowMs = until;
    this.turns += turns;
    return turns;
  }
}

interface Bench {
  loop: FakeLoop;
  words: Int32Array;
  /** One write after the other, each of which is waited for, which takes so long when the loop sleeps, and when it is polled. @returns the waits that were polled at some time */
  chain: (waits: number, sleptMs: number, polledWaitMs: number, gapMs?: number, othersWhileSlept?: number) => number;
}

function setUp(maxMs = 0.3, processors = 2): Bench {
  const loop = new FakeLoop(processors);
  const words = new Int32Array(1024);
  const poll = new AckPoll(words, THREAD_WORD, maxMs, () => undefined, loop);
  const chain = (waits: number, sleptMs: number, polledWaitMs: number, gapMs = WRITE_MS, othersWhileSlept = 0): number => {
    let polled = 0;
    for (let i = 0; i < waits; i++) {
      poll.begin();
      // A round of the loop tells whether it is kept turning.
      const isPolled = loop.pass(2 * TURN_MS) > 0;
      if (isPolled) polled++;
      loop.pass((isPolled ? polledWaitMs : sleptMs) - 2 * TURN_MS);
      words[L.CONTROL_WRITTEN + L.LSN_LOW] += isPolled ? 1 : 1 + othersWhileSlept;
      poll.end();
      loop.pass(gapMs);
    }
    return polled;
  };
  return { loop, words, chain };
}

void t.test('a chain of writes is polled once a trial has shown that it pays', (t) => {
  const { loop, chain } = setUp();
  const before = polledMs();
  t.equal(chain(WAITS_UNTIL_DECIDED, 0.2, 0.15), 32, 'half of the trial');
  t.equal(chain(100, 0.2, 0.15), 100);
  t.ok(polledMs() - before > 130 * 0.1, 'the time is counted');
  t.ok(polledMs() - before <= loop.turns * TURN_MS + 1e-6, 'and no more than was spent');
  t.end();
});

void t.test('writes that do not follow each other closely are never polled', (t) => {
  const { loop, chain } = setUp();
  t.equal(chain(2000, 0.2, 0.15, 0.12), 0);
  t.equal(loop.turns, 0);
  t.end();
});

void t.test('the first waits of a chain are not polled, so that short ones cost nothing', (t) => {
  const { loop, chain } = setUp();
  for (let i = 0; i < 500; i++) {
    chain(4, 0.2, 0.15);
    loop.pass(5);
  }
  t.equal(loop.turns, 0);
  t.end();
});

void t.test('where polling does harm it is tried less and less', (t) => {
  const { chain } = setUp();
  const polled = [chain(10_000, 0.2, 0.4), chain(10_000, 0.2, 0.4), chain(10_000, 0.2, 0.4)];
  t.ok(polled[0] <= 8 * 32, `${polled[0]} of the first 10,000`);
  t.ok(polled[2] <= 2 * 32, `${polled[2]} of the last`);
  t.ok(polled[2] > 0, 'but not given up');
  t.end();
});

void t.test('what only takes as long as sleeping is not worth it', (t) => {
  const { chain } = setUp();
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.195);
  t.equal(chain(100, 0.2, 0.195), 0);
  t.end();
});

void t.test('what others lose counts as well', (t) => {
  const { chain } = setUp();
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.15, WRITE_MS, 1);
  t.equal(chain(100, 0.2, 0.15, WRITE_MS, 1), 0);
  t.end();
});

void t.test('LSNs past 2^31 and 2^32 count as any', (t) => {
  for (const low of [0x7fff_ffff - 48, -48]) {
    const { words, chain } = setUp();
    words[L.CONTROL_WRITTEN + L.LSN_LOW] = low;
    chain(WAITS_UNTIL_DECIDED, 0.2, 0.15);
    t.equal(chain(100, 0.2, 0.15), 100);
  }
  t.end();
});

void t.test('it comes back when others have left the processor', (t) => {
  const { chain } = setUp();
  chain(10_000, 0.2, 0.4);
  chain(30_000, 0.2, 0.15);
  t.ok(chain(1000, 0.2, 0.15) > 900);
  t.end();
});

void t.test('one slow sync does not decide a trial', (t) => {
  const { chain } = setUp();
  chain(4 + 8 + 1, 0.2, 0.15);
  // A stretch that is polled.
  chain(1, 30, 30);
  chain(WAITS_UNTIL_DECIDED - 14, 0.2, 0.1);
  t.equal(chain(100, 0.2, 0.1), 100);
  t.end();
});

void t.test('a wait that takes longer than allowed sleeps then', (t) => {
  const { loop, chain } = setUp(0.25);
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.15);
  const before = loop.turns;
  chain(1, 50, 50);
  const turns = loop.turns - before;
  t.ok(turns > 20 && turns <= 26, `${turns} rounds of 0.01 ms`);
  t.end();
});

void t.test('the loop stops turning when the wait has ended', (t) => {
  const { loop, chain } = setUp();
  chain(WAITS_UNTIL_DECIDED + 1, 0.2, 0.15);
  t.ok(loop.pass(10) <= 1);
  t.equal(loop.pass(10), 0);
  t.end();
});

void t.test('no more threads wait than leave the log thread a processor', (t) => {
  const { words, chain } = setUp(0.3, 3);
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.15);
  words[L.CONTROL_ACK_WAITERS] = 1;
  t.equal(chain(10, 0.2, 0.15), 10);
  words[L.CONTROL_ACK_WAITERS] = 2;
  t.equal(chain(10, 0.2, 0.15), 0);
  t.equal(words[L.CONTROL_ACK_WAITERS], 2, 'each has taken itself off the count');
  t.end();
});

void t.test('another thread that begins to wait ends it', (t) => {
  const loop = new FakeLoop(2);
  const words = new Int32Array(1024);
  const poll = new AckPoll(words, THREAD_WORD, 10, () => undefined, loop);
  const wait = (ms: number): void => {
    poll.begin();
    loop.pass(ms);
    poll.end();
    loop.pass(WRITE_MS);
  };
  for (let i = 0; i < 12; i++) wait(2);
  poll.begin();
  t.ok(loop.pass(1) > 50);
  words[L.CONTROL_ACK_WAITERS]++;
  t.equal(loop.pass(1), 1);
  t.end();
});

void t.test('pauses between chains say nothing about polling', (t) => {
  for (const waits of [6, 20, 36, 52, 68]) {
    const { loop, chain } = setUp();
    const bursts = (count: number): number => {
      let polled = 0;
      for (let i = 0; i < count; i++) {
        polled += chain(waits, 0.2, 0.15);
        loop.pass(5);
      }
      return polled;
    };
    bursts(200);
    const share = bursts(100) / (100 * (waits - 4));
    t.ok(share > 0.85, `${share} of those that could be, in bursts of ${waits}`);
  }
  t.end();
});

void t.test('what is polled is tried again, and given up where it does not pay any more', (t) => {
  const { chain } = setUp();
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.15);
  t.equal(chain(448, 0.2, 0.15), 448);
  t.equal(chain(64, 0.2, 0.15), 32, 'the next trial');
  t.equal(chain(448 + 64, 0.2, 0.25), 480, 'which was won');
  t.equal(chain(56, 0.2, 0.25), 0, 'the one after it was lost');
  t.equal(chain(64, 0.2, 0.15), 32, 'the next comes sooner');
  t.equal(chain(448, 0.2, 0.15), 448, 'and makes up for it');
  t.end();
});

void t.test('as many trials have to be won as were lost', (t) => {
  const { chain } = setUp();
  chain(4, 0.2, 0.3);
  for (let lost = 0; lost < 9; lost++) {
    t.equal(chain(64, 0.2, 0.3), 32);
    t.equal(chain(56 << Math.min(7, lost + 1), 0.2, 0.3), 0, 'the pauses double, seven times');
  }
  for (let score = -6; score <= 0; score++) {
    t.equal(chain(64, 0.2, 0.15), 32);
    t.equal(chain(56 << -score, 0.2, 0.15), 0, `${score}`);
  }
  t.equal(chain(64, 0.2, 0.15), 32);
  t.equal(chain(448, 0.2, 0.15), 448);
  t.end();
});

void t.test('a wait is polled for no longer than half as long again as those that sleep', (t) => {
  const { loop, chain } = setUp(1);
  chain(12, 0.1, 0.1);
  const before = loop.turns;
  chain(1, 50, 50);
  const turns = loop.turns - before;
  t.ok(turns >= 13 && turns <= 16, `${turns} turns of 0.01 ms`);
  t.end();
});

void t.test('those that were polled, or follow a pause, say nothing about that', (t) => {
  const { loop, chain } = setUp(1);
  const turnsOfLongOne = (): number => {
    const before = loop.turns;
    chain(1, 50, 50);
    return loop.turns - before;
  };
  chain(50, 1.9, 1.9, 0.3);
  chain(12, 0.2, 0.1);
  let turns = turnsOfLongOne();
  t.ok(turns >= 28 && turns <= 31, `${turns} after waits on their own`);
  chain(WAITS_UNTIL_DECIDED + 100, 0.2, 0.05);
  turns = turnsOfLongOne();
  t.ok(turns >= 28 && turns <= 31, `${turns} after polled ones`);
  t.end();
});

void t.test('one slow wait does not make the usual ones look long', (t) => {
  const { chain } = setUp(0.3);
  chain(10, 0.2, 0.15);
  chain(1, 30, 30);
  t.equal(chain(57, 0.2, 0.15), 32);
  t.end();
});

void t.test('waits that are far too long are not polled at all, until they are shorter', (t) => {
  const { chain } = setUp(0.3);
  t.equal(chain(1000, 0.5, 0.45), 0);
  chain(10_000, 0.2, 0.15);
  t.ok(chain(100, 0.2, 0.15) > 40);
  t.end();
});

void t.test('a turn is asked for once', (t) => {
  const { loop, chain } = setUp();
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.15);
  const before = loop.turns;
  // Each wait ends before the turn that it has asked for.
  for (let i = 0; i < 50; i++) chain(1, 0.2, 0.001, 0);
  t.ok(loop.turns - before <= 51 * 2, `${loop.turns - before} turns`);
  t.end();
});

void t.test('a wait that sleeps does not go on turning after one that was polled', (t) => {
  const { loop, chain } = setUp();
  t.equal(chain(4 + 16, 0.2, 0.15, 0), 8);
  const before = loop.turns;
  chain(1, 0.2, 0.15);
  t.equal(loop.turns - before, 1, 'the turn that was asked for before');
  t.end();
});

void t.test('time is counted once, for all stores of a thread, and no longer than a turn takes that has nothing to do', (t) => {
  const loop = new FakeLoop(2);
  loop.nowMs = 5e8;
  const polls = [0, 1, 2].map(() => new AckPoll(new Int32Array(1024), THREAD_WORD, 10, () => undefined, loop));
  const before = polledMs();
  for (let i = 0; i < 13; i++) {
    for (const poll of polls) poll.begin();
    loop.pass(2);
    if (i === 12) break;
    for (const poll of polls) poll.end();
    loop.pass(WRITE_MS);
  }
  const once = polledMs() - before;
  t.ok(once > 1 && once <= 2, `${once} of 2 ms`);
  loop.nowMs += 0.5;
  loop.pass(TURN_MS * 2);
  t.ok(polledMs() - before - once <= 0.08, 'somebody else has worked');
  t.end();
});

void t.test('never with a single processor, and never where it is switched off', (t) => {
  for (const { loop, words, chain } of [setUp(0.3, 1), setUp(0, 8)]) {
    t.equal(chain(1000, 0.2, 0.1), 0);
    t.equal(loop.turns, 0);
    t.equal(words[L.CONTROL_ACK_WAITERS], 0);
  }
  t.end();
});

void t.test('while it waits a thread says so in its line of the registry', (t) => {
  const words = new Int32Array(1024);
  const poll = new AckPoll(words, THREAD_WORD, 0.3, () => undefined, new FakeLoop(2));
  poll.begin();
  t.equal(words[THREAD_WORD + L.THREAD_WAITS_FOR_ACK], 1);
  t.equal(words[L.CONTROL_ACK_WAITERS], 1);
  poll.end();
  poll.end();
  t.equal(words[THREAD_WORD + L.THREAD_WAITS_FOR_ACK], 0);
  t.equal(words[L.CONTROL_ACK_WAITERS], 0);
  t.end();
});

void t.test('a store polls where its options allow it, and timers go on', async (t) => {
  const polledBy = async (ackPollUs: number): Promise<number> => {
    // Not `sync`: a slow disk would take longer than is polled for.
    const db = await open(tempFolder(t), { ackPollUs, durability: 'interval' });
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 1);
    const before = polledMs();
    let puts = 0;
    // A machine that is busy elsewhere breaks chains.
    for (let until = 500; puts < until; until = polledMs() === before ? 20_000 : 500) await db.put('key', puts++);
    clearInterval(ticking);
    t.equal(db.get('key'), puts - 1);
    t.ok(ticks > 0, `${ticks} ticks`);
    const { control } = db.handle;
    await db.close();
    t.equal(new Int32Array(control)[L.CONTROL_ACK_WAITERS], 0);
    return polledMs() - before;
  };
  t.equal(await polledBy(0), 0);
  t.equal(await polledBy(1), 0, 'a microsecond is over before the first turn');
  const polled = await polledBy(1000);
  t.ok(availableParallelism() === 1 ? polled === 0 : polled > 0, `${polled} ms`);
});

void t.test('a wait that is polled is looked after in each round, and not once it has ended', (t) => {
  const loop = new FakeLoop(2);
  let looks = 0;
  let endsAt = Infinity;
  const poll = new AckPoll(
    new Int32Array(1024),
    THREAD_WORD,
    10,
    () => {
      if (++looks === endsAt) poll.end();
    },
    loop,
  );
  for (let i = 0; i < 12; i++) {
    poll.begin();
    loop.pass(2);
    poll.end();
    loop.pass(WRITE_MS);
  }
  t.equal(looks, 0);
  poll.begin();
  t.equal(loop.pass(1), looks);
  endsAt = looks + 5;
  loop.pass(1);
  t.equal(looks, endsAt);
  t.end();
});

for (const durability of [DURABILITY_SYNC, DURABILITY_INTERVAL])
  void t.test(`while its loop is kept turning a thread sees progress before it is told, durability ${durability}`, async (t) => {
    const handle = createMemory(resolveOptions({ shards: 1, ackPollUs: 1000 }));
    const control = new Control(handle.control);
    Atomics.store(control.words, L.CONTROL_LOG_STATE, L.LOG_RUNNING);
    const ring = new Ring(handle.ring, control, L.OWNER_SLOT);
    const acks = new Acks(control, ring, new ThreadMetrics(control, L.OWNER_SLOT), L.OWNER_SLOT);
    let lsn = 0;
    let untold = 0;
    // A machine that is busy elsewhere breaks chains: then once more.
    for (let i = 0; i < 10_000 && untold === 0; i++) {
      let isDone = false;
      const done = acks.join(++lsn, durability).then(() => (isDone = true));
      await turn();
      control.storeLsn(durability === DURABILITY_SYNC ? L.CONTROL_DURABLE : L.CONTROL_WRITTEN, lsn);
      for (let round = 0; round < 3 && !isDone; round++) await turn();
      if (isDone) untold++;
      control.bump(L.CONTROL_ACK_EPOCH);
      await done;
    }
    t.equal(untold, availableParallelism() === 1 ? 0 : 1);
    await acks.idle();
    acks.dispose();
  });
