/**
 * Making a second store out of a first: for backups and repairs. The copy has a store id of its own, so that
 * files of the two can never be taken for each other, and a log of its own that begins where its checkpoint needs it.
 *
 * The identity file comes last: until it is there the folder is not a store.
 */

import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import type { FileSystem } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import { IDENTITY_NAME, segmentNumber } from '../wal/format.js';
import { createIdentity } from '../wal/identity.js';
import { LogReader } from '../wal/log-reader.js';
import { SegmentWriter } from '../wal/segment-writer.js';
import { publishManifest } from './catalog.js';
import { manifestNumber, partCheckpoint, type Manifest } from './format.js';
import { verifyCheckpoint } from './publish.js';

/** Where a log is copied from. */
export interface LogSource {
  directory: string;
  storeId: Buffer;
  segmentBytes: number;
}

/** Makes the folder of a copy. @throws FlashVectorError FV_IO when it holds anything already */
export function prepareTarget(files: FileSystem, target: string): void {
  try {
    if (!files.exists(target)) {
      files.makeDirectory(target);
      files.syncDirectory(path.dirname(target));
      return;
    }
    if (files.list(target).length === 0) return;
  } catch (error) {
    throw ioError('making the folder of the copy', target, error);
  }
  throw new FlashVectorError('FV_IO', `${target} is not empty; a copy goes into a folder of its own`, { file: target });
}

/**
 * Copies the log from `startLsn` to `endLsn`, which is durable, into the target, where there is none, and ends it in order.
 * The source may be growing meanwhile.
 */
function copyLog(
  files: FileSystem,
  checksum: Checksum,
  source: LogSource | undefined,
  target: string,
  manifest: Manifest,
  segmentBytes: number,
): void {
  const { storeId, startLsn, endLsn } = manifest;
  let writer: SegmentWriter | undefined;
  const begin = (firstLsn: number): SegmentWriter =>
    new SegmentWriter(
      files,
      checksum,
      { directory: target, storeId, segmentBytes },
      { segment: 1, offset: 0, segmentBytes, lastLsn: firstLsn - 1 },
    );
  let lastLsn = startLsn - 1;
  try {
    copy();
  } catch (error) {
    writer?.abandon();
    throw error;
  }

  function copy(): void {
    if (source !== undefined && endLsn >= startLsn) {
      const reader = new LogReader(files, checksum, source.directory, source.storeId, source.segmentBytes);
      const visitor = {
        frame: (
          { records, firstLsn, lastLsn: frameLast }: { records: number; firstLsn: number; lastLsn: number },
          payload: Buffer,
        ): void => {
          if (records === 0) return;
          writer ??= begin(firstLsn);
          writer.writeFrame(payload, records, firstLsn, frameLast, firstLsn - 1);
          lastLsn = frameLast;
        },
        progress: (): void => undefined,
      };
      reader.read(visitor, startLsn, endLsn);
    }
    writer ??= begin(startLsn);
    writer.writeCleanEnd(lastLsn);
    writer.close();
  }
}

/**
 * Completes a copy whose parts are written: log, manifest, identity; then reads all of it back.
 * @throws FlashVectorError FV_IO, FV_CORRUPT
 */
export function completeCopy(
  files: FileSystem,
  checksum: Checksum,
  source: LogSource | undefined,
  target: string,
  manifest: Manifest,
  segmentBytes: number,
): void {
  copyLog(files, checksum, source, target, manifest, segmentBytes);
  publishManifest(files, checksum, target, manifest);
  createIdentity(files, checksum, target, manifest.createdMs, manifest.storeId);
  verifyCheckpoint(files, checksum, target, manifest.storeId, manifest.number);
  const summary = new LogReader(files, checksum, target, manifest.storeId, segmentBytes).read(
    { frame: () => undefined, progress: () => undefined },
    manifest.startLsn,
  );
  if (!summary.clean || summary.end.lastLsn < manifest.endLsn)
    throw new FlashVectorError('FV_CORRUPT', `the copy in ${target} does not read back as it was written`, {
      file: target,
      lsn: summary.end.lastLsn,
    });
}

/** Removes the files of a copy that was not completed. */
export function discardCopy(files: FileSystem, target: string): void {
  const name = (file: string): string => file.replace(/\.tmp$/, '');
  for (const file of files.list(target)) {
    const whole = name(file);
    const isOurs = whole === IDENTITY_NAME || [segmentNumber, manifestNumber, partCheckpoint].some((read) => read(whole) !== undefined);
    if (isOurs) files.remove(path.join(target, file));
  }
}
