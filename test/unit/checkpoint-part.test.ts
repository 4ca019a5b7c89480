/** A checkpoint's part as it is written: in stretches that others can get between, and read back as it was given. */

import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { BLOCK_HEADER_BYTES, PART_HEADER_BYTES, partName, partSeed } from '../../src/checkpoint/format.js';
import { PartWriter, SYNC_OFTEN_BYTES, type EntrySource } from '../../src/checkpoint/part-writer.js';
import { publishCheckpoint } from '../../src/checkpoint/publish.js';
import { readPart } from '../../src/checkpoint/part-reader.js';
import { Checksum } from '../../src/platform/checksum.js';
import { createFileSystem } from '../../src/platform/node-files.js';
import runTask from '../../workers/checkpoint.js';
import { counted, countedFiles, createFileSystem as countFiles } from '../support/counted-files.js';
import { emptyCore, put } from '../support/index-harness.js';
import { tempFolder } from '../support/temp.js';

const IDENTITY = { storeId: Buffer.alloc(16, 7), checkpoint: 1, part: 0 };
const HEAD_WORDS = 4;
const KEY_BYTES = 8;
/** Words that may lie between two stretches: one of them, and the entry that ends it. */
const STRETCH_WORDS_MAX = 8 * 1024 + 300;
const BLOCK_BYTES_MAX = 64 * 1024;

/** Entries with the keys 0, 1, 2, … and values of up to a KiB. */
class Entries implements EntrySource {
  given = 0;
  words = 0;

  constructor(readonly count: number) {}

  next(into: Int32Array, at: number, limit: number): number {
    if (this.given === this.count) return 0;
    const valueBytes = 4 * (this.given % 256);
    const words = HEAD_WORDS + KEY_BYTES / 4 + valueBytes / 4;
    if (at + words > limit) return -words;
    into.fill(0, at, at + words);
    into[at] = KEY_BYTES;
    into[at + 1] = valueBytes;
    into[at + 2] = 1;
    into[at + HEAD_WORDS] = this.given++;
    this.words += words;
    return words;
  }

  openLong(): number {
    throw new Error('no entry is long');
  }

  readLong(): boolean {
    throw new Error('no entry is long');
  }

  closeLong(): void {
    throw new Error('no entry is long');
  }
}

void t.test('writing a part never works for long without telling', async (t) => {
  const files = createFileSystem();
  const checksum = await Checksum.load();
  const folder = tempFolder(t);
  const writer = new PartWriter(files, checksum, folder, IDENTITY);
  const source = new Entries(5000);
  let before = 0;
  let longest = 0;
  let stretches = 0;
  writer.add(source, () => {
    longest = Math.max(longest, source.words - before);
    before = source.words;
    stretches++;
  });
  t.ok(longest <= STRETCH_WORDS_MAX, `${longest} words at a stretch, ${stretches} stretches`);
  t.ok(source.words - before <= STRETCH_WORDS_MAX, 'the last stretch is no longer');
  const summary = writer.finish();
  t.equal(summary.entries, 5000);
  t.ok(summary.bytes > PART_HEADER_BYTES + source.words * 4);

  const keys: number[] = [];
  let read = PART_HEADER_BYTES;
  let longestBlock = 0;
  readPart(files, checksum, folder, IDENTITY, summary, {
    entry: (entry, payload) => keys.push(payload.readInt32LE(entry.keyStart)),
    progress: (bytes) => {
      longestBlock = Math.max(longestBlock, bytes - read);
      read = bytes;
    },
  });
  t.ok(longestBlock <= BLOCK_BYTES_MAX, `${longestBlock} bytes are summed up and written, or read back, without telling`);
  t.same(
    keys,
    Array.from({ length: 5000 }, (_, i) => i),
  );
});

void t.test('reading a checkpoint back after it was published tells after every block', async (t) => {
  const files = createFileSystem();
  const checksum = await Checksum.load();
  const folder = tempFolder(t);
  const writer = new PartWriter(files, checksum, folder, IDENTITY);
  writer.add(new Entries(1000), () => undefined);
  const part = writer.finish();
  const { storeId, checkpoint } = IDENTITY;
  const manifest = { storeId, number: checkpoint, startLsn: 1, endLsn: 1, createdMs: 0, entries: 1000, parts: [part], structures: [] };
  let told = 0;
  t.same(
    publishCheckpoint(files, checksum, folder, manifest, () => told++),
    { retired: 0 },
  );
  t.ok(part.blocks > 5);
  t.equal(told, part.blocks);
});

