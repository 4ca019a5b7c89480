/**
 * `kill -9` at random moments, round after round on the same store: nothing acknowledged is lost, no
 * batch is torn, nothing is invented. Checkpoints are written all the while. `npm run test:crash` runs it by hand.
 *
 * A child writes from its main thread and from an attached worker. It appends each number to a file once the
 * write that carries it has been acknowledged, so that what stands there was acknowledged.
 */

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { open } from '../../src/index.js';
import { randomFrom } from '../support/random.js';

const KEYS = 50;
const ROUNDS_PER_STORE = 20;
const child = new URL('../fixture/kill-child.js', import.meta.url).pathname;

interface Acknowledged {
  /** Highest number acknowledged for each writer's keys and batches. */
  key: Map<string, number>;
  batch: Map<string, number>;
}

async function oneRound(folder: string, start: number, acknowledged: Acknowledged, delayMs: number): Promise<number> {
  const notes = `${folder}.notes`;
  fs.writeFileSync(notes, '');
  const writer = spawn(process.execPath, [child, folder, String(start), String(KEYS), notes], { stdio: ['ignore', 'pipe', 'inherit'] });
  const running = new Promise<void>((resolve) => writer.stdout.once('data', () => resolve()));
  const exited = new Promise<number | null>((resolve) => writer.once('close', resolve));
  await Promise.race([running, exited]);
  await new Promise((resolve) => setTimeout(resolve, delayMs));
  writer.kill('SIGKILL');
  const code = await exited;
  if (code !== null) throw new Error(`the writer ended by itself with ${code}`);
  const output = fs.readFileSync(notes, 'utf8');
  let last = start;
  for (const line of output.slice(0, output.lastIndexOf('\n') + 1).split('\n')) {
    const match = /^(main|worker) (key|batch) (\d+)$/.exec(line);
    if (match === null) continue;
    const [, who, what, number] = match;
    const n = Number(number);
    if (what === 'key') acknowledged.key.set(`${who}${n % KEYS}`, n);
    else acknowledged.batch.set(who, n);
    if (n > last) last = n;
  }
  return last;
}

async function verify(folder: string, acknowledged: Acknowledged, issuedMax: number): Promise<void> {
  const db = await open(folder);
  try {
    for (const [key, least] of acknowledged.key) {
      const found = db.get(key) as { n: number; pad: string } | undefined;
      if (found === undefined || found.n < least) throw new Error(`${key}: ${least} was acknowledged, ${found?.n} found`);
      if (found.n > issuedMax || key !== `${key.replace(/\d+$/, '')}${found.n % KEYS}` || found.pad !== 'p'.repeat(found.n % 700))
        throw new Error(`${key}: ${found.n} was never written so`);
    }
    for (const who of ['main', 'worker']) {
      const parts = Array.from({ length: 5 }, (_, i) => db.get(`batch/${who}/${i}`) as number | undefined);
      if (new Set(parts).size > 1) throw new Error(`a torn batch: ${parts.join()}`);
      const least = acknowledged.batch.get(who);
      if (least !== undefined && (parts[0] === undefined || parts[0] < least))
        throw new Error(`batch ${least} of ${who} was acknowledged, ${parts[0]} found`);
    }
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
    try {
      const acknowledged: Acknowledged = { key: new Map(), batch: new Map() };
      let start = 0;
      for (let i = 0; i < ROUNDS_PER_STORE && round < rounds; i++, round++) {
        const last = await oneRound(folder, start, acknowledged, random() * 120);
        total += last - start;
        // Far past anything that may have been issued and not acknowledged.
        start = last + 100_000;
        await verify(folder, acknowledged, start);
      }
    } finally {
      fs.rmSync(folder, { recursive: true, force: true });
      fs.rmSync(`${folder}.notes`, { force: true });
    }
  }
  return total;
}
