/** The engine's compiled code outlives the last store. */

import t from 'tap';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { open, type OpenOptions } from '../../src/index.js';
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

/** Runs `close` and counts the shared memory that is made meanwhile; making it fails where `fails` says so. */
async function memoryMade(close: () => Promise<void>, fails: boolean): Promise<number> {
  const Real = SharedArrayBuffer;
  let made = 0;
  globalThis.SharedArrayBuffer = new Proxy(Real, {
    construct(target, args: [number]) {
      made++;
      if (fails) throw new RangeError('Array buffer allocation failed');
      return new target(...args);
    },
  });
  try {
    await close();
  } finally {
    globalThis.SharedArrayBuffer = Real;
  }
  return made;
}

void t.test('a store is closed where there is no memory to keep its code; what is kept is made once for each kind', async (t) => {
  const close = async (options: OpenOptions, fails: boolean): Promise<number> => {
    const db = await open(tempFolder(t), options);
    await db.put('key', 1);
    return memoryMade(() => db.close(), fails);
  };
  t.equal(await close({}, true), 1, 'closing goes on without');
  t.ok((await close({}, false)) > 1, 'made as soon as there is memory');
  t.equal(await close({}, false), 0, 'and not again');
  t.ok((await close({ cache: true }, false)) > 1, 'another for another kind');
  t.equal(await close({ cache: true }, false), 0);
});
