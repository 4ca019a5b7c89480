/**
 * Counters and latency histograms: per thread, in the control region, summed when read.
 *
 * Each thread writes only its own block, with plain additions, so counting takes no lock and shares
 * no cache line. Counters are doubles: aligned 8-byte accesses do not tear on the 64-bit machines
 * that V8 runs on, and they count exactly to 2^53. A block stays when its thread leaves: the sums
 * never fall.
 */

import type { Control } from './control.js';
import * as L from './layout.js';

export const COUNTER_READS = 0;
export const COUNTER_HITS = 1;
export const COUNTER_BYTES_READ = 2;
export const COUNTER_PUTS = 3;
export const COUNTER_DELETES = 4;
export const COUNTER_BYTES_WRITTEN = 5;
export const COUNTER_BATCHES = 6;
export const COUNTER_CONFLICTS = 7;
/** Writes that had to wait for ring room or a shard lock and were tried again. */
export const COUNTER_DEFERRALS = 8;
export const COUNTER_LOCK_WAITS = 9;
export const COUNTER_OPTIMISTIC_RETRIES = 10;
export const COUNTER_FRAMES = 11;
export const COUNTER_SYNCS = 12;
export const COUNTER_RECORDS = 13;
export const COUNTER_LOG_BYTES = 14;
export const COUNTER_SEGMENTS = 15;
/** Entries removed because they had expired, and to make room. */
export const COUNTER_EXPIRED = 16;
export const COUNTER_EVICTED = 17;

export const HISTOGRAM_GET = 0;
/** From the call of put until the write is in the tables. */
export const HISTOGRAM_PUT_APPLIED = 1;
/** From the call of put until it is acknowledged. */
export const HISTOGRAM_PUT_DURABLE = 2;
/** One `fdatasync`. */
export const HISTOGRAM_SYNC = 3;

/** Buckets: eight to an octave from 8 ns on, so a value is off by at most an eighth. */
const SUB_BITS = 3;

function bucketOf(ns: number): number {
  let value = ns < 8 ? 8 : ns;
  let octaves = 0;
  while (value >= 0x8000_0000) {
    value /= 256;
    octaves += 8;
  }
  const whole = value | 0;
  const exponent = 31 - Math.clz32(whole);
  const bucket = ((exponent - SUB_BITS + octaves) << SUB_BITS) + ((whole >>> (exponent - SUB_BITS)) & 7);
  return bucket < L.HISTOGRAM_BUCKETS ? bucket : L.HISTOGRAM_BUCKETS - 1;
}

/** Middle of a bucket in ns. */
function bucketValue(bucket: number): number {
  const scale = 2 ** (bucket >>> SUB_BITS);
  return (8 + (bucket & 7) + 0.5) * scale;
}

/** One thread's block. */
export class ThreadMetrics {
  readonly counters: Float64Array;
  readonly #buckets: Int32Array;

  constructor(control: Control, slot: number) {
    const at = (control.shape.metricsAreaWord + slot * L.METRICS_WORDS) * 4;
    this.counters = new Float64Array(control.buffer, at, L.METRICS_COUNTERS);
    this.#buckets = new Int32Array(control.buffer, at + L.METRICS_COUNTERS * 8, L.METRICS_HISTOGRAMS * L.HISTOGRAM_BUCKETS);
  }

  add(counter: number, amount: number): void {
    this.counters[counter] += amount;
  }

  record(histogram: number, ns: number): void {
    this.#buckets[histogram * L.HISTOGRAM_BUCKETS + bucketOf(ns)]++;
  }
}

/** A latency distribution, in microseconds. */
export interface LatencySummary {
  count: number;
  p50Us: number;
  p90Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

export interface MetricsSum {
  counters: Float64Array;
  /** One a histogram, in the order of HISTOGRAM_*. */
  latencies: LatencySummary[];
}

/** A distribution as Prometheus wants it. */
export interface CumulativeHistogram {
  /** Upper bounds in seconds, doubling, and how many values were below. */
  cumulative: [boundSeconds: number, count: number][];
  count: number;
  /** From the middles of the buckets: off by some percent. */
  sumSeconds: number;
}

/** One a histogram, in the order of HISTOGRAM_*. */
export function cumulativeHistograms(control: Control): CumulativeHistogram[] {
  const { buckets } = sumBlocks(control);
  return Array.from({ length: L.METRICS_HISTOGRAMS }, (_, i) =>
    accumulate(buckets.subarray(i * L.HISTOGRAM_BUCKETS, (i + 1) * L.HISTOGRAM_BUCKETS)),
  );
}

function accumulate(buckets: Float64Array): CumulativeHistogram {
  const out: CumulativeHistogram = { cumulative: [], count: 0, sumSeconds: 0 };
  const perOctave = 1 << SUB_BITS;
  for (let i = 0; i < buckets.length; i++) {
    out.count += buckets[i];
    out.sumSeconds += (buckets[i] * bucketValue(i)) / 1e9;
    if (i % perOctave === perOctave - 1) out.cumulative.push([2 ** ((i >>> SUB_BITS) + SUB_BITS + 1) / 1e9, out.count]);
  }
  return out;
}

/** Counters and buckets of all threads. */
function sumBlocks(control: Control): { counters: Float64Array; buckets: Float64Array } {
  const counters = new Float64Array(L.METRICS_COUNTERS);
  const buckets = new Float64Array(L.METRICS_HISTOGRAMS * L.HISTOGRAM_BUCKETS);
  for (let slot = 0; slot < L.THREADS_MAX; slot++) {
    const at = (control.shape.metricsAreaWord + slot * L.METRICS_WORDS) * 4;
    const own = new Float64Array(control.buffer, at, L.METRICS_COUNTERS);
    for (let i = 0; i < counters.length; i++) counters[i] += own[i];
    const ownBuckets = new Uint32Array(control.buffer, at + L.METRICS_COUNTERS * 8, buckets.length);
    for (let i = 0; i < buckets.length; i++) buckets[i] += ownBuckets[i];
  }
  return { counters, buckets };
}

export function sumMetrics(control: Control): MetricsSum {
  const { counters, buckets } = sumBlocks(control);
  const latencies: LatencySummary[] = [];
  for (let i = 0; i < L.METRICS_HISTOGRAMS; i++) {
    latencies.push(summarize(buckets.subarray(i * L.HISTOGRAM_BUCKETS, (i + 1) * L.HISTOGRAM_BUCKETS)));
  }
  return { counters, latencies };
}

function summarize(buckets: Float64Array): LatencySummary {
  let count = 0;
  for (const amount of buckets) count += amount;
  const at = (quantile: number): number => {
    let left = count * quantile;
    for (let i = 0; i < buckets.length; i++) {
      left -= buckets[i];
      if (buckets[i] !== 0 && left <= 0) return Math.round(bucketValue(i)) / 1000;
    }
    return 0;
  };
  return { count, p50Us: at(0.5), p90Us: at(0.9), p99Us: at(0.99), p999Us: at(0.999), maxUs: at(1) };
}
