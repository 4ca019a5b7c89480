/**
 * Offline repair: takes out of a damaged store whatever verifies, into a new one, and says what was lost. The damaged
 * store is not changed.
 *
 * Of a key the youngest state counts that can be found in any checkpoint or frame. A delete that was in a lost
 * frame cannot be known: its key may come back.
 */

import path from 'node:path';
import { FlashVectorError } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import { resolveOptions } from '../base/options.js';
import { checkpointNumbers, readManifest } from '../checkpoint/catalog.js';
import { completeCopy, discardCopy, prepareTarget } from '../checkpoint/copy.js';
import { partCheckpoint, type Manifest } from '../checkpoint/format.js';
import { scanPart } from '../checkpoint/part-reader.js';
import { PartWriter } from '../checkpoint/part-writer.js';
import * as L from '../memory/layout.js';
import { claimSlot } from '../memory/registry.js';
import { Checksum } from '../platform/checksum.js';
import type { FileSystem } from '../platform/files.js';
import { refuseHeldFolder } from '../platform/folder-lock.js';
import { loadFileSystem } from '../platform/load-files.js';
import { NODE_FILES } from '../platform/node-files.js';
import { Capture } from '../table/capture.js';
import { Loader } from '../table/load.js';
import { Replayer } from '../table/replay.js';
import { newStoreId, readIdentity } from '../wal/identity.js';
import { SEGMENT_HEADER_BYTES, segmentNumber } from '../wal/format.js';
import { visitRecords } from '../wal/records.js';
import { scanSegment, type SegmentScan } from '../wal/scan.js';
import { Core } from './core.js';
import { createMemory } from './memory.js';

export interface Loss {
  file: string;
  offset: number;
  message: string;
}

export interface RepairReport {
  directory: string;
  out: string;
  /** Entries in the new store. */
  entries: number;
  /** Records taken from the log, and entries from checkpoints. */
  records: number;
  checkpointEntries: number;
  lastLsn: number;
  /** What could not be read. Empty: nothing was lost. */
  losses: Loss[];
}

class Salvage {
  readonly report: RepairReport;
  readonly core: Core;
  readonly #loader: Loader;
  readonly #replayer: Replayer;
  #structures = 0;
  /** From the newest manifest that can be read: where the log is needed from, and what it reached. */
  #startLsn = 1;
  #endLsn = 0;
  /** Highest LSN of an entry from a checkpoint. */
  #entryLsn = 0;

  constructor(
    readonly files: FileSystem,
    readonly checksum: Checksum,
    directory: string,
    out: string,
  ) {
    this.report = { directory, out, entries: 0, records: 0, checkpointEntries: 0, lastLsn: 0, losses: [] };
    this.core = new Core(createMemory(resolveOptions({ ordered: false })), L.OWNER_SLOT);
    claimSlot(this.core.control, L.OWNER_SLOT, 0);
    const { shards, scratch, dictionary } = this.core;
    this.#loader = new Loader(shards, scratch, 1);
    this.#replayer = new Replayer(shards, scratch, dictionary, { index: 0, count: 1 });
  }

