/** The version of the package. */

import { createRequire } from 'node:module';

export function version(): string {
  const found = createRequire(import.meta.url)('flashvector/package.json') as { version: string };
  return found.version;
}
