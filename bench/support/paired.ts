/**
 * Paired measurement: the contestants take turns, round after round, in one process.
 *
 * On a shared machine speed drifts by tens of percent within seconds. What runs within the same second
 * meets the same machine, so ratios are taken round by round and their median is the result; medians of rates
 * are printed beside them. Every other round runs in reverse order, so that nobody always comes first.
 */

import { median } from './percentiles.js';

export interface Contestant {
  name: string;
  /** Does the work once. @returns its rate, per second */
  run(): Promise<number>;
}

export interface PairedOptions {
  rounds: number;
  /** Rounds before, of which nothing is kept. */
  warmups: number;
  /** Whether garbage is collected before each turn. `true`; not for reads: it shrinks the young generation, and whoever allocates pays for that. */
  collects?: boolean;
}

export class PairedRates {
  /** By contestant, one rate a round. */
  readonly rates = new Map<string, number[]>();

  add(name: string, rate: number): void {
    const rates = this.rates.get(name);
    if (rates === undefined) this.rates.set(name, [rate]);
    else rates.push(rate);
  }

  rate(name: string): number | undefined {
    const rates = this.rates.get(name);
    return rates === undefined ? undefined : median(rates);
  }

  /** Median over the rounds of `name`'s rate by that of `base`; `undefined` when one of them did not take part. */
  ratio(name: string, base: string): number | undefined {
    const own = this.rates.get(name);
    const other = this.rates.get(base);
    if (own === undefined || other === undefined) return undefined;
    return median(own.map((rate, round) => rate / other[round]));
  }
}

/** Collects garbage, so that nobody pays for what the one before has left behind. */
export function collectGarbage(): void {
  globalThis.gc?.();
}

export async function runPaired(contestants: readonly Contestant[], options: PairedOptions): Promise<PairedRates> {
  const result = new PairedRates();
  for (let round = -options.warmups; round < options.rounds; round++) {
    const order = round % 2 === 0 ? contestants : [...contestants].reverse();
    for (const contestant of order) {
      if (options.collects !== false) collectGarbage();
      const rate = await contestant.run();
      if (round >= 0) result.add(contestant.name, rate);
    }
  }
  return result;
}
