/**
 * Eviction: making room at the memory cap by removing entries, through the log, as a delete does.
 *
 * What goes is found by sampling: of some entries of the shard that has no room, the one that was used longest ago (`lru`), or that expires
 * first (`ttl`; entries that do not expire are never evicted). Close to what exact bookkeeping would choose, for a sample of a dozen, and it costs readers
 * one store.
 *
 * A block that an entry leaves serves entries of its size class and of smaller ones; a slab becomes memory for all classes only when the last of its entries has
 * gone. So a few entries go first whose blocks fit the one that is wanted, and are not in use by comparison; then, in turn, such as fit whether in use or not, any, many, and all of a slab.
 *
 * Source: the approximated LRU of Redis, https://redis.io/docs/latest/develop/reference/eviction/.
 */

import { lsnFrom } from '../base/lsn.js';
import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import { CLASS_LARGE, blocksOf, classOf, slabOf } from '../memory/slabs.js';
import * as E from '../table/entry.js';
import { RawKey } from '../table/key-codec.js';
import { isMemoryFull } from '../table/memory-full.js';
import type { Shard } from '../table/shard.js';
import type { Core } from './core.js';
import { isDeferred, ofVersion, type Condition } from './write-result.js';

/** Entries looked at for each that goes. */
const SAMPLE = 12;
/** Entries looked at, at most, for such a sample of those whose blocks fit. */
const LOOKS_MAX = 192;
/** Entries evicted at once: so that not every write of a full store has to. */
const ROUND = 32;
/** The same at most, for a batch: some of its operations may have room. */
const ENTRIES_MAX = 512;
/** Of those whose blocks fit one for every so many of the shard, and one more. */
const FITTING_SHARE = 64;
/** What fits: blocks up to this many times as large as the one that is wanted. */
const FITTING_SIZE = 1.5;
/** Blocks that fit are rare where fewer than one in so many do. */
const RARE = 64;
/** Every so many of these go whatever the size of their block, so that what is no longer written gives way to what is. */
const OTHERS_EVERY = 4;
/** An entry whose block fits stays all the same if another was used so many times as long ago. */
const FRESH = 2;
/** Rank of what may not be evicted. */
const NEVER = -Infinity;
/** Rounds for one write: one that needs more than these bring together is refused, rather than everything evicted for it. */
const ROUNDS_MAX = 32;

/** Size classes of blocks, both included. */
interface Classes {
  least: number;
  most: number;
}

const ALL_CLASSES: Classes = { least: 0, most: CLASS_LARGE };

/**
 * What goes in a round: what fits, but for what is in use by comparison, once for a write; then in turn what fits; anything; all of a slab: where entries have become a little
 * larger than all that are there this alone makes room.
 */
const FITTING_OLD = 0;
const FITTING = 1;
const ANY = 2;
const SLAB = 3;
const LATER = [FITTING, ANY, SLAB];

interface Shortage {
  /** Of the largest entry. */
  bytes: number;
  entries: number;
}

interface Candidate {
  key: Buffer;
  flags: number;
  lsn: number;
}

export class Evictor {
  readonly #core: Core;
  readonly #isByExpiry: boolean;
  readonly #remove: (condition: Condition) => number;
  /** Shards that had no room at the last try, to be relieved before the next. */
  readonly #short = new Map<Shard, Shortage>();
  /** Whether in the last sample few entries had blocks that fit. */
  #isRare = false;
  #exhausted = false;
  #isHeldUp = false;
  /** Rounds since a write last found room. */
  #rounds = 0;

  /** @param remove deletes the key in the scratch, on a condition; see Writer.tryWrite */
  constructor(core: Core, remove: (condition: Condition) => number) {
    this.#core = core;
    this.#isByExpiry = core.words[L.CONTROL_EVICTION] === L.EVICTION_TTL;
    this.#remove = remove;
  }

  /** The last rounds brought no room, or found nothing that may go. Asked once: the next write that finds no room has rounds of its own. */
  get isExhausted(): boolean {
    const was = this.#exhausted || this.#rounds >= ROUNDS_MAX;
    this.#exhausted = false;
    if (was) this.#rounds = 0;
    return was;
  }

  get isNeeded(): boolean {
    return this.#short.size > 0;
  }

  /** A write found room, or had nothing to write. */
  ended(): void {
    this.#rounds = 0;
    this.#exhausted = false;
  }

