/**
 * A shard's hash table (see hash-table.ts), put right after a thread has died inside a change. Under the shard's lock and an odd version.
 *
 * Every change keeps each entry in reach at every instruction: a split fills both halves before the directory leads to
 * them and frees the old segment after; removal copies a slot before it clears it; a directory is whole before it is the
 * root. So what is reachable is right but for: a directory that leads to a split segment and to its halves
 * (the split is taken back), a slot copied twice, a slot whose two words are not of one entry (the hash is made anew
 * from the key), a count.
 */

import { REGION_DEPTH, REGION_DIRECTORY, REGION_SEGMENTS, type Region } from '../memory/region.js';
import { COUNT_SHIFT, DEPTH_MASK, SEGMENT_HEADER_WORDS, SEGMENT_OVERFLOW, SEGMENT_SLOTS, SEGMENT_WORDS, putSlot } from './hash-table.js';

/** What a repair is told, and where it puts what it finds. */
export interface TableFindings {
  /** Hash of the key of the entry at a unit. */
  hashOf: (unit: number) => number;
  /** Receives the unit of every block of the table and every entry, each once. */
  blocks: number[];
  /** Receives the same. */
  live: { add(unit: number): boolean };
  /** Called for every entry. */
  visit: (unit: number) => void;
}

/** Puts the table in a region right. Cost: a look at every slot; where one of a segment's is wrong, the hashes of all its keys. */
export function repairHashTable(region: Region, findings: TableFindings): void {
  const { blocks, live } = findings;
  const { words } = region;
  const directory = words[REGION_DIRECTORY];
  const depth = words[directory * 2 - 2];
  words[REGION_DEPTH] = depth;
  blocks.push(directory - 1);
  live.add(directory - 1);
  takeSplitsBack(words, directory * 2, depth);
  let segments = 0;
  for (let i = 0; i < 1 << depth; i++) {
    let segment = words[directory * 2 + i];
    if (!live.add(segment)) continue;
    const chain: number[] = [];
    for (; segment !== 0; segment = words[segment * 2 + SEGMENT_OVERFLOW]) {
      live.add(segment);
      chain.push(segment);
      blocks.push(segment);
    }
    segments += chain.length;
    repairChain(words, chain, findings);
  }
  words[REGION_SEGMENTS] = segments;
}

/** Leads the directory back to segments whose halves it leads to in part: shallower segments win. */
function takeSplitsBack(words: Int32Array, directory: number, depth: number): void {
  const found = new Map<number, number>();
  for (let i = 0; i < 1 << depth; i++) found.set(words[directory + i], i);
  const byDepth = [...found].map(([segment, index]) => ({ segment, index, local: words[segment * 2] & DEPTH_MASK }));
  byDepth.sort((a, b) => b.local - a.local);
  for (const { segment, index, local } of byDepth) {
    const span = 1 << Math.max(0, depth - local);
    const first = index & ~(span - 1);
    words.fill(segment, directory + first, directory + first + span);
  }
}

/** @param chain units of a segment and of those that overflow from it */
function repairChain(words: Int32Array, chain: readonly number[], { hashOf, blocks, live, visit }: TableFindings): void {
  const hashes: number[] = [];
  const units: number[] = [];
  const seen = new Set<number>();
  // What a removal leaves half done shows: a unit twice, a hash twice or 0, or a count that is wrong. Two keys of one hash look
  // like it and cost the same.
  let isRight = true;
  let counted = 0;
  for (const segment of chain) {
    counted += words[segment * 2] >>> COUNT_SHIFT;
    for (let i = 0; i < SEGMENT_SLOTS; i++) {
      const slot = segment * 2 + SEGMENT_HEADER_WORDS + i * 2;
      const unit = words[slot + 1];
      if (unit === 0) continue;
      const hash = words[slot];
      if (hash === 0 || seen.has(hash)) isRight = false;
      seen.add(hash);
      if (!live.add(unit)) {
        isRight = false;
        continue;
      }
      blocks.push(unit);
      hashes.push(hash);
      units.push(unit);
      visit(unit);
    }
  }
  if (isRight && counted === units.length) return;
  for (let i = 0; i < units.length; i++) hashes[i] = hashOf(units[i]);
  for (const segment of chain) {
    words[segment * 2] &= DEPTH_MASK;
    words.fill(0, segment * 2 + SEGMENT_HEADER_WORDS, segment * 2 + SEGMENT_WORDS);
  }
  let at = 0;
  for (let i = 0; i < units.length; i++) {
    while (words[chain[at] * 2] >>> COUNT_SHIFT >= SEGMENT_SLOTS - 1) at++;
    putSlot(words, chain[at] * 2, hashes[i], units[i]);
  }
}
