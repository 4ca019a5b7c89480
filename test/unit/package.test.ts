/** What is published: every package that its code imports is one that its users get, and the layout's numbers are in the code that uses them. */

import fs from 'node:fs';
import { isBuiltin } from 'node:module';
import path from 'node:path';
import t from 'tap';

void t.test('regression: published code imports run-time dependencies only, and all of them are used', (t) => {
  const manifest = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { name: string; dependencies: Record<string, string> };
  const imported = new Set<string>();
  for (const folder of ['dist/src', 'dist/workers']) {
    for (const name of fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.js')) continue;
      const text = fs.readFileSync(path.join(folder, name), 'utf8');
      for (const [, specifier] of text.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)['"]([@a-z][^'"]*)['"]/g)) {
        if (isBuiltin(specifier)) continue;
        imported.add(
          specifier
            .split('/')
            .slice(0, specifier.startsWith('@') ? 2 : 1)
            .join('/'),
        );
      }
    }
  }
  imported.delete(manifest.name);
  t.same([...imported].sort(), Object.keys(manifest.dependencies).sort());
  t.end();
});

void t.test('constants of the layout are compiled into the modules that use them', (t) => {
  const readers = [
    'dist/src/table/entry-reader.js',
    'dist/src/table/shard-reader.js',
    'dist/src/table/shard.js',
    'dist/src/memory/ring.js',
    'dist/src/engine/writer.js',
  ];
  const constants = /import\s+\{[^}]*\b(?:CONTROL|ENTRY|REGION|OPERATION|TYPE)_[A-Z]/;
  for (const reader of readers) t.notMatch(fs.readFileSync(reader, 'utf8'), constants, reader);
  t.match("import { ENTRY_OLDER } from './entry.js'", constants, 'what it would look like');
  t.end();
});