  /** A write found no room in this shard. Called for each of its entries. @param bytes of the entry */
  note(shard: Shard, bytes: number): void {
    const shortage = this.#short.get(shard);
    if (shortage === undefined) {
      this.#short.set(shard, { bytes, entries: 1 });
      return;
    }
    shortage.bytes = Math.max(bytes, shortage.bytes);
    shortage.entries++;
  }

  /** Evicts from the shards that had no room. @returns how many entries went */
  relieve(): number {
    let evicted = 0;
    this.#isHeldUp = false;
    for (const [shard, shortage] of this.#short) evicted += this.#relieveShard(shard, shortage);
    this.#short.clear();
    this.#exhausted = evicted === 0 && !this.#isHeldUp;
    if (evicted > 0) this.#rounds++;
    this.#core.metrics.add(M.COUNTER_EVICTED, evicted);
    return evicted;
  }

  #relieveShard(shard: Shard, { bytes, entries }: Shortage): number {
    const choice = this.#rounds === 0 ? FITTING_OLD : LATER[(this.#rounds - 1) % LATER.length];
    let evicted = choice === SLAB ? this.#evictSlab(shard, bytes) : 0;
    if (evicted > 0) return evicted;
    const isFitting = choice === FITTING_OLD || choice === FITTING;
    const fitting = fittingClasses(bytes);
    const least = isFitting ? Math.min(ROUND, 1 + Math.floor(shard.entryCount / FITTING_SHARE)) : ROUND;
    const count = Math.min(ENTRIES_MAX, Math.max(entries, least));
    for (let i = 0; i < count && !this.#isHeldUp; i++) {
      const classes = isFitting && i % OTHERS_EVERY !== OTHERS_EVERY - 1 ? fitting : ALL_CLASSES;
      const candidate = this.#choose(shard, classes, choice === FITTING_OLD);
      if (i === 0 && choice === FITTING_OLD && this.#isRare) {
        evicted = this.#evictSlab(shard, bytes);
        if (evicted > 0) return evicted;
      }
      evicted += this.#evict(candidate);
    }
    return evicted;
  }

  /** Evicts all entries of a slab of another size, of those of a sample the one that has the fewest, as far as they may go. @returns how many went */
  #evictSlab(shard: Shard, bytes: number): number {
    const { region } = shard;
    const wanted = fittingClasses(bytes);
    let found = 0;
    let least = Infinity;
    for (let i = 0; i < SAMPLE; i++) {
      const unit = this.#someUnit(shard);
      const { chunk, used } = slabOf(region, unit);
      if (chunk === 0 || used >= least || isOf(wanted, region.words, unit * 2) || this.#rank(shard, unit, 0) === NEVER) continue;
      found = chunk;
      least = used;
    }
    if (found === 0) return 0;
    const { sizeClass, units } = blocksOf(region, found);
    let evicted = 0;
    for (const unit of units) {
      // A block that came back says another class, for its first word is a unit now; where it does not the removal finds no such entry.
      if (region.words[unit * 2] >>> E.ENTRY_CLASS_SHIFT !== sizeClass || this.#rank(shard, unit, 0) === NEVER) continue;
      evicted += this.#evict(candidateAt(shard, unit));
    }
    return evicted;
  }

  /** The unit of an entry chosen at random, or 0. */
  #someUnit(shard: Shard): number {
    const units: number[] = [];
    shard.region.refresh();
    const span = shard.table.collect(Math.floor(Math.random() * 0x1_0000_0000) | 0, units);
    return span < 0 || units.length === 0 ? 0 : units[Math.floor(Math.random() * units.length)];
  }

