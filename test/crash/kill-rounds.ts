/**
 * `kill -9` at random moments, round after round on the same store: nothing acknowledged is lost, no
 * batch is torn, nothing is invented. Checkpoints are written all the while. `npm run test:crash` runs it by hand.
 *
 * A child looks whether everything that was acknowledged before is there, and writes then, from its main thread and from an attached worker. It appends each
 * number to a file once the write that carries it has been acknowledged, so that what stands there was acknowledged. One child in eight is killed while it
 * starts and recovers. So most recoveries are of what was killed in the middle of the one before; now and then the test itself looks, and closes the store.
 */

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { open } from '../../src/index.js';
import { randomFrom } from '../support/random.js';
import { KEYS, checkAcknowledged, type Acknowledged } from './kill-check.js';

const ROUNDS_PER_STORE = 20;
/** The test looks, and closes the store, so often. */
const ROUNDS_PER_LOOK = 5;
const EARLY_SHARE = 1 / 8;
/** Starting and recovering takes a child about so long. */
const EARLY_MS = 500;
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
  const writer = spawn(process.execPath, [child, files.folder, String(start), files.notes, files.told], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const running = new Promise<void>((resolve) => writer.stdout.once('data', () => resolve()));
  const exited = new Promise<number | null>((resolve) => writer.once('close', resolve));
  const isEarly = random() < EARLY_SHARE;
  if (!isEarly) await Promise.race([running, exited]);
  await new Promise((resolve) => setTimeout(resolve, random() * (isEarly ? EARLY_MS : WRITES_MS)));
  writer.kill('SIGKILL');
  const code = await exited;
  if (code !== null) throw new Error(`the writer ended by itself with ${code}, from ${start} on; it says above why`);
  const output = fs.readFileSync(files.notes, 'utf8');
  let last = start;
  for (const line of output.slice(0, output.lastIndexOf('\n') + 1).split('\n')) {
    const match = /^(main|worker) (key|batch) (\d+)$/.exec(line);
    if (match === null) continue;
    const [, who, what, number] = match;
    const n = Number(number);
    if (what === 'key') acknowledged.key[`${who}${n % KEYS}`] = n;
    else acknowledged.batch[who] = n;
    if (n > last) last = n;
  }
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

/** @returns numbers acknowledged in all rounds */
export async function killRounds(rounds: number, seed: number): Promise<number> {
  const random = randomFrom(seed);
  let total = 0;
  for (let round = 0; round < rounds;) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'flashvector-kill-'));
    const files: Files = { folder, notes: `${folder}.notes`, told: `${folder}.told` };
    try {
      const acknowledged: Acknowledged = { key: {}, batch: {} };
      let start = 0;
      for (let i = 1; i <= ROUNDS_PER_STORE && round < rounds; i++, round++) {
        const last = await oneRound(files, start, acknowledged, random);
        total += last - start;
        // Far past anything that may have been issued and not acknowledged.
        start = last + 100_000;
        if (i % ROUNDS_PER_LOOK === 0 || round === rounds - 1) await look(folder, acknowledged, start);
      }
    } finally {
      fs.rmSync(folder, { recursive: true, force: true });
      fs.rmSync(files.notes, { force: true });
      fs.rmSync(files.told, { force: true });
    }
  }
  return total;
}
