/**
 * Where workloads put their stores: `bench-data/` under the current folder. Not the system's folder for
 * temporary files, which may lie in memory, where a sync costs nothing.
 */

import fs from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve('bench-data');

/** @returns a new folder. Two runs at once do not meet in it. */
export function prepareFolder(workload: string): string {
  const folder = path.join(ROOT, `${workload}-${process.pid}`);
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  return folder;
}

export function removeFolder(folder: string): void {
  fs.rmSync(folder, { recursive: true, force: true });
  try {
    fs.rmdirSync(ROOT);
  } catch {
    // Another run has its data there.
  }
}

/** Removes what a child that did not end well left behind. */
export function removeFolderOf(workload: string, pid: number): void {
  removeFolder(path.join(ROOT, `${workload}-${pid}`));
}
