/** LCS: the longest common subsequence of two values. Cost: the product of their lengths, in time and, without LEN, in memory. */

import { numberOf, wordOf, syntaxError } from '../arguments.js';
import type { Command } from '../command.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';
import { bytesUnder } from './bits.js';

/** Cells of the table, 4 bytes each: with more of them everybody else would wait for a second and longer. */
const CELLS_MAX = 64 * 1024 * 1024;

interface Match {
  a: [first: number, last: number];
  b: [first: number, last: number];
}

function lcs(session: Session, args: Buffer[]): void {
  let wantsLength = false;
  let wantsIndexes = false;
  let wantsMatchLength = false;
  let matchLengthMin = 0;
  for (let i = 3; i < args.length; i++) {
    const word = wordOf(args[i]);
    if (word === 'IDX') wantsIndexes = true;
    else if (word === 'LEN') wantsLength = true;
    else if (word === 'WITHMATCHLEN') wantsMatchLength = true;
    else if (word === 'MINMATCHLEN' && i + 1 < args.length) matchLengthMin = Math.max(0, numberOf(args[++i]));
    else throw syntaxError();
  }
  if (wantsLength && wantsIndexes) throw new CommandError('ERR If you want both the length and indexes, please just use IDX.');
  const a = bytesUnder(session, args[1]);
  const b = bytesUnder(session, args[2]);
  const width = b.length + 1;
  if ((a.length + 1) * width > CELLS_MAX)
    throw new CommandError('ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len');
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const at = i * width + j;
      table[at] = a[i - 1] === b[j - 1] ? table[at - width - 1] + 1 : Math.max(table[at - width], table[at - 1]);
    }
  }
  const length = table[a.length * width + b.length];
  const { reply } = session;
  if (wantsLength) {
    reply.integer(length);
    return;
  }
  const { common, matches } = trace(table, a, b, length, matchLengthMin);
  if (!wantsIndexes) {
    reply.bulk(common);
    return;
  }
  reply.map(2);
  reply.text('matches');
  reply.array(matches.length);
  for (const match of matches) {
    reply.array(wantsMatchLength ? 3 : 2);
    for (const [first, last] of [match.a, match.b]) {
      reply.array(2);
      reply.integer(first);
      reply.integer(last);
    }
    if (wantsMatchLength) reply.integer(match.a[1] - match.a[0] + 1);
  }
  reply.text('len');
  reply.integer(length);
}

/** Walks back through the table: the common bytes, and the runs of them from the last to the first. */
function trace(table: Uint32Array, a: Buffer, b: Buffer, length: number, matchLengthMin: number): { common: Buffer; matches: Match[] } {
  const common = Buffer.alloc(length);
  const matches: Match[] = [];
  const width = b.length + 1;
  let run: Match | undefined;
  const finish = (): void => {
    if (run !== undefined && run.a[1] - run.a[0] + 1 >= matchLengthMin) matches.push(run);
    run = undefined;
  };
  let left = length;
  for (let i = a.length, j = b.length; i > 0 && j > 0;) {
    if (a[i - 1] === b[j - 1]) {
      common[--left] = a[i - 1];
      if (run !== undefined && run.a[0] === i && run.b[0] === j) {
        run.a[0]--;
        run.b[0]--;
      } else {
        finish();
        run = { a: [i - 1, i - 1], b: [j - 1, j - 1] };
      }
      i--;
      j--;
    } else if (table[(i - 1) * width + j] > table[i * width + j - 1]) {
      i--;
    } else {
      j--;
    }
  }
  finish();
  return { common, matches };
}

export const lcsCommands: readonly Command[] = [
  {
    name: 'lcs',
    arity: -3,
    flags: ['readonly'],
    keys: [1, 2, 1],
    group: 'string',
    summary: 'The longest common subsequence of two values.',
    run: lcs,
  },
];
