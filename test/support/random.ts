/** Seeded randomness: every test that draws prints its seed, and takes it back from FV_TEST_SEED. */

import { randomInt } from 'node:crypto';

export function testSeed(t: { comment(text: string): void }): number {
  const given = process.env['FV_TEST_SEED'];
  const seed = given === undefined ? randomInt(0x7fff_ffff) : Number(given);
  t.comment(`seed ${seed} (set FV_TEST_SEED to repeat)`);
  return seed;
}

/** mulberry32: small, fast, good enough to choose test cases. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
