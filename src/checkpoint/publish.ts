/**
 * The end of a checkpoint: from parts that are on disk to a checkpoint that counts, and to a folder
 * without what it has made superfluous.
 *
 * The checkpoint before is removed, and segments are given up, only once the new one has been read back whole.
 */

import { FlashVectorError } from '../base/errors.js';
import type { FileSystem } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import { retireSegments } from '../wal/retire.js';
import { publishManifest, readManifest, removeCheckpoints } from './catalog.js';
import type { Manifest } from './format.js';
import { readPart } from './part-reader.js';

/**
 * Reads back every byte of a checkpoint.
 * @param onBlock called after every block, of 64 KiB most of the time; may rest
 * @throws FlashVectorError FV_CORRUPT, FV_VERSION, FV_IO
 */
export function verifyCheckpoint(
  files: FileSystem,
  checksum: Checksum,
  directory: string,
  storeId: Buffer,
  number: number,
  onBlock: () => void = () => undefined,
): Manifest {
  const manifest = readManifest(files, checksum, directory, storeId, number);
  for (const part of manifest.parts) {
    const identity = { storeId, checkpoint: number, part: part.part };
    readPart(files, checksum, directory, identity, part, { entry: () => undefined, progress: onBlock });
  }
  return manifest;
}

/** Spare segments may take this part of the data's size. */
const SPARE_SHARE = 4;

export interface Publication {
  /** Log segments given up. */
  retired: number;
  /** Why what the checkpoint replaces could not all be removed. The checkpoint counts all the same; the next one tries again. */
  leftover?: FlashVectorError;
}

/**
 * Publishes a checkpoint whose parts are synced, verifies it, then removes older ones and retires segments.
 * When it does not verify it is removed again and what was there before stays as it was.
 * @param onBlock called after every block that was read back; may rest
 * @param onVerified called when all of it was read back: it counts from here on, whatever becomes of the caller
 * @throws FlashVectorError FV_IO, FV_CORRUPT: the checkpoint does not count
 */
export function publishCheckpoint(
  files: FileSystem,
  checksum: Checksum,
  directory: string,
  manifest: Manifest,
  onBlock: () => void = () => undefined,
  onVerified: () => void = () => undefined,
): Publication {
  const { number, storeId } = manifest;
  publishManifest(files, checksum, directory, manifest);
  try {
    verifyCheckpoint(files, checksum, directory, storeId, number, onBlock);
  } catch (error) {
    removeCheckpoints(files, directory, (other) => other !== number);
    if (!(error instanceof FlashVectorError)) throw error;
    const { file, offset } = error;
    throw new FlashVectorError(error.code, `the checkpoint just written cannot be read back: ${error.message}`, {
      file,
      offset,
      cause: error,
    });
  }
  onVerified();
  try {
    removeCheckpoints(files, directory, (other) => other === number);
    const bytes = manifest.parts.reduce((sum, part) => sum + part.bytes, 0);
    return { retired: retireSegments(files, checksum, directory, manifest.startLsn, bytes / SPARE_SHARE) };
  } catch (error) {
    if (!(error instanceof FlashVectorError)) throw error;
    return { retired: 0, leftover: error };
  }
}
