/** When the event loop is kept turning for an acknowledgement: in chains of writes, where it pays, and never where it takes the processor from others. */

import { availableParallelism } from 'node:os';
import t from 'tap';
import { AckPoll, polledMs, type LoopClock } from '../../src/engine/ack-poll.js';
import { open } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
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
  const poll = new AckPoll(words, THREAD_WORD, maxMs, loop);
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
  t.equal(chain(2000, 0.2, 0.15, 0.3), 0);
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
  const { loop, chain } = setUp(0.3);
  chain(WAITS_UNTIL_DECIDED, 0.2, 0.15);
  const before = loop.turns;
  chain(1, 50, 50);
  const turns = loop.turns - before;
  t.ok(turns > 20 && turns <= 31, `${turns} rounds of 0.01 ms`);
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
  const poll = new AckPoll(words, THREAD_WORD, 10, loop);
  const wait = (ms: number): void => {
    poll.begin();
    loop.pass(ms);
    poll.end();
    loop.pass(WRITE_MS);
  };
  for (let i = 0; i < 12; i++) wait(0.2);
  poll.begin();
  t.ok(loop.pass(1) > 50);
  words[L.CONTROL_ACK_WAITERS]++;
  t.equal(loop.pass(1), 1);
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
  const poll = new AckPoll(words, THREAD_WORD, 0.3, new FakeLoop(2));
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
    const db = await open(tempFolder(t), { ackPollUs });
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 1);
    const before = polledMs();
    for (let i = 0; i < 500; i++) await db.put('key', i);
    clearInterval(ticking);
    t.equal(db.get('key'), 499);
    t.ok(ticks > 0, `${ticks} ticks`);
    const { control } = db.handle;
    await db.close();
    t.equal(new Int32Array(control)[L.CONTROL_ACK_WAITERS], 0);
    return polledMs() - before;
  };
  t.equal(await polledBy(0), 0);
  const polled = await polledBy(10_000);
  t.ok(availableParallelism() === 1 ? polled === 0 : polled > 0, `${polled} ms`);
});
