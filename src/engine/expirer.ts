/**
 * Removing what has expired: a little at a time, through the log, so that a replay, a copy and a checkpoint agree.
 *
 * The owner walks over the hash tables, a few segments a slice, and deletes what it finds expired, if it is still the same value then. While much
 * of what it meets has expired it goes on at the next turn of the event loop, otherwise after a pause. A store without entries that expire costs one
 * load for each shard and pause.
 */

import { FlashVectorError } from '../base/errors.js';
import * as R from '../base/record.js';
import * as L from '../memory/layout.js';
import { TICK_MS } from '../memory/marks.js';
import * as M from '../memory/metrics.js';
import { REGION_EXPIRING } from '../memory/region.js';
import { RawKey } from '../table/key-codec.js';
import type { ExpiredEntry } from '../table/shard-reader.js';
import type { Core } from './core.js';
import { ofVersion } from './write-result.js';
import type { Writer } from './writer.js';

const PAUSE_MS = 100;
/** Segments of the hash table, of up to 510 entries, in a slice: some 100 µs. */
const SEGMENTS = 4;
/** Removals in a slice. */
const REMOVALS_MAX = 256;

export class Expirer {
  readonly #core: Core;
  readonly #writer: Writer;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #shard = 0;
  #prefix = 0;
  readonly #startedMs = performance.now();

  /** @param onPause called ten times a second: for what else the owner looks after */
  constructor(
    core: Core,
    writer: Writer,
    readonly onPause: () => void,
  ) {
    this.#core = core;
    this.#writer = writer;
    this.#pause();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #pause(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.#slice(), PAUSE_MS);
    this.#timer.unref();
  }

  #slice(): void {
    if (this.#stopped) return;
    this.onPause();
    Atomics.store(this.#core.words, L.CONTROL_ACCESS_TICK, Math.floor((performance.now() - this.#startedMs) / TICK_MS));
    let found = 0;
    // A write that waits comes first: removing what nobody sees can wait longer.
    if (!this.#writer.deferring && this.#core.control.status === L.STATUS_OPEN)
      for (let i = 0; i < SEGMENTS && found < REMOVALS_MAX; i++) found += this.#segment();
    if (found < REMOVALS_MAX / 4) this.#pause();
    // Referenced: an unreferenced one does not wake an idle process, and this ends when little is left.
    else setImmediate(() => this.#slice());
  }

  /** Looks at one segment. @returns entries removed */
  #segment(): number {
    const { shards, clock } = this.#core;
    for (let skipped = 0; shards[this.#shard].region.words[REGION_EXPIRING] === 0; skipped++) {
      if (skipped === shards.length) return 0;
      this.#nextShard();
    }
    const shard = shards[this.#shard];
    const found: ExpiredEntry[] = [];
    this.#prefix = shard.collectExpired(this.#prefix, clock.now(), found);
    if (this.#prefix >= 0x1_0000_0000) this.#nextShard();
    for (const expired of found) this.#remove(expired);
    return found.length;
  }

  #nextShard(): void {
    this.#shard = (this.#shard + 1) % this.#core.shards.length;
    this.#prefix = 0;
  }

  #remove({ key, flags, lsn }: ExpiredEntry): void {
    this.#core.encodeDelete(new RawKey(key, flags));
    try {
      if (this.#writer.tryWrite(R.OPERATION_DELETE, ofVersion(lsn), R.DURABILITY_MEMORY, 0) > 0)
        this.#core.metrics.add(M.COUNTER_EXPIRED, 1);
    } catch (error) {
      // No memory for a tombstone, a lock that stays busy: nobody sees the entry, and it is looked at again.
      if (!(error instanceof FlashVectorError)) throw error;
    }
  }
}
