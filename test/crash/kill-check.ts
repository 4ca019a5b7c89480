/** What was acknowledged before a `kill -9`, and whether a store still has it; see kill-rounds.ts. The next writer looks as soon as it has opened, or the test does. */

import type { FlashVector } from '../../src/index.js';

/** Keys of each of the two writers: it writes number `n` under its name and `n % KEYS`. */
export const KEYS = 50;

/** As JSON, it goes to the next writer. */
export interface Acknowledged {
  /** Highest number acknowledged for each key, and for each writer's batches. */
  key: Record<string, number>;
  batch: Record<string, number>;
}

/** @param issuedMax no number above it was ever written @throws Error naming what was lost, torn or invented */
export function checkAcknowledged(db: FlashVector, acknowledged: Acknowledged, issuedMax: number): void {
  for (const [key, least] of Object.entries(acknowledged.key)) {
    const found = db.get(key) as { n: number; pad: string } | undefined;
    if (found === undefined || found.n < least) throw new Error(`${key}: ${least} was acknowledged, ${found?.n} found`);
    if (found.n > issuedMax || key !== `${key.replace(/\d+$/, '')}${found.n % KEYS}` || found.pad !== 'p'.repeat(found.n % 700))
      throw new Error(`${key}: ${found.n} was never written so`);
  }
  for (const who of ['main', 'worker']) {
    const parts = Array.from({ length: 5 }, (_, i) => db.get(`batch/${who}/${i}`) as number | undefined);
    if (new Set(parts).size > 1) throw new Error(`a torn batch: ${parts.join()}`);
    const least = acknowledged.batch[who];
    if (least !== undefined && (parts[0] === undefined || parts[0] < least))
      throw new Error(`batch ${least} of ${who} was acknowledged, ${parts[0]} found`);
  }
}
