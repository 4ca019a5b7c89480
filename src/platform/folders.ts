/** What is at a path where a folder is expected. */

import fs from 'node:fs';
import { ioError } from '../base/errors.js';

/** @throws FlashVectorError FV_IO when it cannot be told */
export function folderAt(directory: string): 'folder' | 'other' | 'nothing' {
  try {
    const stat = fs.statSync(directory, { throwIfNoEntry: false });
    if (stat === undefined) return 'nothing';
    return stat.isDirectory() ? 'folder' : 'other';
  } catch (error) {
    throw ioError('looking for the folder', directory, error);
  }
}
