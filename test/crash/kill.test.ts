/** 200 rounds of kill -9; see kill-rounds.ts. */

import t from 'tap';
import { testSeed } from '../support/random.js';
import { killRounds } from './kill-rounds.js';

void t.test('200 rounds of kill -9', { timeout: 900_000 }, async (t) => {
  const seed = testSeed(t);
  // Two stores at a time: a round is mostly waiting. Nine minutes beside other tests on a slow day.
  const totals = await Promise.all([killRounds(100, seed), killRounds(100, seed + 1)]);
  const acknowledged = totals[0] + totals[1];
  t.ok(acknowledged > 1000, `${acknowledged} acknowledged writes were all found`);
});
