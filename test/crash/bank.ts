/**
 * The bank: transfers between a thousand accounts from four threads, `kill -9` round after round on the same store. Every recovery finds the same total,
 * as every snapshot did while it ran, and no acknowledged transfer is missing.
 */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { open } from '../../src/index.js';
import { ACCOUNTS, BALANCE, totalOf } from '../fixture/bank-child.js';
import { KilledChild } from '../support/killed-child.js';
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
      const bank = new KilledChild(child, ['bank', folder, notes, String(seed + round * 100)]);
      try {
        await bank.hasSaid('audited', ...THREADS.map((thread) => `${thread} transferred`));
        await sleep(100 + random() * 500);
        await bank.kill();
      } catch (cause) {
        const wrong = /wrong.*/.exec(fs.readFileSync(notes, 'utf8'))?.[0] ?? '';
        throw new Error(`${where}: ${(cause as Error).message} ${wrong}`, { cause });
      }
      const text = fs.readFileSync(notes, 'utf8');
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
          if (least === 0) throw new Error(`${where}: thread ${thread} has noted no transfer`);
          // Each round counts from 1: what a thread had not reached yet is of the round before.
          const found = (db.get(`last${thread}`) as number | undefined) ?? 0;
          if (found < least) throw new Error(`${where}: thread ${thread} was told of transfer ${least}, the last there is ${found}`);
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
