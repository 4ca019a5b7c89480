/** The log writer and the group commit loop over files that fail, without threads. */

import t from 'tap';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { FlashVectorError } from '../../src/base/errors.js';
import { KIND_SKIP, recordState } from '../../src/base/record.js';
import type { FileSystem } from '../../src/platform/files.js';
import { Checksum } from '../../src/platform/checksum.js';
import { runGroupCommit, type RecordRun, type RecordSource } from '../../src/wal/group-commit.js';
import { LogReader } from '../../src/wal/log-reader.js';
import { SegmentWriter } from '../../src/wal/segment-writer.js';
import { retireSegment } from '../../src/wal/spare-segments.js';
import { createFileSystem, type Faults } from '../support/faulty-files.js';
import { randomFrom, testSeed } from '../support/random.js';
import { tempFolder } from '../support/temp.js';

const checksum = await Checksum.load();
const storeId = randomBytes(16);
const SEGMENT = 65_536;

/** Records of the given sizes; hands them out in runs, and notes what is acknowledged. */
class Source implements RecordSource {
  acknowledged = 0;
  stopping = true;
  #at = 0;

  constructor(
    readonly sizes: number[],
    readonly runOf: () => number,
  ) {}

  /** Records handed out so far. */
  get taken(): number {
    return this.#at;
  }

  get drained(): boolean {
    return this.#at === this.sizes.length;
  }

