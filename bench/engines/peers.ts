/** The engines that are compared. One that cannot be loaded is left out, by name. */

import { openBetterSqlite } from './better-sqlite3.js';
import { openClassicLevel } from './classic-level.js';
import type { Engine, EngineSettings } from './engine.js';
import { openFlashVectorEngine } from './flashvector.js';
import { openLmdbEngine, openLmdbSharing } from './lmdb.js';
import { loadPeer } from './load-peer.js';
import { openMap } from './map.js';
import { openRocks } from './rocksdb-native.js';

export const ENGINES: Record<string, (settings: EngineSettings) => Promise<Engine>> = {
  FlashVector: openFlashVectorEngine,
  'lmdb-js': openLmdbEngine,
  'lmdb-js, sharedStructuresKey': openLmdbSharing,
  'classic-level': openClassicLevel,
  'better-sqlite3': openBetterSqlite,
  'rocksdb-native': openRocks,
  Map: openMap,
};

/** Which of the engines can be had here, and why the others cannot. */
export async function availableEngines(): Promise<{ names: string[]; missing: string[] }> {
  const names: string[] = [];
  const missing: string[] = [];
  for (const name of Object.keys(ENGINES)) {
    try {
      if (name === 'classic-level' || name === 'better-sqlite3' || name === 'rocksdb-native') await loadPeer(name);
      if (name.startsWith('lmdb-js')) await import('lmdb');
      names.push(name);
    } catch (error) {
      const [reason] = String(error instanceof Error ? error.message : error).split('\n');
      missing.push(`${name} left out: it cannot be loaded (${reason}); npm run bench:peers installs the peers`);
    }
  }
  return { names, missing };
}
