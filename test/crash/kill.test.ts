/** 200 rounds of kill -9; see kill-rounds.ts. */

import t from 'tap';
import { testSeed } from '../support/random.js';
import { killRounds } from './kill-rounds.js';

void t.test('200 rounds of kill -9', { timeout: 600_000 }, async (t) => {
  const acknowledged = await killRounds(200, testSeed(t));
  t.ok(acknowledged > 1000, `${acknowledged} acknowledged writes were all found`);
});