  take(): RecordRun | undefined {
    if (this.drained) return undefined;
    const count = Math.min(this.runOf(), this.sizes.length - this.#at);
    const parts: Buffer[] = [];
    for (let i = 0; i < count; i++) {
      const record = Buffer.alloc(this.sizes[this.#at + i], 7);
      record.writeUInt32LE(record.length, 0);
      record.writeUInt32LE(recordState(KIND_SKIP, 2, 1), 4);
      record.writeUInt32LE(this.#at + i + 1, 8);
      record.writeUInt32LE(0, 12);
      parts.push(record);
    }
    const firstLsn = this.#at + 1;
    this.#at += count;
    return {
      bytes: Buffer.concat(parts),
      records: count,
      firstLsn,
      lastLsn: this.#at,
      wantsSync: this.wantsSync,
      wantsAck: true,
      more: false,
    };
  }

  release(): void {}
  wait(): void {}
  gather(): void {}
  /** Pauses, each with how many records had been handed out before. */
  readonly lingered: number[] = [];
  linger(ms: number): void {
    if (ms > 0) this.lingered.push(this.#at);
  }
  /** Whether the records wait for a sync, or only to be written. */
  wantsSync = true;
  /** Whether somebody listens to what is told. */
  listens = true;
  /** The rests that were taken, in ms. */
  readonly rests: number[] = [];
  rest(ms: number): void {
    this.rests.push(ms);
  }
  beat(): void {}
  /** Asks for a new segment each time that so many records have been taken. */
  rotateEvery = Infinity;
  #rotatedAt = 0;
  get rotationWanted(): boolean {
    return this.#at - this.#rotatedAt >= this.rotateEvery;
  }
  rotated(): void {
    this.#rotatedAt = this.#at;
  }
  takeSyncRequest(): boolean {
    return false;
  }
  progress(_written: number, durable: number): boolean {
    this.acknowledged = durable;
    return this.listens;
  }
}

const silent = { frame: (): void => undefined, sync: (): void => undefined, segments: (): void => undefined };
const settings = {
  syncIntervalMs: 1000,
  commitDelayMs: 0,
  frameBytesMax: 1 << 20,
  groupBytesMax: 2 << 20,
  restBytesMax: 1 << 20,
  lastLsn: 0,
};

function write(
  folder: string,
  faults: Faults,
  source: Source,
  commitDelayMs = 0,
  now = () => performance.now(),
  groupBytesMax = settings.groupBytesMax,
): Error | undefined {
  try {
    const writer = new SegmentWriter(
      createFileSystem(faults),
      checksum,
      { directory: folder, storeId, segmentBytes: SEGMENT },
      { segment: 1, offset: 0, segmentBytes: SEGMENT, lastLsn: 0 },
    );
    runGroupCommit(source, writer, silent, { ...settings, commitDelayMs, groupBytesMax }, now);
    writer.close();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

function readBack(folder: string): { lastLsn: number; clean: boolean; records: number } {
  const reader = new LogReader(createFileSystem({}), checksum, folder, storeId, SEGMENT);
  let records = 0;
  const summary = reader.read({
    frame: (header) => {
      records += header.records;
    },
    progress: () => undefined,
  });
  return { lastLsn: summary.end.lastLsn, clean: summary.clean, records };
}

function workload(seed: number): Source {
  const random = randomFrom(seed);
  // A record of 200 KiB is larger than a segment.
  const sizes = Array.from({ length: 120 }, (_, i) => (i === 60 ? 200 * 1024 : 16 + 8 * Math.floor(random() * 400)));
  return new Source(sizes, () => 1 + Math.floor(random() * 6));
}

void t.test('where nobody listens the log rests after a group, for less after large ones; where somebody does it never rests', (t) => {
  const sizes = [64, 64, 300_000, 300_000, 300_000, 64, 64, 64, 64, 64].flatMap((bytes) => [bytes, bytes, bytes, bytes]);
  const unheard = new Source(sizes, () => 4);
  unheard.listens = false;
  t.equal(write(tempFolder(t), {}, unheard), undefined);
  t.same(unheard.rests, [0.5, 0.5, 0.25, 0.125, 0.125, 0.25, 0.5, 0.5, 0.5, 0.5]);
  t.equal(unheard.acknowledged, sizes.length);
  const written = new Source(sizes, () => 4);
  written.listens = false;
  written.wantsSync = false;
  t.equal(
    write(tempFolder(t), {}, written, 0, () => 0),
    undefined,
  );
  t.same(written.rests, [], 'nor after a mere write: who waits for that is back in no time');
  const heard = new Source(sizes, () => 4);
  t.equal(write(tempFolder(t), {}, heard), undefined);
  t.same(heard.rests, []);
  t.end();
});

void t.test(
  'regression: what nobody wants synced was left until the interval had passed, however much it was, and the sync then took so long that the ring was full',
  (t) => {
    const source = new Source(
      Array.from({ length: 20 }, () => 1000),
      () => 2,
    );
    source.wantsSync = false;
    const durable: number[] = [];
    source.progress = (_written, durableLsn) => {
      if (durable.at(-1) !== durableLsn) durable.push(durableLsn);
      return true;
    };
    t.equal(
      write(tempFolder(t), {}, source, 0, () => 0, 5500),
      undefined,
    );
    t.same(durable, [0, 6, 12, 18, 20]);
    t.end();
  },
);

/** Its first run says that more is there, which turns out not to be published yet. */
class Interrupted extends Source {
  #runs = 0;
  override take(): RecordRun | undefined {
    this.#runs++;
    if (this.#runs === 2) return undefined;
    const run = super.take();
    if (run !== undefined && this.#runs === 1) run.more = true;
    return run;
  }
}

void t.test('after a mere write the log rests only where nobody has listened for a while, and of many records', (t) => {
  const run = (listens: (told: number) => boolean, recordsAtOnce = 50): number[] => {
    const source = new Source(
      Array.from({ length: 20 * recordsAtOnce }, () => 64),
      () => recordsAtOnce,
    );
    source.wantsSync = false;
    let ms = 5000;
    let told = 0;
    const restedAt: number[] = [];
    source.progress = () => {
      ms += 0.3;
      return listens(told++);
    };
    source.rest = () => void restedAt.push(told);
    t.equal(
      write(tempFolder(t), {}, source, 0, () => ms),
      undefined,
    );
    return restedAt;
  };
  const to = (from: number): number[] => Array.from({ length: 21 - from }, (_, i) => from + i);
  t.same(
    run(() => true),
    [],
  );
  t.same(
    run((told) => told === 5),
    [4, 5, ...to(10)],
    'longer than a millisecond after the beginning, and after somebody was told of the sixth',
  );
  t.same(
    run((told) => told % 3 === 0),
    [],
    'somebody listens again and again',
  );
  t.same(
    run(() => false, 10),
    to(10),
    'the first hundred records are written at once, however long they take',
  );
  t.same(
    run((told) => told === 11, 10),
    [10, 11],
    'and so are the next, once somebody was told of the twelfth group',
  );
  t.end();
});

void t.test('of a group all runs count as records that nobody has heard of', (t) => {
  let taken = 0;
  const source = new (class extends Source {
    override take(): RecordRun | undefined {
      const run = super.take();
      return run && { ...run, more: ++taken % 2 === 1 };
    }
  })(
    Array.from({ length: 300 }, () => 64),
    () => 30,
  );
  source.wantsSync = false;
  let ms = 5000;
  let told = 0;
  const restedAt: number[] = [];
  source.progress = () => {
    ms += 0.6;
    told++;
    return false;
  };
  source.rest = () => void restedAt.push(told);
  t.equal(
    write(tempFolder(t), {}, source, 0, () => ms),
    undefined,
  );
  t.same(restedAt, [2, 3, 4, 5]);
  t.end();
});

void t.test('regression: who had been told by a sync that was asked for counted as one who had heard of nothing', (t) => {
  const rests = (listens: boolean): number => {
    let ms = 5000;
    let isAsked = false;
    const source = new (class extends Source {
      override take(): RecordRun | undefined {
        if (this.taken === 90 && !isAsked) return undefined;
        ms += 0.3;
        return super.take();
      }
      override takeSyncRequest(): boolean {
        if (this.taken !== 90 || isAsked) return false;
        isAsked = true;
        this.listens = listens;
        return true;
      }
      override progress(written: number, durable: number): boolean {
        const isHeard = super.progress(written, durable);
        if (isAsked) this.listens = false;
        return isHeard;
      }
    })(
      Array.from({ length: 110 }, () => 64),
      () => 10,
    );
    source.wantsSync = false;
    source.listens = false;
    // The ninth group's own look at requests comes first.
    let looks = 0;
    const ask = source.takeSyncRequest.bind(source);
    source.takeSyncRequest = () => (source.taken === 90 && looks++ === 0 ? false : ask());
    t.equal(
      write(tempFolder(t), {}, source, 0, () => ms),
      undefined,
    );
    t.ok(isAsked);
    return source.rests.length;
  };
  t.equal(rests(false), 2, 'the hundredth record is followed by a rest, and so are those behind it');
  t.equal(rests(true), 0);
  t.end();
});

void t.test('while more is there to be taken it does not rest', (t) => {
  let taken = 0;
  const source = new (class extends Source {
    override take(): RecordRun | undefined {
      const run = super.take();
      // Groups are full before all is taken.
      return run && { ...run, more: ++taken < 10 };
    }
  })(
    Array.from({ length: 10 }, () => 60_000),
    () => 1,
  );
  source.listens = false;
  t.equal(write(tempFolder(t), {}, source, 0, undefined, 64 * 1024), undefined);
  t.equal(source.rests.length, 1, 'but after the last one');
  t.end();
});

void t.test('a pause with nothing to tell does not count as one in which nobody has listened', (t) => {
  const rests = (pauseMs: (nth: number) => number, recordsAtOnce = 100): number => {
    let ms = 0;
    let isPause = false;
    let pauses = 0;
    const source = new (class extends Source {
      override take(): RecordRun | undefined {
        isPause = !isPause;
        return isPause ? undefined : super.take();
      }
      override get drained(): boolean {
        return super.drained && isPause;
      }
      override wait(): void {
        ms += pauseMs(pauses++);
      }
    })(
      Array.from({ length: 20 * recordsAtOnce }, () => 64),
      () => recordsAtOnce,
    );
    source.wantsSync = false;
    source.listens = false;
    t.equal(
      write(tempFolder(t), {}, source, 0, () => ms),
      undefined,
    );
    return source.rests.length;
  };
  t.equal(
    rests(() => 2),
    0,
  );
  t.ok(rests(() => 0.3) > 10, 'but many short ones are none');
  t.equal(
    rests((nth) => (nth === 1 ? 2 : 0.9), 30),
    16,
    'the hundred records are counted from its end on: the first rest is after the fifth group',
  );
  t.end();
});

void t.test('a group whose rest is not there yet ends, and the next rest does not count its bytes', (t) => {
  const source = new Interrupted([600_000, 600_000, 64], () => 1);
  source.listens = false;
  t.equal(write(tempFolder(t), {}, source), undefined);
  t.equal(source.acknowledged, 3);
  t.same(source.rests, [0.5, 0.5]);
  t.end();
});

void t.test('a commit delay follows groups of eight and more, and no others', (t) => {
  const runs = [1, 8, 7, 20, 1];
  const make = (): Source => {
    let next = 0;
    return new Source(
      Array.from({ length: 37 }, () => 64),
      () => runs[next++],
    );
  };
  const delayed = make();
  t.equal(write(tempFolder(t), {}, delayed, 0.25), undefined);
  t.same(delayed.lingered, [9, 36]);
  t.equal(delayed.acknowledged, 37);
  const undelayed = make();
  t.equal(write(tempFolder(t), {}, undelayed), undefined);
  t.same(undelayed.lingered, []);
  t.end();
});

void t.test('writes, rotates, ends clean, and reads back', (t) => {
  const folder = tempFolder(t);
  const source = workload(testSeed(t));
  t.equal(write(folder, {}, source), undefined);
  t.equal(source.acknowledged, 120);
  t.same(readBack(folder), { lastLsn: 120, clean: true, records: 120 });
  t.end();
});

void t.test('nothing is called durable before a sync that came after its write', (t) => {
  const folder = tempFolder(t);
  const source = workload(testSeed(t));
  const files = createFileSystem({});
  let takenLsn = 0;
  let syncedLsn = 0;
  let early = 0;
  const watched: FileSystem = {
    ...files,
    open: (file, mode) => {
      const open = files.open(file, mode);
      return {
        ...open,
        sync: () => {
          open.sync();
          syncedLsn = takenLsn;
        },
      };
    },
  };
  const take = source.take.bind(source);
  source.take = () => {
    const run = take();
    // A rotation syncs the segment before this run's frame is written, so only what came before counts as taken.
    if (run !== undefined) takenLsn = run.firstLsn - 1;
    return run;
  };
  source.release = () => {
    takenLsn = source.taken;
  };
  source.progress = (_written, durable) => {
    if (durable > syncedLsn) early++;
    source.acknowledged = durable;
    return true;
  };
  const end = { segment: 1, offset: 0, segmentBytes: SEGMENT, lastLsn: 0 };
  const writer = new SegmentWriter(watched, checksum, { directory: folder, storeId, segmentBytes: SEGMENT }, end);
  runGroupCommit(source, writer, silent, settings, () => performance.now());
  writer.close();
  t.equal(early, 0);
  t.equal(source.acknowledged, 120);
  t.end();
});

void t.test('a recycled segment holds nothing of its earlier life', (t) => {
  const folder = tempFolder(t);
  const files = createFileSystem({});
  // Segments full of frames of this very store, given up, and used again from their beginning on.
  t.equal(write(folder, {}, workload(1)), undefined);
  const first = fs.readdirSync(folder).filter((name) => name.endsWith('.wal')).length;
  t.ok(first > 3);
  for (let number = 1; number <= first; number++) retireSegment(files, folder, number, 2 * SEGMENT);
  const spares = fs.readdirSync(folder).filter((name) => name.endsWith('.free'));
  t.equal(spares.length, 2, 'no more than two are kept');
  // Numbers never come back in a store; this log starts at 1 again, so the spare of that number must not serve.
  fs.rmSync(path.join(folder, '000000000001.free'));
  const second = new Source([16, 24, 32], () => 1);
  t.equal(write(folder, {}, second), undefined);
  t.same(fs.readdirSync(folder).filter((name) => name.endsWith('.free')).length, 0, 'one was used');
  t.equal(fs.statSync(path.join(folder, '000000000001.wal')).size, SEGMENT);
  t.same(readBack(folder), { lastLsn: 3, clean: true, records: 3 }, 'what lies behind is not believed');
  // A crash before the closing frame: still nothing comes back.
  const file = path.join(folder, '000000000001.wal');
  const bytes = fs.readFileSync(file);
  const closing = bytes.lastIndexOf(Buffer.from('VFRM'), 4096 + 64 * 4 + 16 + 24 + 32);
  bytes[closing + 4] ^= 0xff;
  fs.writeFileSync(file, bytes);
  t.equal(readBack(folder).lastLsn, 3);
  t.end();
});

void t.test('a new segment on request, and none while nothing is in the last one', (t) => {
  const folder = tempFolder(t);
  const source = new Source(
    Array.from({ length: 9 }, () => 32),
    () => 1,
  );
  source.rotateEvery = 3;
  t.equal(write(folder, {}, source), undefined);
  const segments = fs.readdirSync(folder).filter((name) => name.endsWith('.wal'));
  t.equal(segments.length, 4, segments.join());
  t.same(readBack(folder), { lastLsn: 9, clean: true, records: 9 });
  const always = tempFolder(t);
  const idle = new Source([], () => 1);
  idle.rotateEvery = 0;
  t.equal(write(always, {}, idle), undefined);
  t.equal(fs.readdirSync(always).length, 1);
  t.end();
});

void t.test('short writes lose nothing', (t) => {
  const folder = tempFolder(t);
  const seed = testSeed(t);
  const source = workload(seed);
  t.equal(write(folder, { shortWrites: seed }, source), undefined);
  t.same(readBack(folder), { lastLsn: 120, clean: true, records: 120 });
  t.end();
});

for (const [fault, limit] of [
  ['failWrite', 200],
  ['failSync', 100],
  ['failCreate', 12],
  ['failRename', 12],
  ['failDirectorySync', 12],
] as const) {
  void t.test(`${fault} at every point: nothing is acknowledged after it, nothing acknowledged is lost`, (t) => {
    const seed = testSeed(t);
    let failures = 0;
    for (let n = 1; n <= limit; n++) {
      const folder = tempFolder(t);
      const source = workload(seed);
      const error = write(folder, { [fault]: n, code: n % 2 === 0 ? 'EIO' : 'ENOSPC', shortWrites: n % 3 === 0 ? n : undefined }, source);
      if (error === undefined) continue;
      failures++;
      if (!(error instanceof FlashVectorError) || error.code !== 'FV_IO') {
        t.fail(`${fault} ${n}: ${error.stack}`);
        t.end();
        return;
      }
      if (n === 1 && fault !== 'failSync') continue;
      const found = readBack(folder);
      if (found.lastLsn < source.acknowledged) {
        t.fail(`${fault} ${n}: ${source.acknowledged} acknowledged, ${found.lastLsn} found`);
        t.end();
        return;
      }
    }
    t.ok(failures > 3, `${failures} failures were injected`);
    t.end();
  });
}
