/** The engine's compiled code outlives the last store. */

import t from 'tap';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { OpenOptions } from '../../src/index.js';
import { tempFolder } from '../support/temp.js';

const FIXTURE = fileURLToPath(new URL('../fixture/reopen.js', import.meta.url));
/** Of the functions that are looked at some may be compiled as parts of others only. */
const COMPILED_MIN = 2;

const CASES: [string, string, OpenOptions][] = [
  ['closed', 'owner', {}],
  ['closed and had no index', 'owner', { ordered: false }],
  ['closed, and cached values and evicted keys', 'owner', { cache: true, eviction: 'lru', maxMemoryBytes: 64 * 1024 * 1024 }],
  ['left by an attached thread', 'attached', {}],
];

for (const [name, mode, options] of CASES) {
  void t.test(`code compiled for a store that was ${name}, is still there when all garbage has been collected`, async (t) => {
    const flags = ['--expose-gc', '--allow-natives-syntax'];
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, FIXTURE, tempFolder(t), mode, JSON.stringify(options)]);
    const { before, after } = JSON.parse(stdout) as { before: string[]; after: string[] };
    t.ok(before.length >= COMPILED_MIN, `compiled: ${before.join(', ')}`);
    t.same(after, before);
  });
}
