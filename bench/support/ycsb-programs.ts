/**
 * The programs of the Yahoo Cloud Serving Benchmark's core workloads, made beforehand from a seed, the same for every engine.
 *
 * Source: Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010; the zipfian generator is that of Gray et al., "Quickly Generating
 * Billion-Record Synthetic Databases", SIGMOD 1994, scrambled by a hash so that the popular keys do not lie together.
 */

import { INSERT, MODIFY, READ, SCAN, UPDATE, type Program } from '../engines/loops.js';
import { randomFrom } from './data-set.js';

const THETA = 0.99;
const SCAN_MAX = 100;

export interface Mix {
  title: string;
  read?: number;
  update?: number;
  insert?: number;
  scan?: number;
  modify?: number;
  latest?: boolean;
}

export const MIXES: Record<string, Mix> = {
  A: { title: 'half reads, half updates', read: 0.5, update: 0.5 },
  B: { title: '95 % reads, 5 % updates', read: 0.95, update: 0.05 },
  C: { title: 'reads', read: 1 },
  D: { title: '95 % reads of the latest, 5 % inserts', read: 0.95, insert: 0.05, latest: true },
  E: { title: '95 % scans of 1 to 100, 5 % inserts', scan: 0.95, insert: 0.05 },
  F: { title: 'half reads, half read-modify-writes', read: 0.5, modify: 0.5 },
};

/** Numbers from 0 to `count` - 1, 0 the most popular. */
class Zipfian {
  #count = 0;
  #zeta = 0;
  #eta = 0;
  readonly #zeta2 = 1 + 1 / 2 ** THETA;

  constructor(
    readonly random: () => number,
    count: number,
  ) {
    this.grow(count);
  }

  grow(count: number): void {
    for (let i = this.#count + 1; i <= count; i++) this.#zeta += 1 / i ** THETA;
    this.#count = count;
    this.#eta = (1 - (2 / count) ** (1 - THETA)) / (1 - this.#zeta2 / this.#zeta);
  }

  next(): number {
    const u = this.random();
    const uz = u * this.#zeta;
    if (uz < 1) return 0;
    if (uz < this.#zeta2) return 1;
    return Math.min(this.#count - 1, Math.floor(this.#count * (this.#eta * u - this.#eta + 1) ** (1 / (1 - THETA))));
  }
}

/** Spreads neighbours over all numbers below `count` (the finalizer of MurmurHash3). */
function scramble(number: number, count: number): number {
  let h = number + 0x9e37_79b9;
  h = Math.imul(h ^ (h >>> 16), 0x85eb_ca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35);
  return ((h ^ (h >>> 16)) >>> 0) % count;
}

/**
 * @param loaded keys that are there before; inserts take those behind
 * @returns the program, and how many keys there are after it
 */
export function makeProgram(mix: Mix, loaded: number, operations: number, seed: number): { program: Program; keys: number } {
  const random = randomFrom(seed);
  const zipfian = new Zipfian(random, loaded);
  const program = { kinds: new Uint8Array(operations), targets: new Int32Array(operations), lengths: new Uint8Array(operations) };
  let keys = loaded;
  const shares: [number, number][] = [
    [READ, mix.read ?? 0],
    [UPDATE, mix.update ?? 0],
    [INSERT, mix.insert ?? 0],
    [SCAN, mix.scan ?? 0],
    [MODIFY, mix.modify ?? 0],
  ];
  for (let i = 0; i < operations; i++) {
    let rest = random();
    const kind = shares.find(([, share]) => (rest -= share) < 0)?.[0] ?? READ;
    program.kinds[i] = kind;
    if (kind === INSERT) {
      program.targets[i] = keys++;
      if (mix.latest === true) zipfian.grow(keys);
      continue;
    }
    program.targets[i] = mix.latest === true ? keys - 1 - zipfian.next() : scramble(zipfian.next(), loaded);
    program.lengths[i] = kind === SCAN ? 1 + Math.floor(random() * SCAN_MAX) : 0;
  }
  return { program, keys };
}
