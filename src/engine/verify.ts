/** Offline verification: reads every byte of a closed store and says what is wrong, where. Changes nothing. */

import path from 'node:path';
import { FlashVectorError } from '../base/errors.js';
import { checkpointNumbers, readManifest } from '../checkpoint/catalog.js';
import { manifestName, partCheckpoint, partName, type Manifest } from '../checkpoint/format.js';
import { readPart, scanPart } from '../checkpoint/part-reader.js';
import { Checksum } from '../platform/checksum.js';
import { readFully, type FileSystem } from '../platform/files.js';
import { refuseHeldFolder } from '../platform/folder-lock.js';
import { loadFileSystem } from '../platform/load-files.js';
import { NODE_FILES } from '../platform/node-files.js';
import { IDENTITY_NAME, SEGMENT_HEADER_BYTES, decodeSegmentHeader, segmentName, segmentNumber } from '../wal/format.js';
import { readIdentity } from '../wal/identity.js';
import { LogReader } from '../wal/log-reader.js';
import { visitRecords } from '../wal/records.js';
import { scanSegment } from '../wal/scan.js';

export interface Problem {
  file: string;
  /** Where in the file, in bytes. */
  offset: number;
  /** How far it reaches, in bytes; 0 where that means nothing. */
  bytes: number;
  message: string;
}

export interface FileReport {
  file: string;
  kind: 'identity' | 'segment' | 'manifest' | 'part';
  bytes: number;
  /** What is in it, in words: frames and LSNs, blocks and entries. */
  contents: string;
  problems: Problem[];
}

export interface VerifyReport {
  directory: string;
  files: FileReport[];
  /** All problems of all files, and those that no single file has. */
  problems: Problem[];
  /** What is no problem but worth knowing: a torn tail, a store that was not closed in order. */
  notes: string[];
  /** LSN of the last record that recovery would find, if the store opens. */
  lastLsn: number | undefined;
}

function problemOf(error: unknown, file: string): Problem {
  if (!(error instanceof FlashVectorError)) throw error;
  return { file: error.file ?? file, offset: error.offset ?? 0, bytes: 0, message: error.message };
}

class Verification {
  readonly report: VerifyReport;
  #storeId: Buffer | undefined;

  constructor(
    readonly files: FileSystem,
    readonly checksum: Checksum,
    readonly directory: string,
  ) {
    this.report = { directory, files: [], problems: [], notes: [], lastLsn: undefined };
  }

  run(): VerifyReport {
    const names = this.files.list(this.directory);
    const { report } = this;
    this.#identity();
    const manifests = checkpointNumbers(this.files, this.directory).map((number) => this.#manifest(number));
    for (const name of names) {
      const checkpoint = partCheckpoint(name);
      if (checkpoint !== undefined && !manifests.some((manifest) => manifest?.number === checkpoint))
        report.notes.push(`${name} belongs to no checkpoint that can be read; opening the store removes what an interrupted one has left`);
    }
    const segments = names.flatMap((name) => segmentNumber(name) ?? []);
    const firstLsns = segments.map((number) => this.#firstLsn(number));
    segments.forEach((number, i) =>
      this.#segment(
        number,
        firstLsns.slice(i + 1).find((lsn) => lsn !== undefined),
      ),
    );
    this.#asRecoveryReads(manifests.find((manifest) => manifest !== undefined));
    for (const file of report.files) for (const problem of file.problems) report.problems.push(problem);
    return report;
  }

  /** First LSN of a segment, where its header can be read. */
  #firstLsn(number: number): number | undefined {
    try {
      const open = this.files.open(path.join(this.directory, segmentName(number)), 'read');
      try {
        const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
        return decodeSegmentHeader(this.checksum, page.subarray(0, readFully(open, page, page.length, 0)), '').firstLsn;
      } finally {
        open.close();
      }
    } catch {
      // What reads the segment says so.
      return undefined;
    }
  }

