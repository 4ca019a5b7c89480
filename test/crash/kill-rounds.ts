/**
 * `kill -9` at random moments, round after round on the same store: nothing acknowledged is lost, no
 * batch is torn, nothing is invented. Checkpoints are written all the while. `npm run test:crash` runs it by hand.
 *
 * A child looks whether everything that was acknowledged before is there, and writes then, from its main thread and from an attached worker; its time begins when both have
 * been told of a write. It appends each number to a file once the write that carries it has been acknowledged, so that what stands there was acknowledged. One child in
 * eight is killed while it opens the store. Most of what is recovered was never closed; now and then the test itself looks, and closes the store.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { open } from '../../src/index.js';
import { KilledChild } from '../support/killed-child.js';
import { randomFrom } from '../support/random.js';
import { KEYS, checkAcknowledged, type Acknowledged } from './kill-check.js';

const ROUNDS_PER_STORE = 20;
/** The test looks, and closes the store, so often. */
const ROUNDS_PER_LOOK = 5;
const EARLY_SHARE = 1 / 8;
/** Opening takes a child about so long. */
const EARLY_MS = 250;
const WRITES_MS = 120;
const child = new URL('../fixture/kill-child.js', import.meta.url).pathname;

/** What a store's folder has beside it. */
interface Files {
  folder: string;
  /** Where the child notes what was acknowledged. */
  notes: string;
  /** What was acknowledged in the rounds before, for the child to look for. */
  told: string;
}

async function oneRound(files: Files, start: number, acknowledged: Acknowledged, random: () => number): Promise<number> {
  fs.writeFileSync(files.notes, '');
  fs.writeFileSync(files.told, JSON.stringify(acknowledged));
  const writer = new KilledChild(child, [files.folder, String(start), files.notes, files.told]);
  const isEarly = random() < EARLY_SHARE;
  if (isEarly) await writer.hasSaid('opens');
  else await writer.hasSaid('main writes', 'worker writes');
  await sleep(random() * (isEarly ? EARLY_MS : WRITES_MS));
  await writer.kill();
  const output = fs.readFileSync(files.notes, 'utf8');
  let last = start;
  const writers = new Set<string>();
  for (const line of output.slice(0, output.lastIndexOf('\n') + 1).split('\n')) {
    const match = /^(main|worker) (key|batch) (\d+)$/.exec(line);
    if (match === null) continue;
    const [, who, what, number] = match;
    const n = Number(number);
    writers.add(who);
    if (what === 'key') acknowledged.key[`${who}${n % KEYS}`] = n;
    else acknowledged.batch[who] = n;
    if (n > last) last = n;
  }
  if (!isEarly && writers.size < 2) throw new Error(`only ${[...writers].join() || 'nobody'} has noted anything from ${start} on`);
  return last;
}

async function look(folder: string, acknowledged: Acknowledged, issuedMax: number): Promise<void> {
  const db = await open(folder);
  try {
    checkAcknowledged(db, acknowledged, issuedMax);
  } finally {
    await db.close();
  }
}

export interface KillTotals {
  rounds: number;
  /** Numbers that were acknowledged in all of them. */
  acknowledged: number;
}

/** @param deadlineMs no round begins after it @throws Error naming what was lost */
export async function killRounds(rounds: number, seed: number, deadlineMs = Infinity): Promise<KillTotals> {
  const random = randomFrom(seed);
  let total = 0;
  let round = 0;
  while (round < rounds && performance.now() < deadlineMs) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'flashvector-kill-'));
    const files: Files = { folder, notes: `${folder}.notes`, told: `${folder}.told` };
    try {
      const acknowledged: Acknowledged = { key: {}, batch: {} };
      let start = 0;
      for (let i = 1, isLast = false; i <= ROUNDS_PER_STORE && !isLast; i++) {
        const last = await oneRound(files, start, acknowledged, random);
        total += last - start;
        // Far past anything that may have been issued and not acknowledged.
        start = last + 100_000;
        isLast = ++round === rounds || performance.now() > deadlineMs;
        if (i % ROUNDS_PER_LOOK === 0 || isLast) await look(folder, acknowledged, start);
      }
    } finally {
      fs.rmSync(folder, { recursive: true, force: true });
      fs.rmSync(files.notes, { force: true });
      fs.rmSync(files.told, { force: true });
    }
  }
  return { rounds: round, acknowledged: total };
}
