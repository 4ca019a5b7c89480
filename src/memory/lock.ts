/**
 * Locks on words of the control region.
 *
 * A lock word holds `slot + 1` of its holder, so that a dead holder can be named, or 0. Taking is
 * bounded spinning, then sleeping with a time-out; every sleep is bounded by SLEEP_MS, so a lost wake
 * costs a millisecond and nothing more. A lock that is not free within LOCK_TIMEOUT_MS throws
 * FV_TIMEOUT: its holder is stuck or dead.
 *
 * Shard locks know readers as well. A reader sets its bit and then looks at the writer word; a
 * writer takes the writer word and then waits until no bit is set. Both operations are sequentially
 * consistent, so of a reader and a writer that come at once at least one sees the other (Dekker's
 * argument), and a reader that sees a writer takes its bit back. New readers therefore wait as soon
 * as a writer has the word: a writer cannot be starved. A bit names its reader for sure, so the bits
 * of a dead thread can be cleared without guessing.
 *
 * Whoever has slept once asks the guardian, if this thread has one, to look after the holder: it may
 * find that the holder has died, repair what the lock guards, and release it.
 */

import { FlashVectorError } from '../base/errors.js';
import { loadAcquire, storeRelease } from './fence.js';
import * as L from './layout.js';

/** Loads of the lock word before sleeping: some 5 µs, more than any short section is held. */
const SPINS = 400;
const SLEEP_MS = 1;
/** Sleeps shorter than SLEEP_MS are for threads that must not be kept: they begin so far apart. */
const BRIEF_SLEEP_GAP_MS = 1;
const LOCK_TIMEOUT_MS = 10_000;
/** The same once the store has failed: the holder may be what failed it. */
const LOCK_TIMEOUT_FAILED_MS = 50;

/** Looks after the thread in a slot that keeps a lock: see engine/threads.ts. */
type Guardian = (slot: number) => void;
const guardians = new WeakMap<ArrayBufferLike, Guardian>();

/** Makes `guardian` be asked when this thread waits for a lock in this control region; `undefined` ends that. */
export function setGuardian(words: Int32Array, guardian: Guardian | undefined): void {
  if (guardian === undefined) guardians.delete(words.buffer);
  else guardians.set(words.buffer, guardian);
}

/** Asks the guardian, if this thread has one, to look after the thread in a slot. */
export function askGuardian(words: Int32Array, slot: number): void {
  guardians.get(words.buffer)?.(slot);
}

function sleepOn(words: Int32Array, lock: number, waiters: number, holder: number, sleepMs: number): void {
  Atomics.store(words, waiters, 1);
  Atomics.wait(words, lock, holder, sleepMs);
  if (Atomics.load(words, lock) === holder) guardians.get(words.buffer)?.(holder - 1);
}

/** @throws FlashVectorError FV_TIMEOUT, or FV_IO once the store has failed, when a lock was not free for too long */
function checkWait(words: Int32Array, sinceMs: number, name: string, holder: number): void {
  const waited = performance.now() - sinceMs;
  const failed = Atomics.load(words, L.CONTROL_FAILURE_BYTES) !== 0;
  if (waited <= (failed ? LOCK_TIMEOUT_FAILED_MS : LOCK_TIMEOUT_MS)) return;
  const message = `the ${name} lock has been held by thread slot ${holder - 1} for ${Math.round(waited)} ms`;
  throw new FlashVectorError(failed ? 'FV_IO' : 'FV_TIMEOUT', message);
}

/** What `acquire` does once the fast path failed. Kept out of line: it is rare and large. */
function acquireSlowly(words: Int32Array, lock: number, waiters: number, self: number, name: string): void {
  let since = 0;
  for (;;) {
    for (let i = 0; i < SPINS; i++) {
      if (Atomics.load(words, lock) === 0 && Atomics.compareExchange(words, lock, 0, self) === 0) return;
    }
    const holder = Atomics.load(words, lock);
    if (holder === 0) continue;
    if (since === 0) since = performance.now();
    else checkWait(words, since, name, holder);
    sleepOn(words, lock, waiters, holder, SLEEP_MS);
  }
}

/**
 * Takes an exclusive lock. `self` is the caller's slot + 1.
 * @returns whether it had to wait
 * @throws FlashVectorError FV_TIMEOUT
 */
export function acquire(words: Int32Array, lock: number, waiters: number, self: number, name: string): boolean {
  if (Atomics.compareExchange(words, lock, 0, self) === 0) return false;
  acquireSlowly(words, lock, waiters, self, name);
  return true;
}

/** Takes an exclusive lock if it is free at this moment. `self` is the caller's slot + 1. */
export function tryAcquireAtOnce(words: Int32Array, lock: number, self: number): boolean {
  return Atomics.compareExchange(words, lock, 0, self) === 0;
}

/** Takes an exclusive lock if it is free within a few microseconds of spinning. */
function tryAcquire(words: Int32Array, lock: number, self: number): boolean {
  if (Atomics.compareExchange(words, lock, 0, self) === 0) return true;
  for (let i = 0; i < SPINS; i++) {
    if (Atomics.load(words, lock) === 0 && Atomics.compareExchange(words, lock, 0, self) === 0) return true;
  }
  return false;
}

/**
 * Gives an exclusive lock back. A sleeper that announces itself at this very moment may be missed; it
 * wakes by its time-out.
 */
export function release(words: Int32Array, lock: number, waiters: number): void {
  storeRelease(words, lock, 0);
  if (words[waiters] !== 0) wakeWaiters(words, lock, waiters);
}

/** The flag goes first: who sleeps after it sets it again. */
function wakeWaiters(words: Int32Array, lock: number, waiters: number): void {
  Atomics.store(words, waiters, 0);
  Atomics.notify(words, lock);
}

