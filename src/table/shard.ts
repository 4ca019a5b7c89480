/**
 * A shard as its writers see it: reading, and what changes its table and its entries.
 *
 * Methods whose name ends in `Locked` require the shard's write lock. An operation is prepared (`prepareLocked`), which takes all memory that it
 * needs, logged by the caller, and applied (`applyLocked`), which cannot fail.
 */

import { assert } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import {
  ENTRY_FLAGS_SHIFT,
  KEY_LENGTH_MASK,
  OPERATION_HEADER_WORDS,
  OPERATION_PUT,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
  wordsOf,
} from '../base/record.js';
import { reserveTop } from '../memory/chunks.js';
import { copyIn } from '../memory/copy.js';
import { fence, storeRelease } from '../memory/fence.js';
import * as L from '../memory/layout.js';
import { REGION_NOTES_COUNT, REGION_NOTES_FIRST, REGION_VALUE_BYTES, REGION_VERSION_UNITS, type Region } from '../memory/region.js';
import { CLASS_LARGE, allocate, blockBytes, classAt, classOf, free } from '../memory/slabs.js';
import * as E from './entry.js';
import { EXPIRES_BIT, WORD_COPY_MAX } from './entry-reader.js';
import { countBytes, countEntry, recountOverwritten } from './entry-counts.js';
import { ABSENT } from './hash-table.js';
import { KeyProbe } from './key-probe.js';
import type { OrderedIndex } from './ordered-index.js';
import { ShardReader, type ShardContext } from './shard-reader.js';
import { giveNote, pushNote, takeNote } from './versions.js';

/** Of an entry's first word: the size class of its block, where an operation has its type. */
const CLASS_BITS = -1 << E.ENTRY_CLASS_SHIFT;

export class Shard extends ShardReader {
  /** The key in the scratch. */
  readonly #probe: KeyProbe;
  /** What `prepareLocked` has taken for the operation in the scratch: its block, and a note for the version that it supersedes. */
  block = 0;
  note = 0;
  /** Whether that operation changes the ordered index. */
  touchesIndex = false;
  /** Whether it is a put whose key waits to be put into the index: then the index is not touched. */
  #waitsForIndex = false;
  #changeOpen = false;

  constructor(region: Region, index: number, context: ShardContext) {
    super(region, index, context);
    this.#probe = KeyProbe.ofScratch(context.scratch);
  }

  // Writing -----------------------------------------------------------------------------------

  /**
   * Keeps the version odd from here to `closeChangeLocked`, over any number of puts and deletes. A batch opens
   * all its shards before it changes the first and closes them after the last, so nobody sees a part of it.
   */
  openChangeLocked(): void {
    this.beginChangeLocked();
    this.#changeOpen = true;
  }

  /** The same where a thread that has died may have been in the middle of a change. */
  reopenChangeLocked(): void {
    if ((this.control[this.versionWord] & 1) === 0) this.openChangeLocked();
    else this.#changeOpen = true;
  }

  closeChangeLocked(): void {
    this.#changeOpen = false;
    this.endChangeLocked();
  }

