/**
 * The peers are native addons in `bench/peers`, a folder with dependencies of its own, so that neither the package nor its tests need a compiler.
 * `npm run bench:peers` installs them.
 */

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

/** From `dist/bench/engines`. */
const peers = createRequire(new URL('../../../bench/peers/package.json', import.meta.url));

/** @throws Error when it is not installed, or not for this machine */
export async function loadPeer(name: string): Promise<unknown> {
  return import(pathToFileURL(peers.resolve(name)).href);
}
