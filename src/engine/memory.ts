/** The shared memory of a store that has nothing in it yet. */

import { randomInt } from 'node:crypto';
import { FlashVectorError, assert } from '../base/errors.js';
import { REGION_BYTES_MAX, type ResolvedOptions } from '../base/options.js';
import { DURABILITY_INTERVAL, DURABILITY_MEMORY, DURABILITY_SYNC } from '../base/record.js';
import { createControl, type ControlSettings } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { markBytes } from '../memory/marks.js';
import { Region, createRegionBuffer } from '../memory/region.js';
import { createTable } from '../table/hash-table.js';
import { createIndex } from '../table/index-tree.js';
import type { StoreHandle } from './handle.js';
import { indexer } from './indexer.js';

const DURABILITIES = { sync: DURABILITY_SYNC, interval: DURABILITY_INTERVAL, memory: DURABILITY_MEMORY };

/** What a shard needs to begin with; and the index. */
const SHARD_BYTES_MIN = 128 * 1024;
const INDEX_BYTES_MIN = 256 * 1024;
const EVICTIONS = { none: L.EVICTION_NONE, lru: L.EVICTION_LRU, ttl: L.EVICTION_TTL };

/** Shared memory that a store takes whatever is in it. */
function fixedBytes(options: ResolvedOptions): number {
  return L.controlShape(options.shards).words * 4 + options.ringBytes + (options.eviction === 'lru' ? markBytes(options.shards) : 0);
}

/** What of the memory cap is left for what grows. @throws FlashVectorError FV_OPTION when that is too little to begin with */
export function growingBytes(options: ResolvedOptions): number {
  const left = options.maxMemoryBytes - fixedBytes(options);
  const least = options.shards * SHARD_BYTES_MIN + INDEX_BYTES_MIN;
  if (left >= least) return left;
  throw new FlashVectorError(
    'FV_OPTION',
    `open: option maxMemoryBytes is ${options.maxMemoryBytes}; ${options.shards} shards and a ring of ${options.ringBytes} bytes need at least ${fixedBytes(options) + least}`,
  );
}

export function createMemory(options: ResolvedOptions): StoreHandle {
  const settings: ControlSettings = {
    shards: options.shards,
    hashSeed: randomInt(0x7fff_ffff),
    durability: DURABILITIES[options.durability],
    // Recovery is not bound by the cap: it takes back what fitted before, in another order.
    maxMemoryBytes: Number.MAX_SAFE_INTEGER,
    indexed: options.ordered,
    orderedKeys: options.keyEncoding === 'ordered',
    eviction: EVICTIONS[options.eviction],
    ackPollUs: options.ackPollUs,
  };
  return allocateMemory(settings, options.ringBytes, REGION_BYTES_MAX);
}

/** @param regionBytesMax as far as each of the regions can grow */
export function allocateMemory(settings: ControlSettings, ringBytes: number, regionBytesMax: number): StoreHandle {
  const control = createControl(settings);
  const shards = Array.from({ length: settings.shards }, () => createRegionBuffer(regionBytesMax));
  const index = createRegionBuffer(regionBytesMax);
  control.words[L.CONTROL_MEMORY_UNITS] = settings.shards + 1;
  control.words[L.CONTROL_INDEX_UNITS] = 1;
  for (const shard of shards) {
    assert(createTable(new Region(shard, control.words)), 'a new region holds an empty table');
  }
  assert(createIndex(new Region(index, control.words, true, true)), 'a new region holds an empty index');
  return {
    kind: 'flashvector',
    control: control.buffer,
    ring: new SharedArrayBuffer(ringBytes),
    staging: createRegionBuffer(regionBytesMax),
    shards,
    index,
    marks: new SharedArrayBuffer(settings.eviction === L.EVICTION_LRU ? markBytes(settings.shards) : 0),
    bell: indexer.bell.buffer,
  };
}
