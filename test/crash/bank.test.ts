/** The short form of the bank; `npm run test:crash -- --bank N` runs it at length. */

import t from 'tap';
import { testSeed } from '../support/random.js';
import { bankRounds } from './bank.js';

void t.test('the total of all accounts survives kill -9, in every snapshot and every recovery', { timeout: 240_000 }, async (t) => {
  const transfers = await bankRounds(20, testSeed(t) % 1_000_000);
  t.ok(transfers > 200, `${transfers} transfers acknowledged`);
});
