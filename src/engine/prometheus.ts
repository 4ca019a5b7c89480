/** `db.metrics()`: what `stats()` shows as text for Prometheus. Reading costs some 200 µs and disturbs nobody. */

import * as M from '../memory/metrics.js';
import type { Core } from './core.js';
import type { Stats } from './stats.js';

type Kind = 'counter' | 'gauge';
type Sample = [labels: string, value: number];

class Exposition {
  #text = '';

  family(name: string, kind: Kind, help: string, samples: readonly Sample[] | number): void {
    this.#head(name, kind, help);
    for (const [labels, value] of typeof samples === 'number' ? [['', samples] as Sample] : samples)
      this.#text += `${name}${labels === '' ? '' : `{${labels}}`} ${value}\n`;
  }

  /** @param cumulative pairs of an upper bound, in seconds, and how many were not above it */
  histogram(name: string, help: string, cumulative: readonly (readonly [number, number])[], count: number, sum: number): void {
    this.#head(name, 'histogram', help);
    for (const [bound, below] of cumulative) this.#text += `${name}_bucket{le="${bound}"} ${below}\n`;
    this.#text += `${name}_bucket{le="+Inf"} ${count}\n${name}_sum ${sum}\n${name}_count ${count}\n`;
  }

  #head(name: string, kind: string, help: string): void {
    this.#text += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`;
  }

  toString(): string {
    return this.#text;
  }
}

const LATENCIES: [name: string, help: string, histogram: number][] = [
  ['get', 'Time of get calls; one of 256 is measured', M.HISTOGRAM_GET],
  ['put_applied', 'Time of put calls, until the value can be read; one of 64 is measured', M.HISTOGRAM_PUT_APPLIED],
  ['put_durable', 'Time until writes are as durable as was asked for; one for the writes of a turn', M.HISTOGRAM_PUT_DURABLE],
  ['sync', 'Time of fdatasync calls', M.HISTOGRAM_SYNC],
];

