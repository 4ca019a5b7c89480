/** A time-boxed part of the sweeps of io-sweep.ts; `npm run test:crash` runs them whole. */

import t from 'tap';
import { testSeed } from '../support/random.js';
import { sweepCuts, sweepFaults } from './io-sweep.js';

const CUTS_MS = 30_000;
const FAULTS_MS = 8000;

void t.test('the power cut at every file operation, and at every operation of the recovery', { timeout: 300_000 }, async (t) => {
  const result = await sweepCuts(testSeed(t), performance.now() + CUTS_MS);
  t.ok(result.tried > 10, `${result.tried} of ${result.operations} operations, ${result.recoveries} recoveries`);
});

for (const kind of ['EIO', 'ENOSPC', 'short', 'EIO for ever', 'EIO reading'] as const) {
  void t.test(`${kind} at every file operation`, { timeout: 300_000 }, async (t) => {
    const result = await sweepFaults(kind, testSeed(t), performance.now() + FAULTS_MS);
    t.ok(result.tried > 10, `${result.tried} of ${result.operations} operations, ${result.recoveries} recoveries`);
  });
}
