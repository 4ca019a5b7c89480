/** A shard whose lock's holder has died, made whole: its table, what it counts, its allocator, the queue of its old versions. */

import { FlashVectorError } from '../base/errors.js';
import { OPERATION_HEADER_WORDS, wordsOf } from '../base/record.js';
import { UnitSet, rebuildAllocator } from '../memory/rebuild.js';
import { REGION_EXPIRING, REGION_KEY_BYTES, REGION_VALUE_BYTES, type Region } from '../memory/region.js';
import * as E from './entry.js';
import { countEntry } from './entry-counts.js';
import { repairHashTable } from './hash-repair.js';
import { hashWords } from './key-codec.js';
import type { Shard } from './shard.js';
import { rebuildNotes, type VersionNote } from './versions.js';

/** What is in use in a shard that is being repaired. */
export interface ShardBlocks {
  /** Every block in use, each once; `live` holds the same. */
  blocks: number[];
  live: UnitSet;
  entries: number[];
  notes: VersionNote[];
}

/**
 * Makes the table of a shard whole whose lock's holder has died, and leaves it open for a change (see `openChangeLocked`). The lock stays
 * the dead thread's until the caller releases it. `repairMemoryLocked` has to follow. Cost: some 300 ns an entry.
 * @returns what is in use
 */
export function repairTableLocked(shard: Shard): ShardBlocks {
  const { region, scratch } = shard;
  region.refresh();
  const { words } = region;
  shard.reopenChangeLocked();
  const found: ShardBlocks = { blocks: [], live: new UnitSet(region), entries: [], notes: [] };
  words.fill(0, REGION_KEY_BYTES, REGION_VALUE_BYTES + 2);
  words[REGION_EXPIRING] = 0;
  let count = 0;
  const hashOf = (unit: number): number => {
    const entry = unit * 2;
    const keyLength = words[entry] & 0xffff;
    const from = (entry + E.ENTRY_HEADER_WORDS) * 4;
    region.bytes.copy(scratch.bytes, OPERATION_HEADER_WORDS * 4, from, from + wordsOf(keyLength) * 4);
    return hashWords(scratch, keyLength);
  };
  const visit = (unit: number): void => {
    found.entries.push(unit);
    if (E.isTombstone(words, unit * 2)) return;
    count++;
    countEntry(words, unit * 2, 1);
  };
  repairHashTable(region, { hashOf, blocks: found.blocks, live: found.live, visit });
  Atomics.store(region.control, shard.entriesWord, count);
  for (const entry of found.entries) {
    let newer = entry;
    for (let unit = words[newer * 2 + E.ENTRY_OLDER]; unit !== 0; unit = words[unit * 2 + E.ENTRY_OLDER]) {
      if (found.live.add(unit)) found.blocks.push(unit);
      const untilLow = words[newer * 2 + E.ENTRY_LSN_LOW];
      const untilHigh = words[newer * 2 + E.ENTRY_LSN_HIGH];
      found.notes.push({ unit, untilLow, untilHigh, hash: hashOf(unit) });
      newer = unit;
    }
  }
  return found;
}

/**
 * Makes the allocator of a shard anew, and the queue of its versions.
 * @param held blocks that live threads hold and nothing leads to yet
 * @throws FlashVectorError FV_MEMORY_FULL
 */
export function repairMemoryLocked(region: Region, { blocks, live, notes }: ShardBlocks, held: readonly number[]): void {
  for (const unit of held) if (live.add(unit)) blocks.push(unit);
  rebuildAllocator(region, blocks, live);
  if (!rebuildNotes(region, notes))
    throw new FlashVectorError('FV_MEMORY_FULL', 'there is no memory for the versions that open snapshots need');
}
