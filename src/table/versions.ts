/**
 * Old versions: what entries were before, as long as an open snapshot needs it.
 *
 * A version is the block that the entry had, whole; the entry's newer block leads to it by ENTRY_OLDER, and so on, LSNs falling. It is needed by a
 * snapshot at or past its own LSN and below the LSN that replaced it. For each there is a note in a queue of the shard:
 *
 *     word 0   unit of the next note, or 0
 *     word 1   unit of the version's block
 *     word 2   LSN of the record that replaced it, low word
 *     word 3   the same, high word
 *     word 4   hash of the key
 *
 * Notes are queued as versions are made, so the LSNs in word 2 never fall from first to last, and the first note is always that
 * of the oldest version of its key: the end of its chain. It can go when no open snapshot is below its LSN.
 *
 * Everything here runs under the shard's lock.
 */

import { lsnFrom } from '../base/lsn.js';
import { REGION_NOTES_COUNT, REGION_NOTES_FIRST, REGION_NOTES_LAST, REGION_VERSION_UNITS, type Region } from '../memory/region.js';
import { allocate, blockBytes, classAt, classOf, free } from '../memory/slabs.js';

const NOTE_BYTES = 24;
const NOTE_CLASS = classOf(NOTE_BYTES);
const NOTE_NEXT = 0;
const NOTE_UNIT = 1;
const NOTE_UNTIL_LOW = 2;
const NOTE_UNTIL_HIGH = 3;
const NOTE_HASH = 4;

/** A note as plain numbers. */
export interface VersionNote {
  unit: number;
  untilLow: number;
  untilHigh: number;
  hash: number;
}

/** Takes memory for a note. @returns its unit, or 0 when there is no memory */
export function takeNote(region: Region): number {
  return allocate(region, NOTE_BYTES, NOTE_CLASS);
}

export function giveNote(region: Region, note: number): void {
  free(region, note, classAt(region, note));
}

function versionUnits(region: Region, unit: number): number {
  return blockBytes(region, unit, classAt(region, unit)) >>> 3;
}

/** Puts a note behind the others. */
export function pushNote(region: Region, note: number, unit: number, untilLow: number, untilHigh: number, hash: number): void {
  const { words } = region;
  const at = note * 2;
  words[at + NOTE_NEXT] = 0;
  words[at + NOTE_UNIT] = unit;
  words[at + NOTE_UNTIL_LOW] = untilLow;
  words[at + NOTE_UNTIL_HIGH] = untilHigh;
  words[at + NOTE_HASH] = hash;
  const last = words[REGION_NOTES_LAST];
  if (words[REGION_NOTES_FIRST] === 0) words[REGION_NOTES_FIRST] = note;
  else words[last * 2 + NOTE_NEXT] = note;
  words[REGION_NOTES_LAST] = note;
  words[REGION_NOTES_COUNT]++;
  words[REGION_VERSION_UNITS] += versionUnits(region, unit);
}

/** The first note, if no snapshot at or past `oldestLsn` can need its version. */
export function firstUnneeded(region: Region, oldestLsn: number): VersionNote | undefined {
  const { words } = region;
  const at = words[REGION_NOTES_FIRST] * 2;
  if (at === 0) return undefined;
  if (lsnFrom(words[at + NOTE_UNTIL_LOW], words[at + NOTE_UNTIL_HIGH]) > oldestLsn) return undefined;
  return {
    unit: words[at + NOTE_UNIT],
    untilLow: words[at + NOTE_UNTIL_LOW],
    untilHigh: words[at + NOTE_UNTIL_HIGH],
    hash: words[at + NOTE_HASH],
  };
}

/** Takes the first note away, whose version has been freed or is about to be. */
export function dropFirstNote(region: Region): void {
  const { words } = region;
  const note = words[REGION_NOTES_FIRST];
  words[REGION_VERSION_UNITS] -= versionUnits(region, words[note * 2 + NOTE_UNIT]);
  words[REGION_NOTES_COUNT]--;
  words[REGION_NOTES_FIRST] = words[note * 2 + NOTE_NEXT];
  if (words[REGION_NOTES_FIRST] === 0) words[REGION_NOTES_LAST] = 0;
  giveNote(region, note);
}

/** Makes the queue anew, after its blocks have been given back to a rebuilt allocator. @returns false when there is no memory */
export function rebuildNotes(region: Region, notes: readonly VersionNote[]): boolean {
  const { words } = region;
  words.fill(0, REGION_NOTES_FIRST, REGION_VERSION_UNITS + 1);
  const inOrder = [...notes].sort((a, b) => lsnFrom(a.untilLow, a.untilHigh) - lsnFrom(b.untilLow, b.untilHigh));
  for (const { unit, untilLow, untilHigh, hash } of inOrder) {
    const note = takeNote(region);
    if (note === 0) return false;
    pushNote(region, note, unit, untilLow, untilHigh, hash);
  }
  return true;
}