export function exposeMetrics(core: Core, stats: Stats): string {
  const out = new Exposition();
  const { operations, memory, log, contention, snapshots, index, checkpoints } = stats;
  out.family('flashvector_up', 'gauge', 'Whether the store takes writes', stats.status === 'open' ? 1 : 0);
  out.family('flashvector_entries', 'gauge', 'Live entries', stats.entries);
  out.family('flashvector_entries_expiring', 'gauge', 'Live entries that expire', stats.expiring);
  out.family('flashvector_key_bytes', 'gauge', 'Bytes of the keys of live entries', stats.keyBytes);
  out.family('flashvector_value_bytes', 'gauge', 'Bytes of the encoded values of live entries', stats.valueBytes);
  out.family('flashvector_reads_total', 'counter', 'Keys looked up', operations.reads);
  out.family('flashvector_hits_total', 'counter', 'Keys looked up that were there', operations.hits);
  out.family('flashvector_writes_total', 'counter', 'Values written', operations.puts);
  out.family('flashvector_deletes_total', 'counter', 'Keys deleted', operations.deletes);
  out.family('flashvector_batches_total', 'counter', 'Batches and transactions written', operations.batches);
  out.family('flashvector_conflicts_total', 'counter', 'Writes whose condition did not hold', operations.conflicts);
  out.family('flashvector_expired_total', 'counter', 'Entries removed because they had expired', operations.expired);
  out.family('flashvector_evicted_total', 'counter', 'Entries removed to make room', operations.evicted);
  out.family('flashvector_read_bytes_total', 'counter', 'Bytes of encoded values read', operations.bytesRead);
  out.family('flashvector_written_bytes_total', 'counter', 'Bytes of keys and encoded values written', operations.bytesWritten);
  out.family('flashvector_memory_bytes', 'gauge', 'Shared memory of the store, by use', [
    ['use="shards"', memory.shardBytes],
    ['use="index"', index.memoryBytes],
    ['use="ring"', memory.ringBytes],
    ['use="control"', memory.controlBytes],
    ['use="staging"', memory.stagingBytes],
  ]);
  out.family('flashvector_memory_total_bytes', 'gauge', 'Shared memory of the store', memory.totalBytes);
  out.family('flashvector_memory_used_bytes', 'gauge', 'Of the memory of the shards, in use', memory.usedBytes);
  out.family('flashvector_memory_free_bytes', 'gauge', 'Of the memory of the shards, free', memory.freeBytes);
  if (memory.maxBytes !== undefined) out.family('flashvector_memory_max_bytes', 'gauge', 'Cap on the memory of the store', memory.maxBytes);
  out.family(
    'flashvector_shard_entries',
    'gauge',
    'Live entries by shard',
    stats.shards.map((shard, i) => [`shard="${i}"`, shard.entries]),
  );
  out.family(
    'flashvector_shard_used_bytes',
    'gauge',
    'Memory in use by shard',
    stats.shards.map((shard, i) => [`shard="${i}"`, shard.usedBytes]),
  );
  out.family(
    'flashvector_shard_free_bytes',
    'gauge',
    'Memory free by shard',
    stats.shards.map((shard, i) => [`shard="${i}"`, shard.freeBytes]),
  );
  out.family('flashvector_lsn', 'gauge', 'Log sequence numbers: of the last record, of the last written, of the last durable one', [
    ['of="last"', log.lastLsn],
    ['of="written"', log.writtenLsn],
    ['of="durable"', log.durableLsn],
  ]);
  out.family('flashvector_log_frames_total', 'counter', 'Group commits', log.frames);
  out.family('flashvector_log_syncs_total', 'counter', 'fdatasync calls of the log', log.syncs);
  out.family('flashvector_log_records_total', 'counter', 'Records written to the log', log.records);
  out.family('flashvector_log_bytes_total', 'counter', 'Bytes written to the log', log.bytes);
  out.family('flashvector_log_segments_total', 'counter', 'Segments begun', log.segments);
  out.family('flashvector_ring_fill_ratio', 'gauge', 'Share of the ring that is taken', log.ringFill);
  out.family('flashvector_record_structures', 'gauge', 'Record structures that threads share', log.structures);
  out.family('flashvector_lock_waits_total', 'counter', 'Times that the log lock was not free at once', contention.lockWaits);
  out.family('flashvector_optimistic_retries_total', 'counter', 'Reads done again because of a writer', contention.optimisticRetries);
  out.family('flashvector_deferrals_total', 'counter', 'Writes that waited for room or a lock', contention.deferrals);
  out.family('flashvector_snapshots_open', 'gauge', 'Open read views', snapshots.open);
  out.family(
    'flashvector_snapshot_oldest_age_seconds',
    'gauge',
    'How long the oldest read view has been open',
    snapshots.oldestAgeMs / 1000,
  );
  out.family('flashvector_versions', 'gauge', 'Superseded entries kept for read views', snapshots.versions);
  out.family('flashvector_version_bytes', 'gauge', 'Their memory', snapshots.versionBytes);
  out.family('flashvector_index_nodes', 'gauge', 'Nodes of the ordered index', index.nodes);
  out.family('flashvector_index_used_bytes', 'gauge', 'Memory in use by the ordered index', index.usedBytes);
  out.family('flashvector_index_waiting_keys', 'gauge', 'New keys that wait to be put into the ordered index', index.waitingKeys);
  out.family('flashvector_threads', 'gauge', 'Threads that use the store', stats.threads);
  if (checkpoints !== undefined) {
    out.family('flashvector_checkpoints_total', 'counter', 'Checkpoints written, and tried in vain', [
      ['result="ok"', checkpoints.completed],
      ['result="failed"', checkpoints.failed],
    ]);
    out.family('flashvector_checkpoint_running', 'gauge', 'Whether a checkpoint is being written', checkpoints.running ? 1 : 0);
  }
  const histograms = M.cumulativeHistograms(core.control);
  for (const [name, help, which] of LATENCIES) {
    const { cumulative, count, sumSeconds } = histograms[which];
    out.histogram(`flashvector_${name}_seconds`, help, cumulative, count, sumSeconds);
  }
  return out.toString();
}
