/** Damage to checkpoints: always detected, with its position; a fallback only where it loses nothing. */

import t from 'tap';
import { FlashVectorError } from '../../src/index.js';
import { testSeed } from '../support/random.js';
import { SimulatedDisk } from '../support/simulated-disk.js';
import { HarnessStore } from '../support/store-harness.js';

async function fill(disk: SimulatedDisk, mark: number): Promise<HarnessStore> {
  const store = await HarnessStore.open(disk);
  for (let i = 0; i < 6; i++) await store.settle(store.db.put(`key${i}`, { id: i, mark }));
  await store.settle(store.db.put('text', 'some text'));
  await store.settle(store.db.checkpoint());
  await store.settle(store.db.put('later', mark));
  return store;
}

/** A closed store with one checkpoint that its log cannot do without. */
async function closedStore(mark = 1): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk();
  const store = await fill(disk, mark);
  await store.close();
  const again = await HarnessStore.open(disk);
  // Fills segments, so that those before the checkpoint are given up.
  for (let i = 0; i < 8; i++) await store.settle(again.settle(again.db.put('wide', 'w'.repeat(15_000))));
  await again.settle(again.db.checkpoint());
  await again.close();
  return disk;
}

function copyOf(disk: SimulatedDisk): SimulatedDisk {
  return disk.restarted('kept', 1);
}

async function openError(disk: SimulatedDisk): Promise<FlashVectorError | undefined> {
  try {
    const store = await HarnessStore.open(disk);
    store.dispose();
    return undefined;
  } catch (error) {
    if (error instanceof FlashVectorError) return error;
    throw error;
  }
}

function fileOf(disk: SimulatedDisk, ending: string): string {
  const name = disk.names.find((candidate) => candidate.endsWith(ending));
  if (name === undefined) throw new Error(`no ${ending} among ${disk.names.join()}`);
  return name;
}

for (const ending of ['.part', '.checkpoint']) {
  void t.test(`every byte of a ${ending} file, and every length`, { timeout: 120_000 }, async (t) => {
    const disk = await closedStore();
    const name = fileOf(disk, ending);
    const whole = Buffer.from(disk.content(name));
    const head =
      whole.length > 4096 ? [...Array(2048).keys(), ...Array.from({ length: 1024 }, (_, i) => whole.length - 1024 + i)] : [...whole.keys()];
    const missed: string[] = [];
    const expect = async (what: string, content: Buffer | undefined): Promise<void> => {
      const damaged = copyOf(disk);
      damaged.place(name, content);
      const error = await openError(damaged);
      const told = error !== undefined && (error.code === 'FV_CORRUPT' || error.code === 'FV_VERSION');
      if (!told || (content !== undefined && error.file?.endsWith(name) !== true)) missed.push(`${what}: ${String(error)}`);
    };
    for (const at of head) {
      const flipped = Buffer.from(whole);
      flipped[at] ^= 1 << (at % 8);
      await expect(`byte ${at}`, flipped);
    }
    for (const length of head) await expect(`cut to ${length}`, Buffer.from(whole.subarray(0, length)));
    await expect('one byte more', Buffer.concat([whole, Buffer.alloc(1)]));
    await expect('missing', undefined);
    t.same(missed, []);
    t.comment(`${head.length} bytes, ${head.length} lengths`);
    t.equal(await openError(copyOf(disk)), undefined, 'and the undamaged one opens');
  });
}

void t.test('files swapped, from another store, from another checkpoint', async (t) => {
  const disk = await closedStore(1);
  const other = await closedStore(2);
  for (const ending of ['.part', '.checkpoint', '.wal', 'store.fv']) {
    const mixed = copyOf(disk);
    mixed.place(fileOf(disk, ending), Buffer.from(other.content(fileOf(other, ending))));
    t.match(await openError(mixed), { code: 'FV_CORRUPT' }, ending);
  }
  const renumbered = copyOf(disk);
  const manifest = fileOf(disk, '.checkpoint');
  renumbered.place('000000000009.checkpoint', Buffer.from(disk.content(manifest)));
  renumbered.place(manifest, undefined);
  t.match(await openError(renumbered), { code: 'FV_CORRUPT', offset: 40 });
  const part = fileOf(disk, '.part');
  const swapped = copyOf(disk);
  swapped.place(part, Buffer.from(disk.content(manifest)));
  t.match(await openError(swapped), { code: 'FV_CORRUPT' });
});

