/**
 * Ranges: what callers say, checked; and reading one in order, entry by entry, as of a moment.
 *
 * The reader takes a leaf's references from the ordered index and reads each entry under its shard's version. If the leaf was
 * replaced meanwhile, what was read from its last reference may be anything: it is read again, from the last key that was good.
 */

import { FlashVectorError, assert, describe } from '../base/errors.js';
import { AHEAD, IndexCursor } from '../table/index-cursor.js';
import { RawKey, encodeKey } from '../table/key-codec.js';
import { encodeOrderedPrefix } from '../table/ordered-keys.js';
import { KeyProbe, compareKeys } from '../table/key-probe.js';
import { INVISIBLE } from '../table/entry-reader.js';
import type { View } from '../table/shard-reader.js';
import type { Core } from './core.js';
import type { AnyKey, Key } from './key.js';

/** A range of keys, ordered by their bytes. Bounds that are not given are open. */
export interface Range {
  gt?: AnyKey;
  gte?: AnyKey;
  lt?: AnyKey;
  lte?: AnyKey;
  /** Only keys that begin with it. */
  prefix?: AnyKey;
  /** From the last key to the first. `false`. */
  reverse?: boolean;
  /** At most so many. No limit. */
  limit?: number;
}

interface Bound {
  key: KeyProbe;
  inclusive: boolean;
}

/** A range that has been checked. */
export interface Bounds {
  low: Bound | undefined;
  high: Bound | undefined;
  reverse: boolean;
  limit: number;
}

const NAMES = new Set(['gt', 'gte', 'lt', 'lte', 'prefix', 'reverse', 'limit']);

function probeOf(core: Core, key: AnyKey): KeyProbe {
  encodeKey(core.scratch, key);
  const probe = KeyProbe.own();
  const source = KeyProbe.ofScratch(core.scratch);
  source.length = core.scratch.keyLength;
  probe.set(source);
  return probe;
}

/** The first key behind all that begin with `prefix`, or `undefined` when there is none. */
function behindPrefix(prefix: KeyProbe): KeyProbe | undefined {
  const bytes = Buffer.from(prefix.bytes.subarray(0, prefix.length));
  let length = bytes.length;
  while (length > 0 && bytes[length - 1] === 0xff) length--;
  if (length === 0) return undefined;
  bytes[length - 1]++;
  const padded = Buffer.alloc((length + 3) & ~3);
  bytes.copy(padded, 0, 0, length);
  const probe = KeyProbe.own();
  probe.setWords(new Int32Array(padded.buffer, padded.byteOffset, padded.length >>> 2), 0, length);
  return probe;
}

/** Of two bounds the one that leaves less. @param sign 1 for lower bounds, -1 for upper ones */
function tighter(a: Bound | undefined, b: Bound | undefined, sign: 1 | -1): Bound | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const order = sign * compareKeys(a.key.words, a.key.at, a.key.length, b.key.words, b.key.at, b.key.length);
  if (order !== 0) return order > 0 ? a : b;
  return a.inclusive ? b : a;
}

/**
 * @throws TypeError for what is not a range; FlashVectorError FV_OPTION for an unknown name or a value that is not allowed, FV_KEY for a bound that
 *   can be no key
 */
export function checkRange(core: Core, call: string, range: Range | undefined): Bounds {
  if (core.index === undefined)
    throw new FlashVectorError('FV_OPTION', `${call}: the store was opened with ordered: false, and has no ranges`);
  const bounds: Bounds = { low: undefined, high: undefined, reverse: false, limit: Infinity };
  if (range === undefined) return bounds;
  if (typeof range !== 'object' || range === null || Array.isArray(range) || range instanceof Uint8Array)
    throw new TypeError(`${call} takes a range such as { gte: 'a', lt: 'b' }, not ${describe(range)}`);
  for (const name of Object.keys(range)) {
    if (!NAMES.has(name))
      throw new FlashVectorError('FV_OPTION', `${call}: a range has no ${describe(name)}; it takes ${[...NAMES].join(', ')}`);
  }
  const { gt, gte, lt, lte, prefix, reverse, limit } = range;
  if (reverse !== undefined && typeof reverse !== 'boolean')
    throw new FlashVectorError('FV_OPTION', `${call}: reverse is ${describe(reverse)}; allowed is true or false`);
  if (limit !== undefined && limit !== Infinity && (!Number.isSafeInteger(limit) || limit < 0))
    throw new FlashVectorError('FV_OPTION', `${call}: limit is ${describe(limit)}; allowed is a number of entries, 0 or more`);
  bounds.reverse = reverse ?? false;
  bounds.limit = limit ?? Infinity;
  if (gt !== undefined) bounds.low = tighter(bounds.low, { key: probeOf(core, gt), inclusive: false }, 1);
  if (gte !== undefined) bounds.low = tighter(bounds.low, { key: probeOf(core, gte), inclusive: true }, 1);
  if (lt !== undefined) bounds.high = tighter(bounds.high, { key: probeOf(core, lt), inclusive: false }, -1);
  if (lte !== undefined) bounds.high = tighter(bounds.high, { key: probeOf(core, lte), inclusive: true }, -1);
  if (prefix !== undefined) {
    const raw: unknown =
      core.hasOrderedKeys && !((prefix as unknown) instanceof RawKey) ? new RawKey(encodeOrderedPrefix(prefix), 0) : prefix;
    const key = probeOf(core, raw as Key);
    const behind = behindPrefix(key);
    bounds.low = tighter(bounds.low, { key, inclusive: true }, 1);
    if (behind !== undefined) bounds.high = tighter(bounds.high, { key: behind, inclusive: false }, -1);
  }
  return bounds;
}

