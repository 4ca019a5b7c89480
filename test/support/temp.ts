/** Folders that tests use and leave clean behind them. */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** Makes an empty folder, removed when the test `t` ends. */
export function tempFolder(t: { teardown(fn: () => void): void }): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'flashvector-test-'));
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}