  /** @returns 1, or 0 where it did not go */
  #evict(candidate: Candidate | undefined): number {
    if (candidate === undefined) return 0;
    this.#core.encodeDelete(new RawKey(candidate.key, candidate.flags));
    try {
      const lsn = this.#remove(ofVersion(candidate.lsn));
      // No room in the ring, a lock that is busy: that says nothing of what may go.
      if (isDeferred(lsn)) this.#isHeldUp = true;
      return lsn > 0 ? 1 : 0;
    } catch (error) {
      // An open snapshot needs it, and there is no memory for a tombstone.
      if (isMemoryFull(error)) return 0;
      throw error;
    }
  }

  /**
   * Of a sample of the shard's entries whose blocks have such a size the one to go; of a sample of all where there is none, or the one is in use by comparison.
   * What is read here without the lock may be torn: it only chooses, and the removal looks again.
   */
  #choose(shard: Shard, classes: Classes, sparesFresh: boolean): Candidate | undefined {
    const units: number[] = [];
    const hashes: number[] = [];
    const any = new Sample();
    const fitting = new Sample();
    let looks = 0;
    for (let segment = 0; segment < SAMPLE && looks < LOOKS_MAX && fitting.size < SAMPLE; segment++) {
      shard.region.refresh();
      const span = shard.table.collect(Math.floor(Math.random() * 0x1_0000_0000) | 0, units, hashes);
      if (span < 0 || units.length === 0) continue;
      const from = Math.floor(Math.random() * units.length);
      for (let i = 0; i < units.length && looks < LOOKS_MAX && fitting.size < SAMPLE; i++, looks++) {
        const at = (from + i) % units.length;
        const isFitting = isOf(classes, shard.region.words, units[at] * 2);
        if (!isFitting && any.size >= SAMPLE) continue;
        const rank = this.#rank(shard, units[at], hashes[at]);
        if (rank === NEVER) continue;
        if (isFitting) fitting.add(units[at], rank);
        if (any.size < SAMPLE) any.add(units[at], rank);
      }
    }
    this.#isRare = fitting.size * RARE < looks;
    if (any.size === 0 && fitting.size === 0) return undefined;
    const isFresh = sparesFresh && !this.#isByExpiry && fitting.rank * FRESH + FRESH < any.rank;
    return candidateAt(shard, fitting.size === 0 || isFresh ? any.unit : fitting.unit);
  }

  /** The higher, the sooner the entry goes; NEVER where it may not, or is no entry. */
  #rank(shard: Shard, unit: number, hash: number): number {
    const { words, bytes } = shard.region;
    const entry = unit * 2;
    if (!isEntry(words, entry)) return NEVER;
    if (!this.#isByExpiry) return shard.marks?.age(hash) ?? 0;
    const expires = ((words[entry] >>> R.ENTRY_FLAGS_SHIFT) & R.ENTRY_FLAGS_MASK & R.ENTRY_FLAG_EXPIRES) !== 0;
    const at = (entry + E.ENTRY_HEADER_WORDS + R.wordsOf(words[entry] & R.KEY_LENGTH_MASK)) * 4;
    return expires && at + R.EXPIRY_BYTES <= bytes.length ? -bytes.readDoubleLE(at) : NEVER;
  }
}

/** The entry of the highest rank among some. */
class Sample {
  size = 0;
  unit = 0;
  rank = NEVER;

  add(unit: number, rank: number): void {
    this.size++;
    if (rank <= this.rank) return;
    this.rank = rank;
    this.unit = unit;
  }
}

/** Whether there may be an entry that has a value. */
function isEntry(words: Int32Array, entry: number): boolean {
  return entry > 0 && entry + E.ENTRY_HEADER_WORDS + 2 <= words.length && !E.isTombstone(words, entry);
}

function fittingClasses(bytes: number): Classes {
  return { least: classOf(bytes), most: classOf(bytes * FITTING_SIZE) };
}

/** Whether the block of an entry has such a size. */
function isOf(classes: Classes, words: Int32Array, entry: number): boolean {
  if (classes === ALL_CLASSES) return true;
  const sizeClass = words[entry] >>> E.ENTRY_CLASS_SHIFT;
  return sizeClass >= classes.least && sizeClass <= classes.most;
}

function candidateAt(shard: Shard, unit: number): Candidate | undefined {
  const { words, bytes } = shard.region;
  const entry = unit * 2;
  const length = words[entry] & R.KEY_LENGTH_MASK;
  const start = (entry + E.ENTRY_HEADER_WORDS) * 4;
  if (length === 0 || start + length > bytes.length) return undefined;
  const lsn = lsnFrom(words[entry + E.ENTRY_LSN_LOW], words[entry + E.ENTRY_LSN_HIGH]);
  const flags = (words[entry] >>> R.ENTRY_FLAGS_SHIFT) & R.KEY_FLAGS_MASK;
  return { key: Buffer.from(bytes.subarray(start, start + length)), flags, lsn };
}
