/** What race/deaths.ts tells a victim. Imports nothing: a worker that is terminated must not evaluate a module with a top-level await. */

export interface VictimPlan {
  death: 'terminate' | 'exit' | 'throw' | 'memory';
  afterMs: number;
  firstKey: number;
  keys: number;
  firstStamp: number;
  size: number;
  seed: number;
}

/** Kind, key, value, start, end. */
export const RECORD_FIELDS = 5;