/** Called after the compare-and-swap that took the writer word, which keeps these loads behind it. */
function readersPresent(words: Int32Array, shard: number): boolean {
  const at = shard + L.SHARD_READERS;
  return (loadAcquire(words, at) | loadAcquire(words, at + 1) | loadAcquire(words, at + 2) | loadAcquire(words, at + 3)) !== 0;
}

/** The writer word is held; waits for the readers that were there first, at most until `deadline`. */
function drainReaders(words: Int32Array, shard: number, deadline: number): boolean {
  for (;;) {
    for (let i = 0; i < SPINS; i++) {
      if (!readersPresent(words, shard)) return true;
      // Keeps the loads above in the loop.
      Atomics.load(words, shard + L.SHARD_READERS);
    }
    const left = deadline === 0 ? 0 : deadline - performance.now();
    if (left <= 0) return false;
    for (let i = 0; i < L.READER_WORDS; i++) {
      const bits = Atomics.load(words, shard + L.SHARD_READERS + i);
      if (bits !== 0) {
        Atomics.wait(words, shard + L.SHARD_READERS + i, bits, Math.min(SLEEP_MS, left));
        const stay = bits & Atomics.load(words, shard + L.SHARD_READERS + i);
        if (stay !== 0) guardians.get(words.buffer)?.(i * 32 + 31 - Math.clz32(stay));
        break;
      }
    }
  }
}

/**
 * Takes a shard's lock for writing. It spins for a few microseconds; with `patienceMs` 0 it never sleeps, otherwise for some so many milliseconds,
 * but if that is less than SLEEP_MS, not within BRIEF_SLEEP_GAP_MS of the last time. The caller then tries again later, from its event loop, with more
 * patience: while it has the writer word no new reader comes in, so it gets through however many there are.
 */
export function tryAcquireWrite(words: Int32Array, shard: number, self: number, patienceMs: number): boolean {
  let deadline = 0;
  if (!tryAcquire(words, shard + L.SHARD_LOCK, self)) {
    deadline = deadlineIn(patienceMs);
    if (deadline === 0 || !awaitWriter(words, shard, self, deadline, patienceMs)) return false;
  }
  if (!readersPresent(words, shard)) return true;
  if (deadline === 0) deadline = deadlineIn(patienceMs);
  if (drainReaders(words, shard, deadline)) return true;
  releaseWrite(words, shard);
  return false;
}

/** When this thread last began to sleep briefly. */
let briefSleepMs = -Infinity;

/** Until when to wait, or 0 for not at all: without patience, or when the last brief sleep was just now. */
function deadlineIn(patienceMs: number): number {
  if (patienceMs === 0) return 0;
  const now = performance.now();
  if (patienceMs < SLEEP_MS) {
    if (now - briefSleepMs < BRIEF_SLEEP_GAP_MS) return 0;
    briefSleepMs = now;
  }
  return now + patienceMs;
}

/** Sleeps while the writer word is taken, at least once. @returns whether this thread has it now */
function awaitWriter(words: Int32Array, shard: number, self: number, deadline: number, patienceMs: number): boolean {
  const lock = shard + L.SHARD_LOCK;
  do {
    const holder = Atomics.load(words, lock);
    if (holder !== 0) sleepOn(words, lock, shard + L.SHARD_LOCK_WAITERS, holder, Math.min(SLEEP_MS, patienceMs));
    if (tryAcquire(words, lock, self)) return true;
  } while (performance.now() <= deadline);
  return false;
}

/**
 * Waits until no reader is inside a shard whose lock a dead writer holds: it may have died while it waited for them.
 * @returns false when one stays for longer than `patienceMs`
 */
export function awaitReaders(words: Int32Array, shard: number, patienceMs: number): boolean {
  return drainReaders(words, shard, performance.now() + patienceMs);
}

/** A full barrier: what the caller loads afterwards is not older than its release (see Ring.wakeLog). */
export function releaseWrite(words: Int32Array, shard: number): void {
  Atomics.store(words, shard + L.SHARD_LOCK, 0);
  if (words[shard + L.SHARD_LOCK_WAITERS] !== 0) wakeWaiters(words, shard + L.SHARD_LOCK, shard + L.SHARD_LOCK_WAITERS);
}

/** Takes a shard's lock for reading. `slot` is the caller's thread slot. @throws FlashVectorError FV_TIMEOUT */
export function acquireRead(words: Int32Array, shard: number, slot: number): void {
  const readers = shard + L.SHARD_READERS + (slot >>> 5);
  const bit = 1 << (slot & 31);
  let since = 0;
  for (;;) {
    Atomics.or(words, readers, bit);
    if (Atomics.load(words, shard + L.SHARD_LOCK) === 0) return;
    releaseRead(words, shard, slot);
    let holder = 0;
    for (let i = 0; i < SPINS; i++) {
      holder = Atomics.load(words, shard + L.SHARD_LOCK);
      if (holder === 0) break;
    }
    if (holder === 0) continue;
    if (since === 0) since = performance.now();
    else checkWait(words, since, 'shard', holder);
    sleepOn(words, shard + L.SHARD_LOCK, shard + L.SHARD_LOCK_WAITERS, holder, SLEEP_MS);
  }
}

export function releaseRead(words: Int32Array, shard: number, slot: number): void {
  const readers = shard + L.SHARD_READERS + (slot >>> 5);
  Atomics.and(words, readers, ~(1 << (slot & 31)));
  if (Atomics.load(words, shard + L.SHARD_LOCK) !== 0) Atomics.notify(words, readers, 1);
}
