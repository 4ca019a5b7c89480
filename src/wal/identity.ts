/** The identity file: what makes a folder a store, and whose log segments belong there. */

import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { FlashVectorError, ioError } from '../base/errors.js';
import { readFully, writeFully, type FileSystem } from '../platform/files.js';
import type { Checksum } from '../platform/checksum.js';
import { IDENTITY_NAME, decodeIdentity, encodeIdentity, segmentNumber } from './format.js';

/** Reads the store's id. @returns `undefined` when the folder holds no store @throws FlashVectorError FV_CORRUPT, FV_VERSION, FV_IO */
export function readIdentity(files: FileSystem, checksum: Checksum, directory: string): Buffer | undefined {
  const file = path.join(directory, IDENTITY_NAME);
  let page: Buffer;
  try {
    if (!files.exists(file)) {
      const segment = files.list(directory).find((name) => segmentNumber(name) !== undefined);
      if (segment === undefined) return undefined;
      throw new FlashVectorError('FV_CORRUPT', `${directory} holds log segments but no ${IDENTITY_NAME}`, { file, offset: 0 });
    }
    const open = files.open(file, 'read');
    try {
      const buffer = Buffer.alloc(4096);
      page = buffer.subarray(0, readFully(open, buffer, buffer.length, 0));
    } finally {
      open.close();
    }
  } catch (error) {
    throw ioError('reading the identity file', file, error);
  }
  return decodeIdentity(checksum, page, file);
}

export function newStoreId(): Buffer {
  return randomBytes(16);
}

/** Makes a new store's identity, durably. @throws FlashVectorError FV_IO */
export function createIdentity(files: FileSystem, checksum: Checksum, directory: string, nowMs: number, storeId = newStoreId()): Buffer {
  const target = path.join(directory, IDENTITY_NAME);
  const temporary = `${target}.tmp`;
  try {
    const open = files.open(temporary, 'create');
    try {
      writeFully(open, encodeIdentity(checksum, storeId, nowMs), 0);
      open.sync();
    } finally {
      open.close();
    }
    files.rename(temporary, target);
    files.syncDirectory(directory);
  } catch (error) {
    throw ioError('creating the store', target, error);
  }
  return storeId;
}

/** Removes what an interrupted start or rotation left behind under temporary names. */
export function removeTemporaries(files: FileSystem, directory: string): void {
  for (const name of files.list(directory)) {
    const whole = name.replace(/\.tmp$/, '');
    if (whole !== name && (whole === IDENTITY_NAME || segmentNumber(whole) !== undefined)) {
      try {
        files.remove(path.join(directory, name));
      } catch (error) {
        throw ioError('removing a temporary file', path.join(directory, name), error);
      }
    }
  }
}
