/** Medians, percentiles, and a log of latencies that costs little to write to. */

/** A latency distribution, in microseconds. */
export interface Percentiles {
  count: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

export function median(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Latencies in the order they were measured. Doubles its memory when full, so it allocates rarely. */
export class LatencyLog {
  #valuesMs = new Float64Array(65_536);
  count = 0;

  add(ms: number): void {
    if (this.count === this.#valuesMs.length) this.#grow();
    this.#valuesMs[this.count++] = ms;
  }

  #grow(): void {
    const larger = new Float64Array(this.#valuesMs.length * 2);
    larger.set(this.#valuesMs);
    this.#valuesMs = larger;
  }

  clear(): void {
    this.count = 0;
  }

  percentiles(): Percentiles | undefined {
    if (this.count === 0) return undefined;
    const sorted = this.#valuesMs.slice(0, this.count).sort();
    const at = (quantile: number): number => sorted[Math.min(this.count - 1, Math.floor(this.count * quantile))] * 1000;
    return { count: this.count, p50Us: at(0.5), p99Us: at(0.99), p999Us: at(0.999), maxUs: at(1) };
  }
}

/** Times single calls. The clock's own cost is part of each, the same for every engine: see `clockCostUs`. */
export function timeCalls(count: number, call: (index: number) => unknown): Percentiles | undefined {
  const log = new LatencyLog();
  for (let i = 0; i < count; i++) {
    const started = performance.now();
    call(i);
    log.add(performance.now() - started);
  }
  return log.percentiles();
}

/** What `timeCalls` shows for a call that does nothing. It varies by a factor of ten between machines. */
export function clockCostUs(): number {
  return timeCalls(10_000, () => undefined)?.p50Us ?? Number.NaN;
}
