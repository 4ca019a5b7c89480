/**
 * Eviction: making room at the memory cap by removing entries, through the log, as a delete does.
 *
 * What goes is found by sampling: of some entries of the shard that has no room, the one that was used longest ago (`lru`), or that expires
 * first (`ttl`; entries that do not expire are never evicted). Close to what exact bookkeeping would choose, for a sample of a dozen, and it costs readers
 * one store.
 *
 * Source: the approximated LRU of Redis, https://redis.io/docs/latest/develop/reference/eviction/.
 */

import { FlashVectorError } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import * as M from '../memory/metrics.js';
import * as E from '../table/entry.js';
import { RawKey } from '../table/key-codec.js';
import type { Shard } from '../table/shard.js';
import type { Core } from './core.js';
import { isDeferred, ofVersion, type Condition } from './write-result.js';

/** Entries looked at for each that goes. */
const SAMPLE = 12;
/** Entries evicted at once: so that not every write of a full store has to. */
const ROUND = 32;
/** Rounds for one write: one that needs more than these bring together is refused, rather than everything evicted for it. */
const ROUNDS_MAX = 16;

interface Candidate {
  key: Buffer;
  flags: number;
  lsn: number;
  /** The higher, the sooner it goes. */
  rank: number;
}

export class Evictor {
  readonly #core: Core;
  readonly #remove: (condition: Condition) => number;
  /** Shards that had no room at the last tries, to be relieved before the next. */
  readonly #short = new Set<Shard>();
  #exhausted = false;
  #isHeldUp = false;
  /** Rounds since a write last found room. */
  #rounds = 0;

  /** @param remove deletes the key in the scratch, on a condition; see Writer.tryWrite */
  constructor(core: Core, remove: (condition: Condition) => number) {
    this.#core = core;
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

  /** A write found room. */
  succeeded(): void {
    this.#rounds = 0;
  }

  /** A write found no room in these shards. */
  note(shards: Iterable<Shard>): void {
    for (const shard of shards) this.#short.add(shard);
  }

  /** Evicts from the shards that had no room. @returns how many entries went */
  relieve(): number {
    let evicted = 0;
    this.#isHeldUp = false;
    for (const shard of this.#short) for (let i = 0; i < ROUND; i++) evicted += this.#evictFrom(shard);
    this.#short.clear();
    this.#exhausted = evicted === 0 && !this.#isHeldUp;
    if (evicted > 0) this.#rounds++;
    this.#core.metrics.add(M.COUNTER_EVICTED, evicted);
    return evicted;
  }

  #evictFrom(shard: Shard): number {
    const candidate = this.#choose(shard);
    if (candidate === undefined) return 0;
    this.#core.encodeDelete(new RawKey(candidate.key, candidate.flags));
    try {
      const lsn = this.#remove(ofVersion(candidate.lsn));
      // No room in the ring, a lock that is busy: that says nothing of what may go.
      if (isDeferred(lsn)) this.#isHeldUp = true;
      return lsn > 0 ? 1 : 0;
    } catch (error) {
      // An open snapshot needs it, and there is no memory for a tombstone.
      if (error instanceof FlashVectorError && error.code === 'FV_MEMORY_FULL') return 0;
      throw error;
    }
  }

  #choose(shard: Shard): Candidate | undefined {
    const byExpiry = this.#core.words[L.CONTROL_EVICTION] === L.EVICTION_TTL;
    const units: number[] = [];
    const hashes: number[] = [];
    let best: Candidate | undefined;
    // What is read without the lock may be torn: it only chooses, and the removal looks again.
    for (let segment = 0, seen = 0; segment < SAMPLE && seen < SAMPLE; segment++) {
      shard.region.refresh();
      const span = shard.table.collect(Math.floor(Math.random() * 0x1_0000_0000) | 0, units, hashes);
      if (span < 0 || units.length === 0) continue;
      const from = Math.floor(Math.random() * units.length);
      for (let i = 0; i < Math.min(units.length, SAMPLE); i++, seen++) {
        const at = (from + i) % units.length;
        const candidate = this.#look(shard, units[at], hashes[at], byExpiry);
        if (candidate !== undefined && (best === undefined || candidate.rank > best.rank)) best = candidate;
      }
    }
    return best;
  }

  #look(shard: Shard, unit: number, hash: number, byExpiry: boolean): Candidate | undefined {
    const { words, bytes } = shard.region;
    const entry = unit * 2;
    if (entry <= 0 || entry + E.ENTRY_HEADER_WORDS + 2 > words.length || E.isTombstone(words, entry)) return undefined;
    const length = words[entry] & R.KEY_LENGTH_MASK;
    const start = (entry + E.ENTRY_HEADER_WORDS) * 4;
    if (length === 0 || start + length + R.EXPIRY_BYTES + 4 > bytes.length) return undefined;
    const expires = ((words[entry] >>> R.ENTRY_FLAGS_SHIFT) & R.ENTRY_FLAGS_MASK & R.ENTRY_FLAG_EXPIRES) !== 0;
    if (byExpiry && !expires) return undefined;
    const rank = byExpiry ? -bytes.readDoubleLE(start + R.wordsOf(length) * 4) : (shard.marks?.age(hash) ?? 0);
    const lsn = lsnFrom(words[entry + E.ENTRY_LSN_LOW], words[entry + E.ENTRY_LSN_HIGH]);
    const flags = (words[entry] >>> R.ENTRY_FLAGS_SHIFT) & R.KEY_FLAGS_MASK;
    return { key: Buffer.from(bytes.subarray(start, start + length)), flags, lsn, rank };
  }
}