  /** Readers that come from now on wait or retry. Within an open change it does nothing, as does its end. */
  beginChangeLocked(): void {
    if (this.#changeOpen) return;
    const control = this.control;
    storeRelease(control, this.versionWord, (control[this.versionWord] + 1) | 0);
    fence(control);
  }

  endChangeLocked(): void {
    if (this.#changeOpen) return;
    const control = this.control;
    const version = (control[this.versionWord] + 1) | 0;
    if (version === 0) storeRelease(control, this.roundsWord, (control[this.roundsWord] + 1) | 0);
    storeRelease(control, this.versionWord, version);
  }

  /** Bytes of the entry that the operation in the scratch makes. */
  entryBytes(): number {
    return E.ENTRY_HEADER_BYTES + wordsOf(this.scratch.keyLength) * 4 + wordsOf(this.scratch.valueLength) * 4;
  }

  /** Whether the value in the scratch can overwrite that of `entry` where it is. */
  fitsLocked(entry: number): boolean {
    return this.takesInPlaceLocked(entry, this.entryBytes());
  }

  /** Whether an entry of `bytes` with the same key can overwrite `entry` where it is, unless a snapshot needs that. */
  takesInPlaceLocked(entry: number, bytes: number): boolean {
    if (bytes > E.IN_PLACE_BYTES_MAX) return false;
    const sizeClass = this.region.words[entry] >>> E.ENTRY_CLASS_SHIFT;
    return sizeClass !== CLASS_LARGE && bytes <= blockBytes(this.region, entry >>> 1, sizeClass);
  }

  /** Takes a block for the operation in the scratch. @returns its unit, or 0 when there is no memory */
  takeBlockLocked(): number {
    const bytes = this.entryBytes();
    return allocate(this.region, bytes, classOf(bytes));
  }

  giveBlockLocked(unit: number): void {
    free(this.region, unit, classAt(this.region, unit));
  }

  /**
   * Makes room for one insertion of the key in the scratch. Where there is no memory to split a full
   * segment, its spare slots serve.
   * @returns false when there is no memory and no slot
   */
  makeRoomLocked(): boolean {
    const hash = this.scratch.keyHash;
    if (this.table.hasRoom(hash)) return true;
    this.beginChangeLocked();
    const made = this.table.makeRoom(hash);
    this.endChangeLocked();
    return made || this.table.slotsFree(hash) > 0;
  }

  /** Slots free for the key in the scratch without any growth. */
  slotsFreeLocked(): number {
    return this.table.slotsFree(this.scratch.keyHash);
  }

  /** Makes sure that `count` insertions cannot fail for want of memory for the table. */
  reserveInsertionsLocked(count: number): boolean {
    return reserveTop(this.region, this.table.growthBytes(count));
  }

  /**
   * Fills a block with header, key and value from the scratch. Its LSN follows in `applyLocked`.
   * @param sizeClass that of the block: the region's `takenClass`, where it was taken last
   */
  fillBlock(unit: number, sizeClass: number): void {
    const entry = unit * 2;
    this.#writeMeta(entry, sizeClass);
    this.region.words[entry + E.ENTRY_OLDER] = 0;
    this.#writePayload(entry + E.ENTRY_HEADER_WORDS);
  }

  #writeMeta(entry: number, sizeClass: number): void {
    const scratch = this.scratch;
    const words = this.region.words;
    words[entry] =
      scratch.keyLength |
      (scratch.valueType << VALUE_TYPE_SHIFT) |
      (scratch.keyFlags << ENTRY_FLAGS_SHIFT) |
      (sizeClass << E.ENTRY_CLASS_SHIFT);
    words[entry + E.ENTRY_VALUE_LENGTH] = scratch.valueLength;
  }

  /** Copies key and value from the scratch to word `to`. */
  #writePayload(to: number): void {
    const scratch = this.scratch;
    const words = this.region.words;
    const external = scratch.valueBytes;
    const keyWords = wordsOf(scratch.keyLength);
    const count = external === null ? keyWords + wordsOf(scratch.valueLength) : keyWords;
    if (count <= WORD_COPY_MAX) {
      const operation = scratch.words;
      for (let i = 0; i < count; i++) words[to + i] = operation[OPERATION_HEADER_WORDS + i];
    } else {
      copyIn(scratch.bytes, OPERATION_HEADER_WORDS * 4, this.region.bytes, to * 4, count * 4);
    }
    if (external !== null) {
      const start = (to + keyWords) * 4;
      copyIn(external, 0, this.region.bytes, start, external.length);
      const end = start + external.length;
      // Offsets in a region can pass 2^31: no bit operation on them.
      const padding = -external.length & 3;
      if (padding !== 0) this.region.bytes.fill(0, end, end + padding);
    }
  }

  // Planning and applying ---------------------------------------------------------------------

