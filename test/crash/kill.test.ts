/** 200 rounds of kill -9, or as many as four minutes have room for; see kill-rounds.ts. `npm run test:crash` does all of them, however long they take. */

import t from 'tap';
import { testSeed } from '../support/random.js';
import { killRounds } from './kill-rounds.js';

const ROUNDS = 200;
const LIMIT_MS = 240_000;

void t.test(`${ROUNDS} rounds of kill -9`, { timeout: 600_000 }, async (t) => {
  const seed = testSeed(t);
  const deadline = performance.now() + LIMIT_MS;
  // Two stores at a time: a round is mostly waiting.
  const [a, b] = await Promise.all([killRounds(ROUNDS / 2, seed, deadline), killRounds(ROUNDS / 2, seed + 1, deadline)]);
  const rounds = a.rounds + b.rounds;
  const acknowledged = a.acknowledged + b.acknowledged;
  t.comment(`${rounds} rounds, ${acknowledged} acknowledged writes`);
  t.ok(rounds >= ROUNDS / 4, `${rounds} rounds`);
  t.ok(acknowledged > rounds * 100, `${acknowledged} acknowledged writes were all found`);
});
