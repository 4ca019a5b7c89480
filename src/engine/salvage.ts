/**
 * Offline repair: takes out of a damaged store whatever verifies, into a new one, and says what was lost. The damaged
 * store is not changed.
 *
 * Of a key the youngest state counts that can be found in any checkpoint or frame. A delete that was in a lost
 * frame cannot be known: its key may come back.
 */

import path from 'node:path';
import { FlashVectorError } from '../base/errors.js';
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
import { segmentNumber } from '../wal/format.js';
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
  #endLsn = 0;

  constructor(
    readonly files: FileSystem,
    readonly checksum: Checksum,
    directory: string,
    out: string,
  ) {
    this.report = { directory, out, entries: 0, records: 0, checkpointEntries: 0, lastLsn: 0, losses: [] };
    this.core = new Core(createMemory(resolveOptions()), L.OWNER_SLOT);
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
    report.lastLsn = Math.max(report.lastLsn, this.#endLsn);
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
    for (const [number, manifest] of [...manifests].reverse()) {
      if (manifest !== undefined) {
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
          entry: (entry, payload) => this.#loader.entry(entry, payload),
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

  #replaySegments(storeId: Buffer | undefined): void {
    const { files, checksum, report } = this;
    const numbers = files.list(report.directory).flatMap((name) => segmentNumber(name) ?? []);
    let next = 0;
    numbers.forEach((number, i) => {
      if (i > 0 && number !== numbers[i - 1] + 1)
        this.#lose(report.directory, 0, `log segments ${numbers[i - 1] + 1} to ${number - 1} are missing`);
      let scan: SegmentScan;
      const file = `${String(number).padStart(12, '0')}.wal`;
      try {
        scan = scanSegment(files, checksum, report.directory, storeId, number, (header, payload, offset) => {
          if (header.records === 0) return;
          if (next !== 0 && header.firstLsn > next)
            this.#lose(path.join(report.directory, file), offset, `LSN ${next} to ${header.firstLsn - 1} are lost`);
          next = header.lastLsn + 1;
          this.#replay(payload, header.records, header.firstLsn, path.join(report.directory, file), offset);
        });
      } catch (error) {
        this.#note(error, report.directory);
        return;
      }
      report.lastLsn = Math.max(report.lastLsn, scan.lastLsn);
      for (const bad of scan.bad) {
        const isTail = i === numbers.length - 1 && bad.offset >= scan.end && scan.durableLsn <= scan.lastLsn;
        if (!isTail) this.#lose(scan.file, bad.offset, `${bad.what}${bad.bytes === 0 ? '' : `, ${bad.bytes} bytes`}`);
      }
    });
    if (next !== 0 && next <= this.#endLsn) this.#lose(report.directory, 0, `LSN ${next} to ${this.#endLsn} are lost: the log ends before`);
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
