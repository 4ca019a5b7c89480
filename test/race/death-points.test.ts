/**
 * A thread dies at every store: the words that a writer changes are watched, and at a chosen store everything it
 * would still do is cut off. What the control region and the ring held at that moment is what the repair finds.
 * Afterwards a write that was published is there, one that was not is not, and the store works on.
 */

import { once } from 'node:events';
import { isDeepStrictEqual } from 'node:util';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { resolveOptions } from '../../src/base/options.js';
import { KIND_MASK, KIND_SHIFT, KIND_SKIP, RECORD_STATE } from '../../src/base/record.js';
import { Core } from '../../src/engine/core.js';
import { FlashVector } from '../../src/engine/database.js';
import type { StoreHandle } from '../../src/engine/handle.js';
import { createMemory } from '../../src/engine/memory.js';
import { Repair } from '../../src/engine/repair.js';
import { Writer } from '../../src/engine/writer.js';
import * as L from '../../src/memory/layout.js';
import { REGION_DEPTH, REGION_SEGMENTS, REGION_USED_UNITS, Region } from '../../src/memory/region.js';
import { claimSlot, noteBlock, threadWord } from '../../src/memory/registry.js';
import { allocate, classAt, classOf, free } from '../../src/memory/slabs.js';
import { RingReader } from '../../src/memory/ring-reader.js';
import type { Snapshot } from '../../src/engine/snapshot.js';
import { checkTree } from '../support/index-harness.js';
import { randomFrom, testSeed } from '../support/random.js';

const SLOT = 2;
const DEATHS = 4000;

class Death extends Error {}

/** Whoever meets an error on its way may have given it as the cause of another. */
function isDeath(error: unknown): boolean {
  return error instanceof Death || (error instanceof Error && isDeath(error.cause));
}

/** Watches stores to typed arrays; at the chosen one the thread dies. */
class Fate {
  /** Stores until death. */
  left = Infinity;
  /** Stores seen. */
  stores = 0;
  dead = false;
  #control: Int32Array | undefined;
  #ring: Int32Array | undefined;
  #staging: Int32Array | undefined;

  constructor(readonly handle: StoreHandle) {}