  /** Whether an open snapshot sees what `locate` found as it is now. */
  #isNeeded(entry: number): boolean {
    const control = this.control;
    if (control[L.CONTROL_SNAPSHOT_COUNT] === 0) return false;
    const newest = lsnFrom(Atomics.load(control, L.CONTROL_SNAPSHOT_NEWEST + L.LSN_LOW), Atomics.load(control, L.CONTROL_SNAPSHOT_NEWEST));
    return this.lsnLocked(entry) <= newest;
  }

  /**
   * Takes what the operation in the scratch needs before it is logged: afterwards nothing can fail. What is taken is in `block` and `note`;
   * `touchesIndex` says whether the index's lock has to be taken.
   * @param type OPERATION_*
   * @param entry what `locate` found just now; it may have to be located again
   * @returns false when there is no memory; nothing is taken then
   */
  prepareLocked(type: number, entry: number): boolean {
    this.block = 0;
    this.note = 0;
    this.touchesIndex = false;
    this.#waitsForIndex = false;
    const isNeeded = entry !== ABSENT && this.#isNeeded(entry);
    if (type === OPERATION_PUT && entry !== ABSENT && !isNeeded && this.fitsLocked(entry)) return true;
    return this.#prepareChange(type, entry, isNeeded);
  }

  /** The same for what does not overwrite its entry where it is. */
  #prepareChange(type: number, entry: number, isNeeded: boolean): boolean {
    if (type === OPERATION_PUT) {
      if (entry === ABSENT && !this.makeRoomLocked()) return false;
      this.block = this.takeBlockLocked();
      if (this.block === 0) return false;
      this.fillBlock(this.block, this.region.takenClass);
      if (this.ordered !== undefined) {
        this.#waitsForIndex = entry === ABSENT && this.ordered.pending.mayWait(this.index, this.scratch);
        this.touchesIndex = !this.#waitsForIndex;
      }
    } else {
      if (entry === ABSENT || E.isTombstone(this.region.words, entry)) return true;
      this.touchesIndex = this.ordered !== undefined && (isNeeded || this.region.words[entry + E.ENTRY_OLDER] === 0);
      if (isNeeded) {
        this.block = this.takeTombstoneLocked();
        if (this.block === 0) return false;
      }
    }
    if (!isNeeded) return true;
    this.note = takeNote(this.region);
    if (this.note !== 0) return true;
    this.giveBackLocked();
    return false;
  }

  /** Makes sure that the index can take what `prepareLocked` prepared, whose lock is held. @param entry what `locate` found @returns false when there is no memory */
  reserveIndexLocked(entry: number): boolean {
    const ordered = this.ordered as OrderedIndex;
    if (entry !== ABSENT) return ordered.reserveLocked(0, this.scratch.keyLength);
    this.#probe.length = this.scratch.keyLength;
    return ordered.reserveOneLocked(this.#probe);
  }

  /** Whether the put in the scratch overwrites what `locate` found where it is. */
  overwritesLocked(entry: number): boolean {
    return !this.#isNeeded(entry) && this.fitsLocked(entry);
  }

  /** A note for the version that the put in the scratch, whose block is there already, may supersede. @returns false when there is no memory */
  prepareNoteLocked(entry: number): boolean {
    this.note = 0;
    this.touchesIndex = this.ordered !== undefined;
    if (entry === ABSENT || !this.#isNeeded(entry)) return true;
    this.note = takeNote(this.region);
    return this.note !== 0;
  }

  /** Takes a block for the tombstone of the key in the scratch, and fills it. @returns its unit, or 0 */
  takeTombstoneLocked(): number {
    const { scratch } = this;
    const bytes = E.ENTRY_HEADER_BYTES + wordsOf(scratch.keyLength) * 4;
    const unit = allocate(this.region, bytes, classOf(bytes));
    if (unit === 0) return 0;
    this.fillBlock(unit, this.region.takenClass);
    this.region.words[unit * 2] |= E.TYPE_TOMBSTONE << VALUE_TYPE_SHIFT;
    return unit;
  }

  takeNoteLocked(): number {
    return takeNote(this.region);
  }

  /** Gives back what was prepared and not applied. */
  giveBackLocked(): void {
    if (this.block !== 0) free(this.region, this.block, classAt(this.region, this.block));
    if (this.note !== 0) giveNote(this.region, this.note);
    this.block = 0;
    this.note = 0;
    this.#waitsForIndex = false;
  }

  giveNoteLocked(note: number): void {
    giveNote(this.region, note);
  }

  /**
   * Applies the operation in the scratch, as it was prepared. The index's lock is held if `touchesIndex` says so.
   * @param entry what `locate` found just now
   */
  applyLocked(type: number, entry: number, lsnLow: number, lsnHigh: number): void {
    const { block, note } = this;
    this.block = 0;
    this.note = 0;
    if (type === OPERATION_PUT && block === 0) this.#overwriteWithScratch(entry, lsnLow, lsnHigh);
    else if (type === OPERATION_PUT) this.#putBlock(entry, block, note, lsnLow, lsnHigh);
    else if (entry !== ABSENT) this.deleteLocked(entry, block, note, lsnLow, lsnHigh);
  }

  /** Overwrites an entry where it is with the put in the scratch. */
  #overwriteWithScratch(entry: number, lsnLow: number, lsnHigh: number): void {
    const { scratch } = this;
    assert(scratch.valueBytes === null, 'a value that fits where another is lies in the scratch');
    scratch.words[0] = scratch.keyLength | (scratch.valueType << VALUE_TYPE_SHIFT) | (scratch.keyFlags << ENTRY_FLAGS_SHIFT);
    scratch.words[1] = scratch.valueLength;
    this.overwriteLocked(entry, scratch.keyHash, scratch.words, scratch.bytes, 0, lsnLow, lsnHigh);
  }

  /**
   * Applies the put in the scratch, which has a block of its own.
   * @param entry what `locate` found just now
   * @param note memory for a note when a snapshot may need what is there, or 0
   */
  #putBlock(entry: number, block: number, note: number, lsnLow: number, lsnHigh: number): void {
    const region = this.region;
    const words = region.words;
    const scratch = this.scratch;
    if (this.marks !== undefined) this.marks.touch(scratch.keyHash);
    words[block * 2 + E.ENTRY_LSN_LOW] = lsnLow;
    words[block * 2 + E.ENTRY_LSN_HIGH] = lsnHigh;
    if (entry === ABSENT) {
      this.beginChangeLocked();
      this.table.insert(scratch.keyHash, block);
      this.endChangeLocked();
      this.control[this.entriesWord]++;
      countEntry(words, block * 2, 1);
      if (this.#waitsForIndex) (this.ordered as OrderedIndex).pending.add(this.index, block);
      else this.#indexScratch(block);
      this.#waitsForIndex = false;
      if (note !== 0) giveNote(region, note);
      return;
    }
    if (!E.isTombstone(words, entry)) countEntry(words, entry, -1);
    else this.control[this.entriesWord]++;
    countEntry(words, block * 2, 1);
    this.#supersede(entry, block, note, lsnLow, lsnHigh);
  }

  /**
   * Overwrites an entry in place.
   * @param entry for which `takesInPlaceLocked` holds
   * @param operations where the put is, at word `at`: a batch, or the scratch; and the same as bytes
   */
  overwriteLocked(entry: number, hash: number, operations: Int32Array, bytes: Buffer, at: number, lsnLow: number, lsnHigh: number): void {
    const { region } = this;
    const { words } = region;
    if (this.marks !== undefined) this.marks.touch(hash);
    const before = words[entry];
    const keyWords = wordsOf(before & KEY_LENGTH_MASK);
    const valueLength = operations[at + 1];
    countBytes(words, REGION_VALUE_BYTES, valueLength - words[entry + E.ENTRY_VALUE_LENGTH]);
    this.beginChangeLocked();
    words[entry] = (operations[at] & ~CLASS_BITS) | (before & CLASS_BITS);
    words[entry + E.ENTRY_VALUE_LENGTH] = valueLength;
    words[entry + E.ENTRY_LSN_LOW] = lsnLow;
    words[entry + E.ENTRY_LSN_HIGH] = lsnHigh;
    const from = at + OPERATION_HEADER_WORDS + keyWords;
    const to = entry + E.ENTRY_HEADER_WORDS + keyWords;
    const count = wordsOf(valueLength);
    if (count <= WORD_COPY_MAX) for (let i = 0; i < count; i++) words[to + i] = operations[from + i];
    else copyIn(bytes, from * 4, region.bytes, to * 4, count * 4);
    this.endChangeLocked();
    this.#countOverwritten(entry, before);
  }

  /** Counts what else has changed with an entry that was overwritten. @param before its first word until then */
  #countOverwritten(entry: number, before: number): void {
    if (recountOverwritten(this.region.words, entry, before)) this.control[this.entriesWord]++;
  }

  /** Leads table and index from an entry to its new block; the old one becomes a version, if it was given a note and is needed, or goes. */
  #supersede(entry: number, block: number, note: number, lsnLow: number, lsnHigh: number): void {
    const region = this.region;
    const words = region.words;
    const isKept = note !== 0 && this.#isNeeded(entry);
    words[block * 2 + E.ENTRY_OLDER] = isKept ? entry >>> 1 : words[entry + E.ENTRY_OLDER];
    this.beginChangeLocked();
    this.table.replaceLocated(block);
    this.endChangeLocked();
    this.#indexScratch(block);
    if (isKept) {
      pushNote(region, note, entry >>> 1, lsnLow, lsnHigh, this.scratch.keyHash);
      return;
    }
    if (note !== 0) giveNote(region, note);
    free(region, entry >>> 1, words[entry] >>> E.ENTRY_CLASS_SHIFT);
  }

  /** Removes the entry that `locate` found just now; where a snapshot needs it, a tombstone stays. */
  deleteLocked(entry: number, block: number, note: number, lsnLow: number, lsnHigh: number): void {
    const region = this.region;
    const words = region.words;
    if (E.isTombstone(words, entry)) {
      this.#giveUnused(block, note);
      return;
    }
    countEntry(words, entry, -1);
    this.control[this.entriesWord]--;
    if (block !== 0 && note !== 0 && this.#isNeeded(entry)) {
      words[block * 2 + E.ENTRY_LSN_LOW] = lsnLow;
      words[block * 2 + E.ENTRY_LSN_HIGH] = lsnHigh;
      this.#supersede(entry, block, note, lsnLow, lsnHigh);
      return;
    }
    this.#giveUnused(block, note);
    if (words[entry + E.ENTRY_OLDER] !== 0) {
      this.beginChangeLocked();
      words[entry] = (words[entry] & ~EXPIRES_BIT & ~(VALUE_TYPE_MASK << VALUE_TYPE_SHIFT)) | (E.TYPE_TOMBSTONE << VALUE_TYPE_SHIFT);
      words[entry + E.ENTRY_VALUE_LENGTH] = 0;
      words[entry + E.ENTRY_LSN_LOW] = lsnLow;
      words[entry + E.ENTRY_LSN_HIGH] = lsnHigh;
      this.endChangeLocked();
      return;
    }
    this.beginChangeLocked();
    this.table.removeLocated();
    this.endChangeLocked();
    if (this.ordered !== undefined) {
      this.#probe.length = this.scratch.keyLength;
      this.ordered.removeLocked(this.#probe);
    }
    free(region, entry >>> 1, words[entry] >>> E.ENTRY_CLASS_SHIFT);
  }

  #giveUnused(block: number, note: number): void {
    if (block !== 0) free(this.region, block, classAt(this.region, block));
    if (note !== 0) giveNote(this.region, note);
  }

  #indexScratch(block: number): void {
    if (this.ordered === undefined) return;
    this.#probe.length = this.scratch.keyLength;
    this.ordered.setLocked(this.#probe, this.index, block);
  }

  // Old versions ------------------------------------------------------------------------------

  /** Bytes of blocks that are kept for snapshots, and their number. Read without the lock: a moment old. */
  get versionBytes(): number {
    return (this.region.words[REGION_VERSION_UNITS] >>> 0) * 8;
  }

  get versionCount(): number {
    return this.region.words[REGION_NOTES_COUNT];
  }

  /** Whether `reclaimLocked` would find anything. Without the lock: a hint. */
  hasVersions(): boolean {
    return this.region.words[REGION_NOTES_FIRST] !== 0;
  }
}
