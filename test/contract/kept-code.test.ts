/** The engine's compiled code outlives the last store. */

import t from 'tap';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { OpenOptions } from '../../src/index.js';
import { tempFolder } from '../support/temp.js';

const FIXTURE = fileURLToPath(new URL('../fixture/reopen.js', import.meta.url));

const CASES: [string, string, OpenOptions][] = [
  ['closed', 'owner', {}],
  ['closed and had no index', 'owner', { ordered: false }],
  ['closed, and evicted keys', 'owner', { eviction: 'lru', maxMemoryBytes: 64 * 1024 * 1024 }],
  ['closed, and cached values', 'owner', { cache: true }],
  ['left by an attached thread', 'attached', {}],
];

for (const [name, mode, options] of CASES) {
  void t.test(`code compiled for a store that was ${name}, is still there when all garbage has been collected`, async (t) => {
    const flags = ['--expose-gc', '--allow-natives-syntax'];
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, FIXTURE, tempFolder(t), mode, JSON.stringify(options)]);
    const { before, after } = JSON.parse(stdout) as { before: string[]; after: string[] };
    t.ok(before.includes('get') && before.includes('put'), `compiled: ${before.join(', ')}`);
    t.same(
      before.filter((code) => !after.includes(code)),
      [],
      'all of it is there',
    );
  });
}