  #step(): boolean {
    if (this.dead) return false;
    this.stores++;
    if (--this.left > 0) return true;
    this.dead = true;
    this.#control = new Int32Array(this.handle.control).slice();
    this.#ring = new Int32Array(this.handle.ring).slice();
    this.#staging = new Int32Array(this.handle.staging, 0, this.handle.staging.byteLength / 4).slice();
    throw new Death();
  }

  watch(words: Int32Array): Int32Array {
    return new Proxy(words, {
      get: (target, name) => {
        if (typeof name === 'string' && /^\d+$/.test(name)) return target[Number(name)];
        if (name === 'length') return target.length;
        if (name === 'fill')
          return (value: number, start: number, end: number) => {
            // A long run counts as two stores: what matters is its beginning and its middle.
            const step = end - start > 64 ? (end - start + 1) >>> 1 : 1;
            for (let i = start; i < end; i += step) if (this.#step()) target.fill(value, i, Math.min(end, i + step));
          };
        // A built-in runs to its end: threads are stopped between instructions of JavaScript.
        if (name === 'copyWithin')
          return (to: number, start: number, end: number) => {
            if (this.#step()) target.copyWithin(to, start, end);
          };
        throw new Error(`words.${String(name)} is not watched`);
      },
      set: (target, name, value: number) => {
        if (this.#step()) target[Number(name)] = value;
        return true;
      },
    });
  }

  /** Puts shared memory back to the moment of death: what `finally` did since never happened. */
  freeze(): void {
    if (this.#control !== undefined) new Int32Array(this.handle.control).set(this.#control);
    if (this.#ring !== undefined) new Int32Array(this.handle.ring).set(this.#ring);
    if (this.#staging !== undefined) new Int32Array(this.handle.staging, 0, this.#staging.length).set(this.#staging);
  }
}

/** Replaces a property that holds words by one whose stores are watched, also when it is set anew. */
function watchWords(owner: { words: Int32Array }, fate: Fate): void {
  let watched = fate.watch(owner.words);
  Object.defineProperty(owner, 'words', {
    get: () => watched,
    set: (words: Int32Array) => {
      watched = fate.watch(words);
    },
  });
}

/** The thread that is going to die: a core of its own, in this thread. */
function mortal(handle: StoreHandle): { fate: Fate; db: FlashVector; writer: Writer } {
  const core = new Core(handle, SLOT);
  claimSlot(core.control, SLOT, 0);
  const fate = new Fate(handle);
  for (const shard of core.shards) watchWords(shard.region, fate);
  watchWords(core.ring, fate);
  if (core.index !== undefined) watchWords(core.index.region, fate);
  const writer = new Writer(core);
  const db = new FlashVector(core, writer, {
    close: () => Promise.resolve(),
    checkpoint: () => Promise.resolve(0),
    backup: () => Promise.resolve(0),
    checkpoints: undefined,
  });
  return { fate, db, writer };
}

void t.test('death at any store of a write', { timeout: 600_000 }, async (t) => {
  const random = randomFrom(testSeed(t));
  const integer = (below: number): number => Math.floor(random() * below);
  const handle = createMemory(resolveOptions({ shards: 2, ringBytes: 131_072 }));
  const core = new Core(handle, L.OWNER_SLOT);
  claimSlot(core.control, L.OWNER_SLOT, 0);
  const { control, words } = core;
  Atomics.store(words, L.CONTROL_LOG_STATE, L.LOG_RUNNING);
  const reader = new RingReader(handle.ring, control, new Region(handle.staging, words, false));
  const model = new Map<string, unknown>();
  const value = (): unknown => {
    const kind = integer(10);
    if (kind < 3) return integer(1000);
    if (kind < 6) return 'v'.repeat(integer(200));
    if (kind < 8) return { id: integer(100), name: 'n'.repeat(integer(30)) };
    return 'w'.repeat(integer(kind === 8 ? 3000 : 40_000));
  };
  /** Drains the ring. @returns kinds of the records by LSN */
  const drain = (): Map<number, number> => {
    const kinds = new Map<number, number>();
    for (let run = reader.take(1); run !== undefined; run = reader.take(1)) {
      const bytes = Buffer.from(run.bytes);
      kinds.set(run.firstLsn, (bytes.readUInt32LE(RECORD_STATE * 4) >>> KIND_SHIFT) & KIND_MASK);
      control.storeLsn(L.CONTROL_WRITTEN, run.lastLsn);
      reader.release();
    }
    return kinds;
  };

  // The owner has snapshots open all the while: what they see must not change.
  const ownerWriter = new Writer(core);
  const owner = new FlashVector(core, ownerWriter, {
    close: () => Promise.resolve(),
    checkpoint: () => Promise.resolve(0),
    backup: () => Promise.resolve(0),
    checkpoints: undefined,
  });
  const open: { snapshot: Snapshot; model: Map<string, unknown> }[] = [];
  let compared = 0;
  const compare = (round: number): void => {
    for (const { snapshot, model: then } of open) {
      compared++;
      const found = new Map(snapshot.entries() as Iterable<[string, unknown]>);
      if (found.size !== then.size) t.fail(`round ${round}: a snapshot has ${found.size} entries instead of ${then.size}`);
      for (const [key, v] of then) {
        if (isDeepStrictEqual(found.get(key), v) && isDeepStrictEqual(snapshot.get(key), v)) continue;
        t.fail(`round ${round}: a snapshot sees ${key} wrongly`);
        return;
      }
    }
  };
  let victim = mortal(handle);
  let deaths = 0;
  let published = 0;
  let last = 0;
  for (let round = 0; deaths < DEATHS; round++) {
    const changes: [string, unknown][] = [];
    const count = integer(4) === 0 ? 2 + integer(12) : 1;
    // Phases of growing and of shrinking, so that tables split and slabs go.
    const deleting = (round >>> 9) % 2 === 0 ? 0.2 : 0.6;
    // Numbers over what is there: such a batch overwrites its entries in place.
    const overwrites = count > 1 && model.size > 0 && integer(2) === 0;
    for (let i = 0; i < count; i++) {
      // Now and then a key once more that the batch has put or deleted already.
      let name = i > 0 && integer(6) === 0 ? changes[integer(i)][0] : `key${integer(3000)}`;
      while (overwrites && !model.has(name)) name = `key${integer(3000)}`;
      changes.push([name, overwrites ? round : random() < deleting ? undefined : value()]);
    }
    victim.fate.left = random() < 0.3 ? Infinity : 1 + integer(random() < 0.2 ? 3000 : 120);
    const before = control.lastLsn;
    let died = false;
    try {
      const options = { durability: 'memory' as const };
      const [[key, first]] = changes;
      const done =
        count > 1
          ? victim.db.batch(
              changes.map(([name, v]) => (v === undefined ? { type: 'del', key: name } : { type: 'put', key: name, value: v })),
              options,
            )
          : first === undefined
            ? victim.db.del(key, options)
            : victim.db.put(key, first, options);
      await done;
    } catch (error) {
      if (!isDeath(error)) throw error;
      died = true;
    }
    let applied = true;
    if (died) {
      deaths++;
      victim.fate.freeze();
      new Repair(core).bury(SLOT);
      const kinds = drain();
      const lsn = control.lastLsn;
      // Of the records since, the last one is the write; those before define structures.
      applied = lsn > before && kinds.get(lsn) !== KIND_SKIP && kinds.get(lsn) !== 2;
      for (let i = last + 1; i <= lsn; i++) if (!kinds.has(i)) t.fail(`LSN ${i} is missing from the log`);
      if (applied) published++;
      for (let shard = 0; shard < handle.shards.length; shard++) {
        const at = L.shardWord(shard);
        if (words[at + L.SHARD_LOCK] !== 0 || (words[at + L.SHARD_VERSION] & 1) !== 0) t.fail('a lock or an odd version stays');
      }
      for (const lock of [L.CONTROL_INDEX_LOCK, L.CONTROL_LOG_LOCK, L.CONTROL_STAGING_LOCK, L.CONTROL_DICTIONARY_LOCK])
        if (words[lock] !== 0) t.fail('a lock stays');
      if (words[threadWord(control, SLOT) + L.THREAD_ID] !== 0) t.fail('the slot stays');
      victim.writer.dispose();
      victim = mortal(handle);
    } else {
      drain();
    }
    last = control.lastLsn;
    if (applied) {
      for (const [key, v] of changes) {
        if (v === undefined) model.delete(key);
        else model.set(key, v);
      }
    }
    const db = victim.db;
    for (const [key] of changes) {
      if (isDeepStrictEqual(db.get(key), model.get(key))) continue;
      t.fail(`round ${round}, death ${deaths}: ${key} is wrong; the write counts: ${applied}`);
      return;
    }
    if (integer(100) === 0 && open.length < 3) open.push({ snapshot: owner.snapshot(), model: new Map(model) });
    if (integer(200) === 0) open.shift()?.snapshot.close();
    if (round % 499 === 0) {
      compare(round);
      const sorted = [...owner.keys()];
      t.same(sorted, [...model.keys()].sort(), 'the keys are there in order');
      checkTree(core);
    }
    if (round % 97 !== 0 && !died) continue;
    let size = 0;
    for (const shard of core.shards) size += shard.entryCount;
    if (size !== model.size) {
      t.fail(`round ${round}: ${size} entries instead of ${model.size}`);
      return;
    }
  }
  compare(Infinity);
  t.ok(compared > 20, `${compared} snapshots compared`);
  for (const { snapshot } of open) snapshot.close();
  // What the snapshots kept is freed from the event loop.
  for (let turn = 0; turn < 1000 && core.shards.some((shard) => shard.hasVersions()); turn++)
    await new Promise((resolve) => setImmediate(resolve));
  for (const shard of core.shards) t.notOk(shard.hasVersions(), 'no old version stays');
  const db = victim.db;
  let wrong = 0;
  for (const [key, v] of model) if (!isDeepStrictEqual(db.get(key), v)) wrong++;
  t.equal(wrong, 0);
  t.equal([...db.keys()].length, model.size);
  t.ok(published > DEATHS / 20 && published < DEATHS, `${published} of ${deaths} deaths were after publication`);
  for (const key of model.keys()) await db.del(key, { durability: 'memory' }).then(() => drain());
  t.equal(checkTree(core), 0);
  ownerWriter.dispose();
  for (const shard of core.shards) {
    shard.region.refresh();
    t.ok(shard.region.words[REGION_USED_UNITS] * 8 < 400_000, 'what remains are tables, not lost blocks');
  }
  victim.writer.dispose();
});

function cloneOf(handle: StoreHandle): StoreHandle {
  const clone = (buffer: SharedArrayBuffer): SharedArrayBuffer => {
    const copy = buffer.growable
      ? new SharedArrayBuffer(buffer.byteLength, { maxByteLength: buffer.maxByteLength })
      : new SharedArrayBuffer(buffer.byteLength);
    new Uint8Array(copy).set(new Uint8Array(buffer));
    return copy;
  };
  const { kind, control, ring, staging, shards, index, marks, bell } = handle;
  return {
    kind,
    control: clone(control),
    ring: clone(ring),
    staging: clone(staging),
    shards: shards.map(clone),
    index: clone(index),
    marks,
    bell,
  };
}

/** Lets a thread die at store `left` of `put(key)` over a copy of the store. @returns stores that the put took, or `undefined` when it died */
async function dieAt(t: Tap.Test, from: StoreHandle, key: string, left: number, keys: readonly string[]): Promise<number | undefined> {
  const handle = cloneOf(from);
  const core = new Core(handle, L.OWNER_SLOT);
  const victim = mortal(handle);
  victim.fate.left = left;
  const died = await victim.db.put(key, 'new', { durability: 'memory' }).then(
    () => false,
    (error: unknown) => error instanceof Death,
  );
  victim.writer.dispose();
  if (!died) return victim.fate.stores;
  victim.fate.freeze();
  const before = core.control.lastLsn;
  new Repair(core).bury(SLOT);
  const [shard] = core.shards;
  const writer = new Writer(core);
  const db = new FlashVector(core, writer, {
    close: () => Promise.resolve(),
    checkpoint: () => Promise.resolve(0),
    backup: () => Promise.resolve(0),
    checkpoints: undefined,
  });
  let missing = 0;
  for (const name of keys) if (db.get(name) !== name) missing++;
  const found = db.get(key);
  const walked = [...db.keys()].length;
  checkTree(core);
  const right = (found === undefined || found === 'new') && walked === keys.length + (found === undefined ? 0 : 1);
  if (missing > 0 || !right || shard.entryCount !== walked || core.control.lastLsn < before - 1)
    t.fail(`store ${left}: ${missing} missing, ${walked} walked`);
  // The table takes what makes it split again.
  for (let i = 0; i < 600; i++) await db.put(`more${i}`, i, { durability: 'memory' });
  for (let i = 0; i < 600; i++) if (db.get(`more${i}`) !== i) missing++;
  if (missing > 0) t.fail(`store ${left}: the table is not whole`);
  writer.dispose();
  return undefined;
}

void t.test('death at every store of a split, the directory doubled with it or not', { timeout: 600_000 }, async (t) => {
  const handle = createMemory(resolveOptions({ shards: 1, ringBytes: 1024 * 1024 }));
  const core = new Core(handle, L.OWNER_SLOT);
  claimSlot(core.control, L.OWNER_SLOT, 0);
  Atomics.store(core.words, L.CONTROL_LOG_STATE, L.LOG_RUNNING);
  const [{ region }] = core.shards;
  const writer = new Writer(core);
  const db = new FlashVector(core, writer, {
    close: () => Promise.resolve(),
    checkpoint: () => Promise.resolve(0),
    backup: () => Promise.resolve(0),
    checkpoints: undefined,
  });
  const keys: string[] = [];
  let tried = 0;
  const kinds = new Set<string>();
  for (let i = 0; kinds.size < 2 || i < 1000; i++) {
    const key = `key${i}`;
    const segments = region.words[REGION_SEGMENTS];
    const depth = region.words[REGION_DEPTH];
    const before = cloneOf(handle);
    await db.put(key, key, { durability: 'memory' });
    if (region.words[REGION_SEGMENTS] !== segments) {
      kinds.add(region.words[REGION_DEPTH] === depth ? 'split' : 'doubled');
      const stores = (await dieAt(t, before, key, Infinity, keys)) ?? 0;
      // The bulk of a split copies slots; what comes around it is tried store by store.
      for (let left = 1; left <= stores; left += left > 40 && left < stores - 120 ? 61 : 1) {
        await dieAt(t, before, key, left, keys);
        tried++;
      }
    }
    keys.push(key);
  }
  t.ok(tried > 300, `${tried} deaths`);
  writer.dispose();
});

void t.test('a writer that died while it waited for readers: the repair waits for them, too', async (t) => {
  const handle = createMemory(resolveOptions({ shards: 1 }));
  const core = new Core(handle, L.OWNER_SLOT);
  claimSlot(core.control, L.OWNER_SLOT, 0);
  claimSlot(core.control, SLOT, 0);
  const { words } = core;
  const lock = L.shardWord(0);
  const reader = 5;
  Atomics.or(words, lock + L.SHARD_READERS, 1 << reader);
  Atomics.store(words, lock + L.SHARD_LOCK, SLOT + 1);
  const version = words[lock + L.SHARD_VERSION];
  const code = `
    const { control, at, bit, version } = require('node:worker_threads').workerData;
    const words = new Int32Array(control);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    const early = Atomics.load(words, version);
    Atomics.and(words, at, ~bit);
    require('node:worker_threads').parentPort.postMessage(early);`;
  const worker = new Worker(code, {
    eval: true,
    workerData: { control: handle.control, at: lock + L.SHARD_READERS, bit: 1 << reader, version: lock + L.SHARD_VERSION },
  });
  const early = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await once(worker, 'online');
  new Repair(core).bury(SLOT);
  t.equal(await early, version, 'nothing changed while the reader was inside');
  t.equal(words[lock + L.SHARD_LOCK], 0);
  t.equal(words[lock + L.SHARD_VERSION] & 1, 0);
});

void t.test('a thread that dies while it waits for an acknowledgement, or for room, waits no longer', (t) => {
  const core = new Core(createMemory(resolveOptions({ shards: 1 })), L.OWNER_SLOT);
  claimSlot(core.control, L.OWNER_SLOT, 0);
  claimSlot(core.control, SLOT, 0);
  const { words } = core;
  const thread = threadWord(core.control, SLOT);
  for (const word of [thread + L.THREAD_WAITS_FOR_ACK, thread + L.THREAD_WAITS_FOR_ROOM]) words[word] = 1;
  for (const word of [L.CONTROL_ACK_WAITERS, L.CONTROL_ROOM_WAITERS]) words[word] = 2;
  new Repair(core).bury(SLOT);
  t.equal(words[L.CONTROL_ACK_WAITERS], 1);
  t.equal(words[L.CONTROL_ROOM_WAITERS], 1);
  t.equal(words[thread + L.THREAD_WAITS_FOR_ACK], 0);
  t.end();
});

void t.test('a block that a live thread fills while it holds no lock survives the repair, a dead thread’s does not', async (t) => {
  const handle = createMemory(resolveOptions({ shards: 1 }));
  const core = new Core(handle, L.OWNER_SLOT);
  claimSlot(core.control, L.OWNER_SLOT, 0);
  const { words, control } = core;
  const live = 3;
  claimSlot(control, live, 0);
  claimSlot(control, SLOT, 0);
  const [{ region }] = core.shards;
  const take = (): number => allocate(region, 100_000, classOf(100_000));
  const used = region.words[REGION_USED_UNITS];
  const block = take();
  noteBlock(control, live, 0, block);
  // Another thread dies with the shard's lock.
  Atomics.store(words, L.shardWord(0) + L.SHARD_LOCK, SLOT + 1);
  t.ok(new Repair(core).bury(SLOT));
  const others = [take(), take(), take()];
  t.notOk(others.includes(block), 'it is not handed out again');
  for (const unit of others) free(region, unit, classAt(region, unit));
  // The thread that fills it dies itself, without any lock: first while somebody has the shard's.
  Atomics.store(words, L.shardWord(0) + L.SHARD_LOCK, L.OWNER_SLOT + 1);
  t.notOk(new Repair(core).bury(live), 'to be buried again');
  Atomics.store(words, L.shardWord(0) + L.SHARD_LOCK, 0);
  t.ok(new Repair(core).bury(live));
  t.equal(region.words[REGION_USED_UNITS], used, 'nothing leaks');
  t.equal(words[threadWord(control, live) + L.THREAD_ID], 0);
});
