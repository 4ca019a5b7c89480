/**
 * The sorted runs of all tasks, taken in order, as a whole or in ranges one behind the other: so several tasks can write leaves at once.
 */

import { compareEntries, type SortedRun } from './index-sort.js';
import type { Shard } from './shard.js';

/** A range of the keys of all runs in order: of each run, where it begins and where it ends. */
export interface KeyRange {
  from: readonly number[];
  to: readonly number[];
}

/** A key, by its entry. */
export interface Key {
  unit: number;
  shard: number;
}

/** Some key of a run. */
interface Place {
  run: SortedRun;
  at: number;
}

export function rangeOfAll(runs: readonly SortedRun[]): KeyRange {
  return { from: runs.map(() => 0), to: runs.map((run) => run.units.length) };
}

/** Divides all keys into `parts` ranges, at places that divide the longest run evenly: keys are hashed to shards, so the other runs are divided so, too. */
export function splitRuns(runs: readonly SortedRun[], shards: readonly Shard[], parts: number): KeyRange[] {
  const longest = runs.reduce((a, b) => (b.units.length > a.units.length ? b : a));
  const ranges: KeyRange[] = [];
  let { from } = rangeOfAll(runs);
  const { to: ends } = rangeOfAll(runs);
  for (let part = 1; part < parts; part++) {
    const pivot = { run: longest, at: Math.floor((longest.units.length * part) / parts) };
    const to = runs.map((run) => (run === longest ? pivot.at : countBefore(run, pivot, shards)));
    ranges.push({ from, to });
    from = to;
  }
  ranges.push({ from, to: ends });
  return ranges;
}

/** How many keys of a run come before a key of another one. */
function countBefore(run: SortedRun, pivot: Place, shards: readonly Shard[]): number {
  let low = 0;
  let high = run.units.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(run, middle, pivot.run, pivot.at, shards)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Whether one key comes before another. */
function isBefore(a: SortedRun, i: number, b: SortedRun, j: number, shards: readonly Shard[]): boolean {
  if (a.high[i] !== b.high[j]) return a.high[i] < b.high[j];
  if (a.low[i] !== b.low[j]) return a.low[i] < b.low[j];
  return compareEntries(shards[a.shards[i]].region.words, a.units[i] * 2, shards[b.shards[j]].region.words, b.units[j] * 2) < 0;
}

/** Takes the keys of a range in order. The fields are those of the key taken last. */
export class Merge {
  readonly #runs: readonly SortedRun[];
  readonly #next: number[];
  readonly #to: readonly number[];
  unit = 0;
  shard = 0;
  high = 0;
  low = 0;
  /** Bytes that keys share before `high` and `low`: the same in all runs. */
  readonly shared: number;
  /** Keys in the range. */
  readonly count: number;

  constructor(
    runs: readonly SortedRun[],
    readonly shards: readonly Shard[],
    readonly range: KeyRange,
  ) {
    this.#runs = runs;
    this.#next = [...range.from];
    this.#to = range.to;
    this.shared = runs.find((run) => run.units.length > 0)?.shared ?? 0;
    this.count = range.to.reduce((sum, to, i) => sum + to - range.from[i], 0);
  }

  /** @returns false at the end of the range */
  advance(): boolean {
    const runs = this.#runs;
    const next = this.#next;
    let least = -1;
    for (let i = 0; i < runs.length; i++) {
      if (next[i] < this.#to[i] && (least === -1 || isBefore(runs[i], next[i], runs[least], next[least], this.shards))) least = i;
    }
    if (least === -1) return false;
    const run = runs[least];
    const at = next[least]++;
    this.unit = run.units[at];
    this.shard = run.shards[at];
    this.high = run.high[at];
    this.low = run.low[at];
    return true;
  }

  /** The last key before the range, if there is one. */
  get before(): Key | undefined {
    return this.#outermost(
      this.range.from.map((from) => from - 1),
      (a, b) => this.#isBefore(b, a),
    );
  }

  /** The first key behind the range, if there is one. */
  get behind(): Key | undefined {
    return this.#outermost(this.range.to, (a, b) => this.#isBefore(a, b));
  }

  #isBefore(a: Place, b: Place): boolean {
    return isBefore(a.run, a.at, b.run, b.at, this.shards);
  }

  #outermost(at: readonly number[], isFurther: (a: Place, b: Place) => boolean): Key | undefined {
    const places = this.#runs
      .map((run, i): Place => ({ run, at: at[i] }))
      .filter((place) => place.at >= 0 && place.at < place.run.units.length);
    if (places.length === 0) return undefined;
    const place = places.reduce((a, b) => (isFurther(b, a) ? b : a));
    return { unit: place.run.units[place.at], shard: place.run.shards[place.at] };
  }
}
