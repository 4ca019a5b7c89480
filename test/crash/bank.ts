/**
 * The bank: transfers between a thousand accounts from four threads, `kill -9` round after round on the same store. Every recovery finds the same total,
 * as every snapshot did while it ran, and no acknowledged transfer is missing.
 */

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { open } from '../../src/index.js';
import { ACCOUNTS, BALANCE, totalOf } from '../fixture/bank-child.js';
import { randomFrom } from '../support/random.js';

const child = new URL('../fixture/bank-child.js', import.meta.url).pathname;
const THREADS = [1, 2, 3, 4];

/** @returns transfers acknowledged in all rounds, at least @throws Error naming round and seed */
export async function bankRounds(rounds: number, seed: number): Promise<number> {
  const random = randomFrom(seed);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'flashvector-bank-'));
  const notes = `${folder}.notes`;
  let transfers = 0;
  try {
    for (let round = 0; round < rounds; round++) {
      const where = `bank, seed ${seed}, round ${round}`;
      fs.writeFileSync(notes, '');
      const bank = spawn(process.execPath, [child, 'bank', folder, notes, String(seed + round * 100)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const running = new Promise<void>((resolve) => bank.stdout.once('data', () => resolve()));
      const exited = new Promise<number | null>((resolve) => bank.once('close', resolve));
      await Promise.race([running, exited]);
      await new Promise((resolve) => setTimeout(resolve, 100 + random() * 500));
      bank.kill('SIGKILL');
      const code = await exited;
      const text = fs.readFileSync(notes, 'utf8');
      if (code !== null) throw new Error(`${where}: the bank ended by itself with ${code}: ${/wrong.*/.exec(text)?.[0] ?? ''}`);
      const acknowledged = new Map<number, number>();
      for (const line of text.slice(0, text.lastIndexOf('\n') + 1).split('\n')) {
        const match = /^(\d) (\d+)$/.exec(line);
        if (match !== null) acknowledged.set(Number(match[1]), Number(match[2]));
      }
      const db = await open(folder);
      try {
        const total = totalOf(db.values({ prefix: 'account' }));
        if (total !== ACCOUNTS * BALANCE) throw new Error(`${where}: ${total} in all accounts`);
        if (db.count({ prefix: 'account' }) !== ACCOUNTS) throw new Error(`${where}: accounts are missing`);
        for (const thread of THREADS) {
          const least = acknowledged.get(thread) ?? 0;
          // Each round counts from 1: what a thread had not reached yet is of the round before.
          const found = (db.get(`last${thread}`) as number | undefined) ?? 0;
          if (least > 0 && found < least)
            throw new Error(`${where}: thread ${thread} was told of transfer ${least}, the last there is ${found}`);
          transfers += least;
        }
        await db.batch(THREADS.map((thread) => ({ type: 'del', key: `last${thread}` })));
      } finally {
        await db.close();
      }
    }
    return transfers;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
    fs.rmSync(notes, { force: true });
  }
}