void t.test('a damaged checkpoint, with the one before still there: that one and the log', async (t) => {
  const seed = testSeed(t);
  const disk = new SimulatedDisk();
  const store = await fill(disk, 1);
  for (let i = 0; i < 6; i++) await store.settle(store.db.put(`key${i}`, { id: i, mark: 2 }));
  // The power goes when the new checkpoint counts and the old one is to be removed.
  const probe = new SimulatedDisk();
  const rehearsal = await fill(probe, 1);
  for (let i = 0; i < 6; i++) await rehearsal.settle(rehearsal.db.put(`key${i}`, { id: i, mark: 2 }));
  await rehearsal.settle(rehearsal.db.checkpoint());
  rehearsal.dispose();
  const at = probe.operations.lastIndexOf('remove 000000000001.checkpoint') + 1;
  t.ok(at > 0);
  disk.fault = { at, kind: 'cut' };
  await store.settle(store.db.checkpoint()).catch(() => undefined);
  store.dispose();
  const left = disk.restarted('lost', seed);
  t.ok(left.names.includes('000000000001.checkpoint') && left.names.includes('000000000002.checkpoint'), left.names.join());
  for (const name of ['000000000002.checkpoint', '000000000002-000.part']) {
    const damaged = copyOf(left);
    damaged.content(name)[70] ^= 4;
    const opened = await HarnessStore.open(damaged);
    t.same(opened.db.get('key3'), { id: 3, mark: 2 }, `${name} damaged`);
    t.equal(opened.db.get('later'), 1);
    t.equal(opened.db.size, 8);
    await opened.settle(opened.db.checkpoint());
    t.equal(opened.reports.at(-1)?.error, undefined);
    await opened.close();
    t.notOk(damaged.names.includes('000000000002.checkpoint'), 'the damaged one is gone once there is a better one');
    const again = await HarnessStore.open(damaged);
    t.equal(again.db.size, 8);
    again.dispose();
  }
  const damageBoth = (damaged: SimulatedDisk): SimulatedDisk => {
    damaged.content('000000000002.checkpoint')[70] ^= 4;
    damaged.content('000000000001-000.part')[100] ^= 4;
    return damaged;
  };
  t.match(await openError(damageBoth(copyOf(left))), { code: 'FV_CORRUPT', file: '/store/000000000002.checkpoint' }, 'both damaged');
  const noLog = damageBoth(copyOf(left));
  noLog.place('000000000001.wal', undefined);
  t.match(await openError(noLog), { code: 'FV_CORRUPT', file: '/store/000000000002.checkpoint' }, 'the newest damage is told');
});

void t.test('a log that ends before what the checkpoint says was durable', async (t) => {
  const disk = new SimulatedDisk();
  const store = await fill(disk, 1);
  const checkpoint = store.db.checkpoint();
  let isDone = false;
  void checkpoint.finally(() => {
    isDone = true;
  });
  // Writes while it runs: some lie behind its start, before its end.
  for (let i = 0; !isDone; i++) {
    void store.db.put(`meanwhile${i}`, i);
    store.pump();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await checkpoint;
  await store.close();
  t.equal(await openError(copyOf(disk)), undefined);
  const name = disk.names.filter((candidate) => candidate.endsWith('.wal')).at(-1) as string;
  const cut = copyOf(disk);
  cut.content(name).fill(0, 4096);
  t.match(await openError(cut), { code: 'FV_CORRUPT', lsnLast: /\d+/ }, name);
});