/** Whether a key lies in a range. */
export function isInside(bounds: Bounds, key: KeyProbe): boolean {
  return !isOutside(bounds.low, key, 1) && !isOutside(bounds.high, key, -1);
}

function isOutside(bound: Bound | undefined, key: KeyProbe, sign: 1 | -1): boolean {
  if (bound === undefined) return false;
  const order = sign * compareKeys(key.words, key.at, key.length, bound.key.words, bound.key.at, bound.key.length);
  return order < 0 || (order === 0 && !bound.inclusive);
}

export class RangeReader {
  /** The entry that `advance` found: its key, and its value if it was wanted. */
  key = KeyProbe.own();
  value: unknown;
  /** LSN words of the entry found. */
  lsnLow = 0;
  lsnHigh = 0;
  keyFlags = 0;
  readonly #core: Core;
  readonly #bounds: Bounds;
  readonly #view: View;
  readonly #wantsValue: boolean;
  readonly #cursor: IndexCursor;
  readonly #start: Bound | undefined;
  readonly #end: Bound | undefined;
  /** Where the next key is read to: `key` stays good until then. */
  #ahead = KeyProbe.own();
  /** Entries of the leaf that have been fetched and not read. */
  #fetched = 0;
  #state: 'before' | 'inside' | 'after' = 'before';
  /** The last key that was found, or passed unseen. */
  #last: KeyProbe | undefined;
  #passed = KeyProbe.own();
  /** Stopped after many entries that the view does not see; `advance` goes on from there. */
  isPaused = false;

  readonly #decode: ((bytes: Buffer, flags: number) => Key) | undefined;

  /** @param decode how keys are shown, if not as the store's are; the bytes are good until it returns */
  constructor(core: Core, bounds: Bounds, view: View, wantsValue: boolean, decode?: (bytes: Buffer, flags: number) => Key) {
    assert(core.index !== undefined, 'ranges are refused where there is no index');
    this.#core = core;
    this.#bounds = bounds;
    this.#view = view;
    this.#wantsValue = wantsValue;
    this.#decode = decode;
    this.#cursor = new IndexCursor(core.index, bounds.reverse);
    this.#start = bounds.reverse ? bounds.high : bounds.low;
    this.#end = bounds.reverse ? bounds.low : bounds.high;
  }

  /**
   * Goes to the next entry.
   * @param skipsMax entries that are passed because the view does not see them, before it pauses
   * @returns false at the end of the range, or when it has paused: `isPaused` tells
   */
  advance(skipsMax = Infinity): boolean {
    const cursor = this.#cursor;
    const { reverse } = this.#bounds;
    this.isPaused = false;
    if (this.#state === 'after') return false;
    if (this.#state === 'before') {
      this.#seek();
      this.#state = 'inside';
    }
    for (let skips = 0; ;) {
      const at = cursor.next;
      if (at < 0 || at >= cursor.count) {
        this.#fetched = 0;
        if (cursor.nextLeaf()) continue;
        this.#state = 'after';
        return false;
      }
      cursor.next = reverse ? at - 1 : at + 1;
      if (--this.#fetched < 0) {
        this.#fetched = AHEAD - 1;
        cursor.fetchAhead(at);
      }
      const shard = this.#core.shards[cursor.shardOf[at]];
      const value = shard.readAt(this.#view, cursor, cursor.units[at], this.#ahead, this.#wantsValue);
      if (!cursor.isCurrent()) {
        this.#seek();
        continue;
      }
      if (isOutside(this.#end, this.#ahead, reverse ? 1 : -1)) {
        this.#state = 'after';
        return false;
      }
      if (value === INVISIBLE) {
        // Passed: whatever happens to the leaf, it need not be looked at again.
        const before = this.#passed;
        this.#passed = this.#ahead;
        this.#ahead = before;
        this.#last = this.#passed;
        if (++skips < skipsMax) continue;
        this.isPaused = true;
        return false;
      }
      const before = this.key;
      this.key = this.#ahead;
      this.#ahead = before;
      this.#last = this.key;
      this.value = value;
      this.lsnLow = shard.lsnLow;
      this.lsnHigh = shard.lsnHigh;
      this.keyFlags = shard.keyFlags;
      return true;
    }
  }

  /** Goes behind the last key that was found or passed, or to the beginning. */
  #seek(): void {
    this.#fetched = 0;
    if (this.#last === undefined) this.#cursor.seek(this.#start?.key, this.#start?.inclusive ?? true);
    else this.#cursor.seek(this.#last, false);
  }

  /** The bytes of the key found, as a string. */
  keyBytes(): string {
    return this.key.bytes.latin1Slice(0, this.key.length);
  }

  /** The key found, as the user sees it. */
  decodeKey(): Key {
    if (this.#decode !== undefined) return this.#decode(this.key.bytes.subarray(0, this.key.length), this.keyFlags);
    return this.#core.decodeKey(this.key.bytes, 0, this.key.length, this.keyFlags);
  }
}
