/**
 * Every I/O boundary. A fixed workload with writes, batches, deletes, rotations, checkpoints and recoveries runs once to count its
 * file operations, then once for each of them with the power cut there, or with that operation failing.
 * What is found afterwards must be the state after some LSN at or past the last acknowledged one, exactly: nothing
 * acknowledged lost, no batch torn, nothing invented; and the store must work on. Then the recovery itself is cut at
 * each of its own operations.
 */

import { isDeepStrictEqual } from 'node:util';
import { HarnessStore } from '../support/store-harness.js';
import { SimulatedDisk, type Fault, type Policy } from '../support/simulated-disk.js';

type Change = [key: string, value: unknown];
const POLICIES: Policy[] = ['lost', 'kept', 'torn 512', 'torn 4096'];

/** What the workload has written, by LSN, and how much of it was acknowledged. */
class History {
  readonly #steps: { lsn: number; changes: Change[] }[] = [];
  acknowledged = 0;

  /** Notes what `write` does, unless the store refuses it: then it takes no LSN. */
  issue(store: HarnessStore, changes: Change[], write: () => Promise<number>): void {
    const before = store.core.control.lastLsn;
    const promise = write();
    this.note(before, store.core.control.lastLsn, changes, promise);
  }

  /** Notes a write that has taken the LSN `lsn`, or, if that is still `before`, none. */
  note(before: number, lsn: number, changes: Change[], promise: Promise<unknown>): void {
    if (lsn === before) {
      promise.catch(() => undefined);
      return;
    }
    this.#steps.push({ lsn, changes });
    promise.then(
      () => {
        if (lsn > this.acknowledged) this.acknowledged = lsn;
      },
      () => undefined,
    );
  }

  at(lsn: number): Map<string, unknown> {
    const state = new Map<string, unknown>();
    for (const step of this.#steps) {
      if (step.lsn > lsn) break;
      for (const [key, value] of step.changes) {
        if (value === undefined) state.delete(key);
        else state.set(key, value);
      }
    }
    return state;
  }

