/**
 * The crash programme: `npm run test:crash [-- --rounds N] [--deaths N] [--bank N] [--seed S] [--minutes M]`.
 *
 * Every file operation cut and failed, on a disk that loses, keeps, reorders and tears what was not synced; rounds of `kill -9`
 * with checkpoints running; deaths of threads under load. The short form, without arguments, takes some six minutes. A run stops at the
 * first promise that was not kept, and what it printed repeats it.
 */

import { parseArgs } from 'node:util';
import { runDeaths } from '../race/deaths.js';
import { bankRounds } from './bank.js';
import { sweepCuts, sweepFaults } from './io-sweep.js';
import { killRounds } from './kill-rounds.js';

const FAULTS = ['EIO', 'ENOSPC', 'short', 'EIO for ever', 'EIO reading'] as const;

const { values } = parseArgs({
  options: {
    bank: { type: 'string' },
    rounds: { type: 'string' },
    deaths: { type: 'string' },
    seed: { type: 'string' },
    minutes: { type: 'string' },
  },
});
const count = (text: string | undefined, otherwise: number): number => {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${String(text)} is not a number of rounds`);
  return value;
};
const rounds = count(values.rounds, 200);
const deaths = count(values.deaths, 500);
const bank = count(values.bank, 20);
const seed = count(values.seed, Date.now() % 1_000_000);
const deadlineMs = values.minutes === undefined ? Infinity : performance.now() + Number(values.minutes) * 60_000;

const say = (line: string): void => {
  console.log(`${(performance.now() / 1000).toFixed(0).padStart(5)} s  ${line}`);
};

say(`crash programme, seed ${seed}: --rounds ${rounds} --deaths ${deaths} --bank ${bank}`);
const cuts = await sweepCuts(seed, deadlineMs);
say(
  `power cut in ${cuts.tried} of ${cuts.operations} file operations, and in every one of their recoveries: ${cuts.recoveries} recoveries, all right`,
);
for (const kind of FAULTS) {
  const faults = await sweepFaults(kind, seed, deadlineMs);
  say(`${kind} in ${faults.tried} of ${faults.operations} operations: ${faults.recoveries} recoveries, all right`);
}
// Two stores at a time: a round is mostly waiting.
const half = Math.ceil(rounds / 2);
const killed = await Promise.all([killRounds(half, seed, deadlineMs), killRounds(rounds - half, seed + 1, deadlineMs)]);
say(
  `${killed[0].rounds + killed[1].rounds} rounds of kill -9: about ${killed[0].acknowledged + killed[1].acknowledged} acknowledged writes were all found`,
);
say(`${bank} rounds of the bank: ${await bankRounds(bank, seed)} transfers, the total always the same`);
const dead = await runDeaths(deaths, seed, deadlineMs);
say(
  `${dead.deaths} threads died, ${dead.operations} operations in order; longest put of the owner ${dead.longestMs.toFixed(0)} ms; ` +
    `resident ${dead.earlyMiB} MiB after a quarter, ${dead.lateMiB} MiB at the end`,
);
process.exit();
