/**
 * The second half of the build: writes the numbers and strings that modules import as constants (`export const A = 4`) into what tsc has compiled, in place.
 *
 * V8 loads an imported constant from a cell of its module and checks it at each use, in optimized code, too, and such loads count when it decides what to
 * inline. Each module stays a file of its own: tests and threads load them one by one.
 */
import { readdirSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { rolldown } from 'rolldown';

const FOLDERS = ['src', 'workers', 'test', 'bench', 'examples'];
const OUT = 'dist';

/** Of today's sources only: the folder may still have what older ones were compiled to. */
const compiled = FOLDERS.flatMap((folder) =>
  readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .map((name) => resolve(OUT, folder, name.replace(/\.ts$/, '.js'))),
);

const modules = await rolldown({
  input: compiled,
  external: (id) => !id.startsWith('.') && !isAbsolute(id),
  platform: 'node',
  preserveEntrySignatures: 'strict',
  treeshake: { moduleSideEffects: true },
  // Constants made of constants take a pass each.
  optimization: { inlineConst: { mode: 'all', pass: 4 } },
  onLog(level, log) {
    if (level === 'warn') throw new Error(log.message);
  },
});
await modules.write({
  dir: OUT,
  format: 'esm',
  preserveModules: true,
  preserveModulesRoot: OUT,
  entryFileNames: '[name].js',
  hoistTransitiveImports: false,
});
