/**
 * Keeps the engine's compiled code while no store is open.
 *
 * V8 throws optimized code away when the last object of a shape (a hidden class) that the code was compiled for has been collected, and what a program knows
 * of its types with it. Of most classes of the engine a store has the only objects, so a program that closes its last store and opens another
 * after some collections would run in the interpreter again, for as long as it takes to compile everything anew.
 *
 * Each thread that closes a store therefore keeps a model of it, one of each kind: a store of one shard and one key, in memory, with no folder, no thread and
 * no timer. Nobody ever uses it. Each takes about a mebibyte for as long as the thread lives.
 */

import { DURABILITY_SYNC } from '../base/record.js';
import type { ControlSettings } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { GROWTH_BYTES } from '../memory/region.js';
import { Core } from './core.js';
import { FlashVector, type Lifecycle } from './database.js';
import { allocateMemory } from './memory.js';
import { Writer } from './writer.js';

const RING_BYTES = 65_536;
const KEY = 'key';
const ignore = (): void => undefined;
/** By kind. */
const models = new Map<number, FlashVector>();

const refuse = (): Promise<never> => Promise.reject(new Error('nobody uses a model'));
const LIFECYCLE: Lifecycle = { close: refuse, checkpoint: refuse, backup: refuse, checkpoints: undefined };

function makeModel(settings: ControlSettings, isCached: boolean): FlashVector {
  const core = new Core(allocateMemory(settings, RING_BYTES, GROWTH_BYTES), L.OWNER_SLOT);
  core.giveBatch(core.takeBatch());
  const writer = new Writer(core);
  const model = new FlashVector(core, writer, LIFECYCLE, isCached);
  // A cache has objects of a shape of their own for what it keeps. The record stays in the ring: there is no log.
  model.put(KEY, 0, { durability: 'memory' }).catch(ignore);
  model.get(KEY);
  writer.dispose();
  return model;
}

/** Makes sure that the code stays which a store runs on that this thread has closed. Cost: a millisecond for the first of a kind. */
export function keepCode({ words }: Core, isCached: boolean): void {
  const settings: ControlSettings = {
    shards: 1,
    hashSeed: 1,
    durability: DURABILITY_SYNC,
    maxMemoryBytes: Number.MAX_SAFE_INTEGER,
    // Where these differ a store may have objects of other classes, or others in their fields.
    indexed: words[L.CONTROL_INDEXED] !== 0,
    orderedKeys: words[L.CONTROL_ORDERED_KEYS] !== 0,
    eviction: words[L.CONTROL_EVICTION],
  };
  const kind = words[L.CONTROL_EVICTION] * 8 + words[L.CONTROL_ORDERED_KEYS] * 4 + words[L.CONTROL_INDEXED] * 2 + (isCached ? 1 : 0);
  if (models.has(kind)) return;
  try {
    models.set(kind, makeModel(settings, isCached));
  } catch (error) {
    // No memory for it: closing does not fail for that.
    if (!(error instanceof RangeError)) throw error;
  }
}
