/** What `db.stats()` shows: read from shared memory, without stopping anybody. */

import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import {
  CHUNK_BYTES,
  GROWTH_BYTES,
  REGION_EXPIRING,
  REGION_FREE_CHUNKS,
  REGION_INDEX_NODES,
  REGION_KEY_BYTES,
  REGION_LENGTH,
  REGION_SEGMENTS,
  REGION_TOP,
  REGION_USED_UNITS,
  REGION_VALUE_BYTES,
  type Region,
} from '../memory/region.js';
import type { CheckpointStats } from './checkpoints.js';
import type { OrderedIndex } from '../table/ordered-index.js';
import type { Core } from './core.js';

export type Status = 'open' | 'readonly' | 'closing' | 'closed';

export interface ShardStats {
  entries: number;
  /** Of them such that expire. */
  expiring: number;
  /** Bytes of keys and of encoded values in live entries. */
  keyBytes: number;
  valueBytes: number;
  /** Bytes of shared memory that the shard holds; of them in use by blocks; of them free for reuse. */
  memoryBytes: number;
  usedBytes: number;
  freeBytes: number;
  /** Segments of the hash table, 4,088 bytes each. */
  segments: number;
}

/** A picture of the store. Latencies are in microseconds; counts are since it was opened, over all threads. */
export interface Stats {
  status: Status;
  entries: number;
  /** Of them such that expire. */
  expiring: number;
  keyBytes: number;
  valueBytes: number;
  memory: {
    /** All shared memory of the store: shards, index, staging, ring, control, access marks. */
    totalBytes: number;
    shardBytes: number;
    usedBytes: number;
    freeBytes: number;
    ringBytes: number;
    controlBytes: number;
    stagingBytes: number;
    maxBytes: number | undefined;
  };
  shards: ShardStats[];
  operations: {
    reads: number;
    hits: number;
    puts: number;
    deletes: number;
    batches: number;
    conflicts: number;
    /** Entries removed because they had expired, and to make room. */
    expired: number;
    evicted: number;
    bytesRead: number;
    bytesWritten: number;
  };
  log: {
    lastLsn: number;
    writtenLsn: number;
    durableLsn: number;
    frames: number;
    syncs: number;
    records: number;
    recordsPerSync: number;
    bytes: number;
    segments: number;
    /** Share of the ring that is taken, 0 to 1. */
    ringFill: number;
    /** Record structures that threads share, of at most 32. */
    structures: number;
  };
  contention: {
    /** Times that the log lock was not free at once. A shard lock that is not makes a deferral. */
    lockWaits: number;
    optimisticRetries: number;
    /** Writes that waited for room or a lock and were tried again. */
    deferrals: number;
  };
  /** `get` is measured on every 256th call, `putApplied` on every 64th that is not refused, `putDurable` once for each turn's writes, `sync` always. */
  latencies: {
    get: M.LatencySummary;
    putApplied: M.LatencySummary;
    putDurable: M.LatencySummary;
    sync: M.LatencySummary;
  };
  /** Consistent read views, of iterators and transactions too. */
  snapshots: {
    open: number;
    /** How long the oldest has been open, in ms; 0 when none is. */
    oldestAgeMs: number;
    /** Superseded entries kept for them, and the bytes of their blocks. */
    versions: number;
    versionBytes: number;
  };
  /** The ordered index; all 0 in a store without. */
  index: {
    nodes: number;
    memoryBytes: number;
    usedBytes: number;
    /** New keys that wait to be put into it; who reads it puts them there first. */
    waitingKeys: number;
  };
  threads: number;
  /** In the owner's thread only. */
  checkpoints: CheckpointStats | undefined;
}

const STATUSES: Status[] = ['open', 'readonly', 'closing', 'closed'];

export function statusName(status: number): Status {
  return STATUSES[status];
}

function readCount(words: Int32Array, at: number): number {
  return (words[at + 1] >>> 0) * 0x1_0000_0000 + (words[at] >>> 0);
}

function shardStats(region: Region, entries: number): ShardStats {
  const words = region.words;
  const memoryBytes = words[REGION_LENGTH] * GROWTH_BYTES;
  const usedBytes = (words[REGION_USED_UNITS] >>> 0) * 8;
  const aboveTop = memoryBytes - words[REGION_TOP] * CHUNK_BYTES;
  return {
    entries,
    expiring: words[REGION_EXPIRING],
    keyBytes: readCount(words, REGION_KEY_BYTES),
    valueBytes: readCount(words, REGION_VALUE_BYTES),
    memoryBytes,
    usedBytes,
    freeBytes: Math.max(0, aboveTop) + words[REGION_FREE_CHUNKS] * CHUNK_BYTES,
    segments: words[REGION_SEGMENTS],
  };
}