  #lose(file: string, offset: number, message: string): void {
    this.report.losses.push({ file, offset, message });
  }

  run(segmentBytes: number): void {
    const { files, checksum, report } = this;
    const { directory, out } = report;
    let storeId: Buffer | undefined;
    try {
      storeId = readIdentity(files, checksum, directory);
    } catch (error) {
      this.#note(error, directory);
    }
    storeId = this.#loadCheckpoints(storeId);
    this.#replaySegments(storeId);
    report.entries = this.core.shards.reduce((sum, shard) => sum + shard.entryCount, 0);
    report.lastLsn = Math.max(report.lastLsn, this.#endLsn, this.#entryLsn);
    this.#write(out, segmentBytes);
  }

  #note(error: unknown, file: string): void {
    if (!(error instanceof FlashVectorError)) throw error;
    this.#lose(error.file ?? file, error.offset ?? 0, error.message);
  }

  /** Oldest first; the loader keeps the younger of two entries. @returns the store's id, from wherever it can be had */
  #loadCheckpoints(known: Buffer | undefined): Buffer | undefined {
    const { files, checksum } = this;
    const { directory } = this.report;
    let storeId = known;
    const names = files.list(directory);
    if (storeId === undefined) {
      const number = names.flatMap((name) => segmentNumber(name) ?? []).at(-1);
      if (number !== undefined) storeId = scanSegment(files, checksum, directory, undefined, number, () => undefined).header?.storeId;
    }
    if (storeId === undefined) return undefined;
    const manifests = new Map<number, Manifest | undefined>();
    for (const number of checkpointNumbers(files, directory)) {
      try {
        manifests.set(number, readManifest(files, checksum, directory, storeId, number));
      } catch (error) {
        this.#note(error, directory);
        manifests.set(number, undefined);
      }
    }
    for (const name of names) {
      const number = partCheckpoint(name);
      if (number === undefined || manifests.has(number)) continue;
      manifests.set(number, undefined);
      this.#lose(
        path.join(directory, name),
        0,
        `the manifest of checkpoint ${number} is missing: whether its parts are complete cannot be told`,
      );
    }
    for (const [number, manifest] of [...manifests].sort(([a], [b]) => a - b)) {
      if (manifest !== undefined) {
        this.#startLsn = manifest.startLsn;
        this.#endLsn = Math.max(this.#endLsn, manifest.endLsn);
        manifest.structures.forEach((text, structure) => this.#structure(structure, text));
      }
      const parts = names.filter((name) => partCheckpoint(name) === number).map((name) => Number(name.slice(13, 16)));
      for (const summary of manifest?.parts ?? [])
        if (!parts.includes(summary.part))
          this.#lose(directory, 0, `part ${summary.part} of checkpoint ${number} is missing: ${summary.entries} entries`);
      for (const part of parts) this.#loadPart(storeId, number, part, manifest);
    }
    return storeId;
  }

  #loadPart(storeId: Buffer, checkpoint: number, part: number, manifest: Manifest | undefined): void {
    const { files, checksum, report } = this;
    try {
      const scan = scanPart(
        files,
        checksum,
        report.directory,
        { storeId, checkpoint, part },
        {
          entry: (entry, payload) => {
            this.#entryLsn = Math.max(this.#entryLsn, lsnFrom(entry.lsnLow, entry.lsnHigh));
            this.#loader.entry(entry, payload);
          },
          block: () => undefined,
        },
      );
      report.checkpointEntries += scan.entries;
      for (const bad of scan.bad) this.#lose(scan.file, bad.offset, `${bad.what}${bad.bytes === 0 ? '' : `, ${bad.bytes} bytes`}`);
      const expected = manifest?.parts.find((summary) => summary.part === part)?.entries;
      if (expected !== undefined && scan.entries < expected)
        this.#lose(scan.file, 0, `${expected - scan.entries} of ${expected} entries cannot be read`);
    } catch (error) {
      this.#note(error, report.directory);
    }
  }

  #structure(number: number, text: Buffer): void {
    if (number < this.#structures) return;
    if (number > this.#structures) {
      this.#lose(this.report.directory, 0, `record structure ${this.#structures} is lost: values that use it cannot be decoded`);
      while (this.#structures < number) this.core.dictionary.append(this.#structures++, Buffer.from('["lost"]'));
    }
    this.core.dictionary.append(number, text);
    this.#structures++;
  }

  /**
   * Replays what the segments hold, as recovery would: of a segment only what comes before the next one's first LSN, because what lies
   * behind was cut off once and its LSNs were given out again; of the last one nothing behind a gap, unless a frame says
   * that the gap had been durable.
   */
  #replaySegments(storeId: Buffer | undefined): void {
    const { files, checksum, report } = this;
    const { directory } = report;
    const numbers = files.list(directory).flatMap((name) => segmentNumber(name) ?? []);
    const scans: (SegmentScan | undefined)[] = numbers.map((number) => {
      try {
        return scanSegment(files, checksum, directory, storeId, number, () => undefined);
      } catch (error) {
        this.#note(error, directory);
        return undefined;
      }
    });
    /** The LSN that is due. */
    let next = this.#startLsn;
    const lose = (file: string, offset: number, to: number): void => {
      if (to >= next) this.#lose(file, offset, `LSN ${next} to ${to} are lost`);
    };
    if (numbers.length === 0) this.#lose(directory, 0, 'there is no log: what was written after the checkpoint is lost');
    numbers.forEach((number, i) => {
      if (i > 0 && number !== numbers[i - 1] + 1)
        this.#lose(directory, 0, `log segments ${numbers[i - 1] + 1} to ${number - 1} are missing`);
      const scan = scans[i];
      if (scan === undefined) return;
      const limit = scans.slice(i + 1).find((later) => later?.header !== undefined)?.header?.firstLsn;
      let isOver = false;
      scanSegment(files, checksum, directory, storeId, number, (header, payload, offset) => {
        isOver ||= limit !== undefined && header.firstLsn >= limit;
        // A gap of which no frame says that it had been durable: a torn tail begins there.
        isOver ||= limit === undefined && header.firstLsn > next && scan.durableLsn < next;
        if (isOver || header.records === 0) return;
        lose(scan.file, offset, header.firstLsn - 1);
        next = Math.max(next, header.lastLsn + 1);
        report.lastLsn = Math.max(report.lastLsn, header.lastLsn);
        this.#replay(payload, header.records, header.firstLsn, scan.file, offset);
      });
      if (limit !== undefined) {
        lose(scan.file, scan.end, limit - 1);
        next = Math.max(next, limit);
      } else if (scan.durableLsn >= next) {
        lose(scan.file, scan.end, scan.durableLsn);
      }
      // What is lost in the frames is said above; a header says nothing of LSNs.
      for (const bad of scan.bad) if (bad.offset < SEGMENT_HEADER_BYTES) this.#lose(scan.file, bad.offset, bad.what);
    });
    lose(directory, 0, this.#endLsn);
  }

  #replay(payload: Buffer, records: number, firstLsn: number, file: string, offset: number): void {
    try {
      visitRecords(payload, records, firstLsn, file, offset, {
        operation: (operation, bytes, lsn) => {
          if (this.#replayer.isNewer(operation, bytes, lsn)) this.#replayer.operation(operation, bytes, lsn);
        },
        structure: (number, names) => this.#structure(number, names),
      });
      this.report.records += records;
    } catch (error) {
      this.#note(error, file);
    }
  }

  /** Writes what was found as a store: one checkpoint, and a log that begins behind it. */
  #write(out: string, segmentBytes: number): void {
    const { files, checksum, core, report } = this;
    const storeId = newStoreId();
    const writer = new PartWriter(files, checksum, out, { storeId, checkpoint: 1, part: 0 });
    for (const shard of core.shards) writer.add(new Capture(shard, L.OWNER_SLOT), () => undefined);
    const part = writer.finish();
    const structures = core.dictionary.texts().map((text) => Buffer.from(text));
    const { lastLsn, entries } = report;
    const manifest = {
      storeId,
      number: 1,
      startLsn: lastLsn + 1,
      endLsn: lastLsn,
      createdMs: Date.now(),
      entries,
      parts: [part],
      structures,
    };
    completeCopy(files, checksum, undefined, out, manifest, segmentBytes);
  }
}

/**
 * Saves what can be saved of the closed store in `directory` into a new store in `out`, a folder that does not exist or is empty.
 * Runs in the calling thread from beginning to end: for programs that do nothing else meanwhile.
 * Rejects with `FV_LOCKED`, `FV_IO`, `FV_MEMORY_FULL`.
 */
export async function repair(directory: string, out: string): Promise<RepairReport> {
  const files = await loadFileSystem(NODE_FILES);
  const from = path.resolve(directory);
  const to = path.resolve(out);
  if (!files.exists(from)) throw new FlashVectorError('FV_IO', `there is no folder ${from}`, { file: from });
  await refuseHeldFolder(from);
  prepareTarget(files, to);
  const salvage = new Salvage(files, await Checksum.load(), from, to);
  try {
    salvage.run(resolveOptions().walSegmentBytes);
  } catch (error) {
    discardCopy(files, to);
    throw error;
  }
  return salvage.report;
}
