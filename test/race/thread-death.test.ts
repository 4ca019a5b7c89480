/** A time-boxed part of deaths.ts; `npm run test:crash` runs it at length. */

import t from 'tap';
import { testSeed } from '../support/random.js';
import { runDeaths } from './deaths.js';

void t.test('threads that die under load', { timeout: 300_000 }, async (t) => {
  const result = await runDeaths(10_000, testSeed(t), performance.now() + 25_000);
  t.ok(result.deaths >= 24 && result.operations > 1000, `${result.deaths} deaths, ${result.operations} operations in order`);
});