function snapshotStats({ snapshots, shards, clock }: Core): Stats['snapshots'] {
  const openedMs = snapshots.oldestOpenedMs;
  return {
    open: snapshots.count,
    oldestAgeMs: openedMs === undefined ? 0 : Math.max(0, clock.now() - openedMs),
    versions: shards.reduce((sum, shard) => sum + shard.versionCount, 0),
    versionBytes: shards.reduce((sum, shard) => sum + shard.versionBytes, 0),
  };
}

function indexStats(index: OrderedIndex | undefined): Stats['index'] {
  if (index === undefined) return { nodes: 0, memoryBytes: 0, usedBytes: 0, waitingKeys: 0 };
  const { words } = index.region;
  return {
    nodes: words[REGION_INDEX_NODES],
    memoryBytes: words[REGION_LENGTH] * GROWTH_BYTES,
    usedBytes: (words[REGION_USED_UNITS] >>> 0) * 8,
    waitingKeys: index.regions.reduce((sum, _, shard) => sum + index.pending.waiting(shard), 0),
  };
}

export function collectStats(core: Core): Omit<Stats, 'checkpoints'> {
  const { control, words } = core;
  const shards = core.shards.map((shard) => shardStats(shard.region, shard.entryCount));
  const sum = (pick: (shard: ShardStats) => number): number => shards.reduce((total, shard) => total + pick(shard), 0);
  const { counters, latencies } = M.sumMetrics(control);
  const shardBytes = sum((shard) => shard.memoryBytes);
  const ringBytes = core.handle.ring.byteLength;
  const stagingBytes = core.handle.staging.byteLength;
  const indexBytes = core.handle.index.byteLength;
  const controlBytes = core.handle.control.byteLength;
  const ringUnits = (Atomics.load(words, L.CONTROL_RING_HEAD) - Atomics.load(words, L.CONTROL_RING_TAIL)) | 0;
  const maxUnits = words[L.CONTROL_MEMORY_UNITS_MAX];
  const syncs = counters[M.COUNTER_SYNCS];
  const records = counters[M.COUNTER_RECORDS];
  let threads = 0;
  for (let slot = 0; slot < L.THREADS_MAX; slot++) {
    if (
      slot !== L.LOG_SLOT &&
      slot !== L.INDEXER_SLOT &&
      Atomics.load(words, control.shape.threadAreaWord + slot * L.THREAD_WORDS + L.THREAD_ID) !== 0
    )
      threads++;
  }
  return {
    status: statusName(control.status),
    entries: sum((shard) => shard.entries),
    expiring: sum((shard) => shard.expiring),
    keyBytes: sum((shard) => shard.keyBytes),
    valueBytes: sum((shard) => shard.valueBytes),
    memory: {
      totalBytes: shardBytes + indexBytes + core.handle.marks.byteLength + ringBytes + stagingBytes + controlBytes,
      shardBytes,
      usedBytes: sum((shard) => shard.usedBytes),
      freeBytes: sum((shard) => shard.freeBytes),
      ringBytes,
      controlBytes,
      stagingBytes,
      maxBytes: maxUnits === L.MEMORY_UNITS_UNLIMITED ? undefined : maxUnits * GROWTH_BYTES,
    },
    shards,
    operations: {
      reads: counters[M.COUNTER_READS],
      hits: counters[M.COUNTER_HITS],
      puts: counters[M.COUNTER_PUTS],
      deletes: counters[M.COUNTER_DELETES],
      batches: counters[M.COUNTER_BATCHES],
      conflicts: counters[M.COUNTER_CONFLICTS],
      expired: counters[M.COUNTER_EXPIRED],
      evicted: counters[M.COUNTER_EVICTED],
      bytesRead: counters[M.COUNTER_BYTES_READ],
      bytesWritten: counters[M.COUNTER_BYTES_WRITTEN],
    },
    log: {
      lastLsn: control.lastLsn,
      writtenLsn: control.writtenLsn,
      durableLsn: control.durableLsn,
      frames: counters[M.COUNTER_FRAMES],
      syncs,
      records,
      recordsPerSync: syncs === 0 ? 0 : records / syncs,
      bytes: counters[M.COUNTER_LOG_BYTES],
      segments: counters[M.COUNTER_SEGMENTS],
      ringFill: (ringUnits * 8) / ringBytes,
      structures: core.dictionary.count,
    },
    contention: {
      lockWaits: counters[M.COUNTER_LOCK_WAITS],
      optimisticRetries: counters[M.COUNTER_OPTIMISTIC_RETRIES],
      deferrals: counters[M.COUNTER_DEFERRALS],
    },
    latencies: {
      get: latencies[M.HISTOGRAM_GET],
      putApplied: latencies[M.HISTOGRAM_PUT_APPLIED],
      putDurable: latencies[M.HISTOGRAM_PUT_DURABLE],
      sync: latencies[M.HISTOGRAM_SYNC],
    },
    snapshots: snapshotStats(core),
    index: indexStats(core.index),
    threads,
  };
}