  /** Writes past `lsn` never happened: what comes now takes their place. */
  cutTo(lsn: number): void {
    while (this.#steps.length > 0 && this.#steps[this.#steps.length - 1].lsn > lsn) this.#steps.pop();
  }
}

function put(store: HarnessStore, history: History, key: string, value: unknown): void {
  history.issue(store, [[key, value]], () => store.db.put(key, value));
}

function batch(store: HarnessStore, history: History, changes: Change[]): void {
  history.issue(store, changes, () =>
    store.db.batch(changes.map(([key, value]) => (value === undefined ? { type: 'del', key } : { type: 'put', key, value }))),
  );
}

/** Reads two keys and a range, writes two keys. */
async function transaction(store: HarnessStore, history: History): Promise<void> {
  const changes: Change[] = [
    ['moved', 'key7'],
    ['key7', undefined],
  ];
  const before = store.core.control.lastLsn;
  const done = store.db.transaction((tx) => {
    for (const key of tx.keys({ prefix: 'key', limit: 3 })) if (!tx.has(key)) throw new Error('a key of a range is there');
    tx.put('moved', 'key7');
    tx.del('key7');
  });
  done.catch(() => undefined);
  // Its record is written in a microtask, before the log gets a turn.
  await new Promise((resolve) => setImmediate(resolve));
  history.note(before, store.core.control.lastLsn, changes, done);
  await store.settle(done).catch(() => undefined);
}

async function turn(store: HarnessStore): Promise<void> {
  store.pump();
  await new Promise((resolve) => setImmediate(resolve));
}

/** A write refused because the log has failed rejects; nobody waits for it here. */
async function checkpoint(store: HarnessStore): Promise<void> {
  await store.settle(store.db.checkpoint()).catch(() => undefined);
}

async function workload(disk: SimulatedDisk, history: History): Promise<void> {
  let store = await HarnessStore.open(disk);
  try {
    for (let i = 0; i < 12; i++) {
      put(store, history, `key${i}`, { id: i, name: `name ${i}`, tags: ['a', 'b'] });
      if (i % 3 === 0) await turn(store);
    }
    batch(store, history, [
      ['a', 1],
      ['b', 'two'],
      ['key3', undefined],
      ['c', Buffer.alloc(300, 7)],
    ]);
    put(store, history, 'long', 'l'.repeat(20_000));
    await turn(store);
    await checkpoint(store);
    for (let i = 0; i < 9; i++) {
      put(store, history, `wide${i % 4}`, `${i}`.repeat(9000));
      await turn(store);
    }
    // What a snapshot keeps, expires, or a transaction writes must come through as all else does.
    const snapshot = store.db.snapshot();
    const seen = history.at(snapshot.lsn);
    history.issue(store, [['key5', 'for a while']], () => store.db.put('key5', 'for a while', { ttl: 1e12 }));
    history.issue(store, [['key6', undefined]], () => store.db.del('key6'));
    await transaction(store, history);
    await turn(store);
    // A checkpoint with writes before, between and behind its parts.
    const running = store.settle(store.db.checkpoint()).catch(() => undefined);
    put(store, history, 'key1', 'changed');
    history.issue(store, [['key2', undefined]], () => store.db.del('key2'));
    await running;
    const still = new Map(snapshot.entries() as Iterable<[string, unknown]>);
    if (still.size !== seen.size || [...seen].some(([key, value]) => !isDeepStrictEqual(still.get(key), value)))
      fail('a snapshot does not see what it saw');
    snapshot.close();
    put(store, history, 'after', null);
    await turn(store);
    await store.close();
    store = await HarnessStore.open(disk);
    await check(store, history, 'in the workload');
    history.cutTo(store.lastLsn);
    put(store, history, 'key4', 4.5);
    batch(
      store,
      history,
      Array.from({ length: 6 }, (_, i): Change => [`pair${i}`, { n: 1, i }]),
    );
    await turn(store);
    await checkpoint(store);
    batch(
      store,
      history,
      Array.from({ length: 6 }, (_, i): Change => [`pair${i}`, { n: 2, i }]),
    );
    await turn(store);
    // Ends without a close, power on.
    store.dispose();
    store = await HarnessStore.open(disk);
    await check(store, history, 'in the workload');
    history.cutTo(store.lastLsn);
    put(store, history, 'last', 'x'.repeat(5000));
    await turn(store);
    await store.close();
  } finally {
    store.dispose();
  }
}

/** A promise of the store that it has not kept. */
class Violation extends Error {}

function fail(what: string): never {
  throw new Violation(what);
}

async function check(store: HarnessStore, history: History, where: string): Promise<void> {
  const lsn = store.lastLsn;
  if (lsn < history.acknowledged) fail(`${where}: ${history.acknowledged} was acknowledged, the log ends with ${lsn}`);
  const found = store.contents();
  const expected = history.at(lsn);
  const isSame = found.size === expected.size && [...expected].every(([key, value]) => isDeepStrictEqual(found.get(key), value));
  if (found.size !== store.db.size) fail(`${where}: ${found.size} keys in order, ${store.db.size} in all`);
  if (!isSame) fail(`${where}: not the state at LSN ${lsn}: found ${[...found.keys()].join()}, expected ${[...expected.keys()].join()}`);
}

/** Opens what the cut left, holds it against the history, and uses it. @returns operations that opening took */
async function reopen(disk: SimulatedDisk, history: History, where: string): Promise<number> {
  const store = await HarnessStore.open(disk).catch((error: unknown): never => {
    throw new Error(`${where}: ${String(error)}`, { cause: error });
  });
  const operations = disk.operations.length;
  try {
    await check(store, history, where);
    const { acknowledged } = history;
    history.cutTo(store.lastLsn);
    put(store, history, 'works', where);
    await turn(store);
    await checkpoint(store);
    const report = store.reports.at(-1);
    if (report?.error !== undefined) fail(`${where}: no checkpoint afterwards: ${report.error.message}`);
    if (history.acknowledged <= acknowledged) fail(`${where}: a write afterwards is not acknowledged`);
    await store.close();
  } finally {
    store.dispose();
  }
  const again = await HarnessStore.open(disk);
  await check(again, history, `${where}, opened again`);
  again.dispose();
  return operations;
}

async function runWith(fault: Fault | undefined, where: string): Promise<{ disk: SimulatedDisk; history: History }> {
  const disk = new SimulatedDisk();
  disk.fault = fault;
  const history = new History();
  try {
    await workload(disk, history);
  } catch (error) {
    if (error instanceof Violation) throw error;
    if (fault === undefined || fault.kind === 'short') throw new Error(`${where}: ${String(error)}`, { cause: error });
    // What the cut or the failure ended; the folder decides.
  }
  await new Promise((resolve) => setImmediate(resolve));
  disk.fault = undefined;
  return { disk, history };
}

export interface SweepResult {
  /** Operations of the workload, and how many of them were tried before the time was up. */
  operations: number;
  tried: number;
  recoveries: number;
}

/** Cuts the power at every operation. @param deadlineMs on `performance.now()`'s clock; Infinity for all of it */
export async function sweepCuts(seed: number, deadlineMs: number): Promise<SweepResult> {
  const total = (await runWith(undefined, 'undisturbed')).disk.operations.length;
  const result: SweepResult = { operations: total, tried: 0, recoveries: 0 };
  for (let i = 0; i < total && performance.now() < deadlineMs; i++) {
    // Spread, so that a run that is cut short has seen all phases.
    const at = 1 + ((i * 89) % total);
    const where = `seed ${seed}, cut in operation ${at} of ${total}`;
    for (const policy of POLICIES) {
      const { disk, history } = await runWith({ at, kind: 'cut' }, where);
      const here = `${where} (${disk.operations.at(-1)}), unsynced data ${policy}`;
      const operations = await reopen(disk.restarted(policy, seed + at), history, here);
      result.recoveries++;
      if (POLICIES[at % POLICIES.length] !== policy) continue;
      for (let inner = 1; inner <= operations; inner++) {
        const first = disk.restarted(policy, seed + at);
        first.fault = { at: inner, kind: 'cut' };
        await HarnessStore.open(first).then(
          (store) => store.dispose(),
          () => undefined,
        );
        const second = await runWith({ at, kind: 'cut' }, where);
        await reopen(first.restarted(policy, seed + inner), second.history, `${here}, recovery cut in operation ${inner}`);
        result.recoveries++;
      }
    }
    result.tried++;
  }
  return result;
}

/** Lets every operation fail. @param deadlineMs as in sweepCuts */
export async function sweepFaults(kind: Fault['kind'], seed: number, deadlineMs: number): Promise<SweepResult> {
  const undisturbed = (await runWith(undefined, 'undisturbed')).disk;
  const total = (kind === 'EIO reading' ? undisturbed.reads : undisturbed.operations).length;
  const result: SweepResult = { operations: total, tried: 0, recoveries: 0 };
  for (let i = 0; i < total && performance.now() < deadlineMs; i++) {
    const at = 1 + ((i * 89) % total);
    for (const policy of ['kept', POLICIES[at % POLICIES.length]] as const) {
      const where = `seed ${seed}, ${kind} in operation ${at} of ${total}`;
      const { disk, history } = await runWith({ at, kind }, where);
      const what = (kind === 'EIO reading' ? disk.reads : disk.operations)[at - 1];
      await reopen(disk.restarted(policy, seed + at), history, `${where} (${what}), unsynced data ${policy}`);
      result.recoveries++;
    }
    result.tried++;
  }
  return result;
}
