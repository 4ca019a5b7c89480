/**
 * Freeing what old versions and tombstones leave of a shard, once no open snapshot needs them; versions.ts is the queue in which they wait.
 *
 * Everything here runs under the shard's lock.
 */

import { FlashVectorError, assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import { KEY_LENGTH_MASK, OPERATION_HEADER_WORDS, wordsOf } from '../base/record.js';
import * as L from '../memory/layout.js';
import { free } from '../memory/slabs.js';
import * as E from './entry.js';
import { ABSENT } from './hash-table.js';
import { hashWords } from './key-codec.js';
import { KeyProbe } from './key-probe.js';
import type { Shard } from './shard.js';
import { dropFirstNote, firstUnneeded } from './versions.js';

/** The key of the entry that is removed. */
const probe = KeyProbe.own();

/**
 * Frees versions that no open snapshot needs any more, oldest first, and tombstones that have none left.
 * @returns how many were freed; fewer than `max` when no more can go now
 */
export function reclaimLocked(shard: Shard, max: number): number {
  const { region, table } = shard;
  const { control } = region;
  const oldest =
    control[L.CONTROL_SNAPSHOT_COUNT] === 0
      ? L.SNAPSHOT_NONE
      : lsnFrom(Atomics.load(control, L.CONTROL_SNAPSHOT_OLDEST + L.LSN_LOW), Atomics.load(control, L.CONTROL_SNAPSHOT_OLDEST));
  for (let freed = 0; freed < max; freed++) {
    const note = firstUnneeded(region, oldest);
    if (note === undefined) return freed;
    const { words } = region;
    const entry = table.locateVersion(note.hash, note.unit);
    assert(entry !== ABSENT, 'an old version is in the chain of its entry');
    const newer = table.newerWord;
    shard.beginChangeLocked();
    words[newer] = words[note.unit * 2 + E.ENTRY_OLDER];
    shard.endChangeLocked();
    const isOver = E.isTombstone(words, entry) && words[entry + E.ENTRY_OLDER] === 0;
    dropFirstNote(region);
    free(region, note.unit, words[note.unit * 2] >>> E.ENTRY_CLASS_SHIFT);
    if (isOver) removeTombstone(shard, entry);
  }
  return max;
}

/** Removes tombstones without versions: what a thread leaves that dies while it reclaims. @param entries units, of a shard that has been repaired */
export function removeBareTombstonesLocked(shard: Shard, entries: readonly number[]): void {
  const { region, scratch } = shard;
  for (const unit of entries) {
    const { words } = region;
    const entry = unit * 2;
    if (!E.isTombstone(words, entry) || words[entry + E.ENTRY_OLDER] !== 0) continue;
    scratch.keyLength = words[entry] & KEY_LENGTH_MASK;
    const from = (entry + E.ENTRY_HEADER_WORDS) * 4;
    region.bytes.copy(scratch.bytes, OPERATION_HEADER_WORDS * 4, from, from + wordsOf(scratch.keyLength) * 4);
    scratch.keyHash = hashWords(scratch, scratch.keyLength);
    if (shard.table.locate(scratch) === entry) removeTombstone(shard, entry);
  }
}

/** Removes a tombstone whose slot was found just now, from index and table. */
function removeTombstone(shard: Shard, entry: number): void {
  const { region, ordered } = shard;
  const { words } = region;
  if (ordered !== undefined) {
    try {
      ordered.lockFor(shard.index);
    } catch (error) {
      if (!(error instanceof FlashVectorError)) throw error;
      // The write on whose way this is has taken effect, so it must not fail: the tombstone stays, too.
      return;
    }
    try {
      // Without memory for a changed leaf the tombstone stays, and goes with the next write of its key.
      if (!ordered.reserveLocked(0, 0)) return;
      probe.setWords(words, entry + E.ENTRY_HEADER_WORDS, words[entry] & KEY_LENGTH_MASK);
      ordered.removeLocked(probe);
    } finally {
      ordered.unlock();
    }
  }
  shard.beginChangeLocked();
  shard.table.removeLocated();
  shard.endChangeLocked();
  free(region, entry >>> 1, words[entry] >>> E.ENTRY_CLASS_SHIFT);
}