  #add(name: string, kind: FileReport['kind']): FileReport {
    const file = path.join(this.directory, name);
    let bytes = 0;
    try {
      const open = this.files.open(file, 'read');
      bytes = open.size();
      open.close();
    } catch {
      // What reads the file says so.
    }
    const added: FileReport = { file, kind, bytes, contents: '', problems: [] };
    this.report.files.push(added);
    return added;
  }

  #identity(): void {
    const added = this.#add(IDENTITY_NAME, 'identity');
    try {
      this.#storeId = readIdentity(this.files, this.checksum, this.directory);
      if (this.#storeId === undefined)
        added.problems.push({ file: added.file, offset: 0, bytes: 0, message: `there is no store in ${this.directory}` });
      else added.contents = `store ${this.#storeId.toString('hex')}`;
    } catch (error) {
      added.problems.push(problemOf(error, added.file));
    }
  }

  #manifest(number: number): Manifest | undefined {
    const added = this.#add(manifestName(number), 'manifest');
    let manifest: Manifest;
    try {
      manifest = readManifest(this.files, this.checksum, this.directory, this.#storeId ?? Buffer.alloc(16), number);
    } catch (error) {
      added.problems.push(problemOf(error, added.file));
      return undefined;
    }
    added.contents = `checkpoint ${number}: ${manifest.entries} entries, LSN ${manifest.startLsn} to ${manifest.endLsn}`;
    const { storeId } = manifest;
    for (const summary of manifest.parts) {
      const part = this.#add(partName(number, summary.part), 'part');
      const identity = { storeId, checkpoint: number, part: summary.part };
      try {
        const scan = scanPart(this.files, this.checksum, this.directory, identity, { entry: () => undefined, block: () => undefined });
        part.contents = `${scan.blocks} blocks, ${scan.entries} entries`;
        for (const bad of scan.bad)
          part.problems.push({ file: part.file, offset: bad.offset, bytes: bad.bytes, message: `${part.file}: ${bad.what}` });
        if (scan.bad.length === 0)
          readPart(this.files, this.checksum, this.directory, identity, summary, { entry: () => undefined, progress: () => undefined });
      } catch (error) {
        part.problems.push(problemOf(error, part.file));
      }
    }
    return manifest;
  }

  /** @param limit first LSN of the next segment, if there is one: what lies behind that in this one was cut off once */
  #segment(number: number, limit: number | undefined): void {
    const name = `${String(number).padStart(12, '0')}.wal`;
    const added = this.#add(name, 'segment');
    let reached = 0;
    try {
      const scan = scanSegment(this.files, this.checksum, this.directory, this.#storeId, number, (header, payload, offset) => {
        if (limit !== undefined && header.firstLsn >= limit) return;
        if (reached === 0 || header.firstLsn === reached + 1) reached = header.lastLsn;
        try {
          visitRecords(payload, header.records, header.firstLsn, added.file, offset, {
            operation: () => undefined,
            structure: () => undefined,
          });
        } catch (error) {
          added.problems.push(problemOf(error, added.file));
        }
      });
      added.contents =
        scan.records === 0
          ? `${scan.frames} frames, no records`
          : `${scan.frames} frames, ${scan.records} records, LSN ${scan.firstLsn} to ${scan.lastLsn}`;
      const isWhole = limit !== undefined && Math.max(reached, (scan.header?.firstLsn ?? 1) - 1) >= limit - 1;
      for (const bad of scan.bad) {
        const problem = { file: added.file, offset: bad.offset, bytes: bad.bytes, message: `${added.file}: ${bad.what}` };
        const isHeader = bad.offset < SEGMENT_HEADER_BYTES || scan.header === undefined;
        // Behind what counts may lie a torn tail, or what a recycled segment held before. In the last segment recovery decides.
        if (isHeader || (limit !== undefined && !isWhole)) added.problems.push(problem);
      }
    } catch (error) {
      added.problems.push(problemOf(error, added.file));
    }
  }

  /** The rules of recovery on top: what is missing altogether, and whether a tail is torn or damaged. */
  #asRecoveryReads(manifest: Manifest | undefined): void {
    const { report } = this;
    if (this.#storeId === undefined) return;
    try {
      const reader = new LogReader(this.files, this.checksum, this.directory, this.#storeId, 65_536);
      const summary = reader.read({ frame: () => undefined, progress: () => undefined }, manifest?.startLsn ?? 1);
      const { lastLsn } = summary.end;
      if (manifest !== undefined && lastLsn < manifest.endLsn)
        report.problems.push({
          file: this.directory,
          offset: 0,
          bytes: 0,
          message: `the log ends with LSN ${lastLsn}, but was durable up to ${manifest.endLsn}`,
        });
      report.lastLsn = lastLsn;
      if (summary.tornTail !== undefined)
        report.notes.push(
          `${summary.tornTail.file} has a torn tail at ${summary.tornTail.offset}: nobody was told that it is safe, and opening cuts it off`,
        );
      else if (!summary.clean) report.notes.push('the store was not closed in order');
    } catch (error) {
      report.problems.push(problemOf(error, this.directory));
    }
  }
}

/**
 * Verifies the closed store in `directory`: every file, frame, record and block.
 * Runs in the calling thread from beginning to end: for programs that do nothing else meanwhile.
 * Rejects with `FV_LOCKED` while a process has it open, `FV_IO`; damage is in the report.
 */
export async function verify(directory: string): Promise<VerifyReport> {
  const files = await loadFileSystem(NODE_FILES);
  const absolute = path.resolve(directory);
  if (!files.exists(absolute)) throw new FlashVectorError('FV_IO', `there is no folder ${absolute}`, { file: absolute });
  await refuseHeldFolder(absolute);
  return new Verification(files, await Checksum.load(), absolute).run();
}
