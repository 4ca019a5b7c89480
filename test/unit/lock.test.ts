/** How long a writer waits for a shard's lock before it gives up: what it sleeps for is told by a stand-in for `Atomics.wait`. */

import t from 'tap';
import * as L from '../../src/memory/layout.js';
import { releaseWrite, tryAcquireWrite } from '../../src/memory/lock.js';
import { FIRST_PATIENCE_MS } from '../../src/engine/write-result.js';

const SHARD = L.shardWord(3);
const LOCK = SHARD + L.SHARD_LOCK;
const SELF = 7;
const OTHER = 9;

/** A thread sleeps briefly once in a millisecond. */
function pause(): void {
  for (const since = performance.now(); performance.now() - since < 2;);
}

/** A control region whose lock is held by another thread, and what is slept meanwhile; `onSleep` is run instead of sleeping. */
function held(
  t: Tap.Test,
  onSleep: (words: Int32Array) => void,
): { words: Int32Array; sleeps: { at: number; value: number; ms: number }[] } {
  const words = new Int32Array(new SharedArrayBuffer(L.shardWord(4) * 4));
  words[LOCK] = OTHER;
  const sleeps: { at: number; value: number; ms: number }[] = [];
  const { wait } = Atomics;
  t.teardown(() => (Atomics.wait = wait));
  Atomics.wait = ((_: Int32Array, at: number, value: number, ms: number) => {
    sleeps.push({ at, value, ms });
    onSleep(words);
    return 'timed-out';
  }) as typeof Atomics.wait;
  return { words, sleeps };
}

void t.test('without patience nobody sleeps', (t) => {
  const { words, sleeps } = held(t, () => undefined);
  t.notOk(tryAcquireWrite(words, SHARD, SELF, 0));
  t.equal(sleeps.length, 0);
  t.equal(words[LOCK], OTHER);
  t.end();
});

void t.test('the first try of a write sleeps a tenth of a millisecond, in which the holder comes to its end', (t) => {
  const { words, sleeps } = held(t, (own) => releaseWrite(own, SHARD));
  pause();
  t.ok(tryAcquireWrite(words, SHARD, SELF, FIRST_PATIENCE_MS));
  t.same(sleeps, [{ at: LOCK, value: OTHER, ms: 0.1 }]);
  t.equal(words[LOCK], SELF);
  t.equal(words[SHARD + L.SHARD_LOCK_WAITERS], 0, 'the release saw that somebody waits');
  t.end();
});

void t.test('so brief a sleep does not come again within a millisecond', (t) => {
  const { words, sleeps } = held(t, (own) => releaseWrite(own, SHARD));
  pause();
  const begun = performance.now();
  let got = 0;
  for (let i = 0; i < 1000; i++) {
    words[LOCK] = OTHER;
    if (tryAcquireWrite(words, SHARD, SELF, FIRST_PATIENCE_MS)) got++;
  }
  t.ok(got >= 1);
  t.equal(sleeps.length, got);
  t.ok(got <= performance.now() - begun + 1, `${got} sleeps`);
  t.end();
});

void t.test('it gives up when the lock stays busy, and never sleeps for longer than that at a time', (t) => {
  const { words, sleeps } = held(t, () => undefined);
  pause();
  t.notOk(tryAcquireWrite(words, SHARD, SELF, FIRST_PATIENCE_MS));
  t.ok(sleeps.length >= 1);
  t.ok(sleeps.every(({ ms }) => ms === 0.1));
  t.equal(words[LOCK], OTHER);
  t.equal(words[SHARD + L.SHARD_LOCK_WAITERS], 1);
  t.end();
});

void t.test('later tries sleep a millisecond at a time', (t) => {
  let left = 3;
  const { words, sleeps } = held(t, (own) => {
    if (--left === 0) releaseWrite(own, SHARD);
  });
  t.ok(tryAcquireWrite(words, SHARD, SELF, 1000));
  t.same(
    sleeps.map(({ ms }) => ms),
    [1, 1, 1],
  );
  t.end();
});

void t.test('a reader that is inside is waited for no longer, and the writer word is given back', (t) => {
  const { words, sleeps } = held(t, () => undefined);
  words[LOCK] = 0;
  words[SHARD + L.SHARD_READERS] = 1;
  t.notOk(tryAcquireWrite(words, SHARD, SELF, 0));
  t.equal(sleeps.length, 0);
  pause();
  t.notOk(tryAcquireWrite(words, SHARD, SELF, FIRST_PATIENCE_MS));
  t.equal(words[LOCK], 0);
  t.ok(sleeps.every(({ at, ms }) => at === SHARD + L.SHARD_READERS && ms <= FIRST_PATIENCE_MS));
  sleeps.length = 0;
  t.notOk(tryAcquireWrite(words, SHARD, SELF, 50));
  t.equal(words[LOCK], 0);
  t.ok(sleeps.length >= 1);
  t.ok(sleeps.every(({ ms }) => ms <= 1));
  t.end();
});

void t.test('who has waited for the writer before still waits for the readers', (t) => {
  const { words } = held(t, (own) => {
    if (own[LOCK] !== OTHER) return;
    own[SHARD + L.SHARD_READERS] = 1;
    releaseWrite(own, SHARD);
  });
  t.notOk(tryAcquireWrite(words, SHARD, SELF, 50));
  t.equal(words[LOCK], 0);
  t.equal(words[SHARD + L.SHARD_READERS], 1);
  t.end();
});