void t.test('a thread that is slow at writing a part tells as often as a quick one', async (t) => {
  const source = new Entries(1000);
  // Each look at the clock finds it a millisecond later.
  let clock = 0;
  const writer = new PartWriter(createFileSystem(), await Checksum.load(), tempFolder(t), IDENTITY, undefined, () => clock++);
  let stretches = 0;
  writer.add(source, () => stretches++);
  writer.abandon();
  // Once for every eight entries of a block, and after each block.
  t.ok(stretches >= 1000 / 8 && stretches < 1000 / 4, `${stretches} stretches`);
});

void t.test('a part is synced as often as it was told', async (t) => {
  const checksum = await Checksum.load();
  for (const syncEveryBytes of [undefined, SYNC_OFTEN_BYTES]) {
    Object.assign(counted, { syncs: 0, unsynced: 0, unsyncedMost: 0 });
    const writer = new PartWriter(countFiles(), checksum, tempFolder(t), IDENTITY, syncEveryBytes);
    for (let i = 0; i < 10; i++) writer.add(new Entries(5000), () => undefined);
    const { bytes } = writer.finish();
    const every = syncEveryBytes ?? 4 * 1024 * 1024;
    t.ok(counted.unsyncedMost < every + BLOCK_BYTES_MAX, `at most ${counted.unsyncedMost} bytes were not synced`);
    t.ok(
      counted.syncs >= Math.floor(bytes / (every + BLOCK_BYTES_MAX)) && counted.syncs <= bytes / every + 1,
      `${counted.syncs} syncs of ${bytes} bytes`,
    );
  }
});

void t.test('the task that writes a part syncs often where it rests', async (t) => {
  const core = emptyCore(1);
  for (let i = 0; i < 20_000; i++) put(core, `key${i}`, 'v'.repeat(100));
  for (const rests of [true, false]) {
    Object.assign(counted, { syncs: 0, unsynced: 0, unsyncedMost: 0 });
    const common = { directory: tempFolder(t), files: countedFiles(), storeId: IDENTITY.storeId, checkpoint: 1, givesWay: false };
    const { control, shards } = core.handle;
    const { wait } = Atomics;
    t.teardown(() => (Atomics.wait = wait));
    const waits = new Set<number>();
    Atomics.wait = ((...args: Parameters<typeof wait>) => {
      waits.add(args[3] ?? Infinity);
      return 'timed-out';
    }) as typeof wait;
    const done = await runTask({ kind: 'write', ...common, control, shards: [...shards], part: 0, parts: 1, restMs: rests ? 0.1 : 0 });
    Atomics.wait = wait;
    t.same([...waits], rests ? [0.1] : [], 'rests for so long, or not at all');
    if (done.error !== undefined) throw new Error(done.error.message);
    t.equal(done.part?.entries, 20_000);
    const every = rests ? SYNC_OFTEN_BYTES : (done.part?.bytes ?? 0);
    t.equal(counted.syncs > 5, rests, `${counted.syncs} syncs`);
    t.ok(counted.unsyncedMost < every + BLOCK_BYTES_MAX, `at most ${counted.unsyncedMost} bytes were not synced`);
  }
});

void t.test('a part can be given up in the middle of a block', async (t) => {
  const files = createFileSystem();
  const folder = tempFolder(t);
  const writer = new PartWriter(files, await Checksum.load(), folder, IDENTITY);
  const source = new Entries(5000);
  t.throws(
    () =>
      writer.add(source, () => {
        throw new Error('enough');
      }),
    { message: 'enough' },
  );
  writer.abandon();
  t.ok(source.words <= STRETCH_WORDS_MAX, `${source.words} words were read before it stopped`);
  const file = files.open(path.join(folder, partName(1, 0)), 'read');
  t.equal(file.size(), PART_HEADER_BYTES, 'no block was written');
  file.close();
});

void t.test('a block that is not whole words is damage, though its checksum is right', async (t) => {
  const files = createFileSystem();
  const checksum = await Checksum.load();
  const folder = tempFolder(t);
  const writer = new PartWriter(files, checksum, folder, IDENTITY);
  writer.add(new Entries(3), () => undefined);
  const summary = writer.finish();
  const file = path.join(folder, partName(1, 0));
  const bytes = fs.readFileSync(file);
  const payloadBytes = bytes.readUInt32LE(PART_HEADER_BYTES + 16) + 2;
  bytes.writeUInt32LE(payloadBytes, PART_HEADER_BYTES + 16);
  const block = bytes.subarray(PART_HEADER_BYTES, PART_HEADER_BYTES + BLOCK_HEADER_BYTES + payloadBytes);
  block.writeBigUInt64LE(checksum.of(block.subarray(8), partSeed(checksum, IDENTITY)), 0);
  fs.writeFileSync(file, bytes);
  const visitor = { entry: () => undefined, progress: () => undefined };
  t.throws(() => readPart(files, checksum, folder, IDENTITY, summary, visitor), {
    code: 'FV_CORRUPT',
    offset: PART_HEADER_BYTES,
    message: /block 0 does not begin here/,
  });
});
