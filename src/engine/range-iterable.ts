/**
 * What `entries`, `keys` and `values` return: iterable with `for` and with `for await`.
 *
 * Each iterator reads at a moment of its own, the one at which it is made, and gives it back at the end of the range, when it is left early, or
 * when it is collected as garbage. `for await` gives the event loop a turn after every CHUNK entries.
 */

import { FlashVectorError, assert } from '../base/errors.js';
import * as L from '../memory/layout.js';
import type { View } from '../table/shard-reader.js';
import type { Core } from './core.js';
import type { Key } from './key.js';
import { RangeReader, type Bounds } from './range.js';
import { releaseQuietly, type Lease, type Views } from './views.js';

/** Entries between two turns of the event loop: some 50 µs. */
const CHUNK = 100;
/** Entries passed unseen between two turns. */
const SKIPS = 2000;

/** Gives back the moment of an iterator that was neither finished nor left. */
const forgotten = new FinalizationRegistry<Lease>((lease) => releaseQuietly(lease));

/** What an iterator yields of each entry. */
export type Yields = 'entries' | 'keys' | 'values';

/** An entry of a range: something that goes from entry to entry and shows each. */
export interface EntrySource {
  readonly value: unknown;
  /** Whether `advance` returned false only because it has passed many entries that nobody sees; it goes on from there. */
  readonly isPaused: boolean;
  advance(skipsMax?: number): boolean;
  decodeKey(): Key;
}

/** Where the entries come from: the store at a moment, or that with a transaction's own writes. */
export interface RangeOrigin {
  readonly core: Core;
  readonly views: Views;
  /** The moment to read at, if it is not the iterator's own. @throws FlashVectorError FV_CLOSED */
  view(): View | undefined;
  /** How keys are shown, if not as the store's are. */
  decodeKey?: (bytes: Buffer, flags: number) => Key;
  /** @param wantsValue whether values are read */
  source?: (bounds: Bounds, view: View, wantsValue: boolean) => EntrySource;
}

class RangeIterator<T> implements IterableIterator<T, undefined> {
  readonly #origin: RangeOrigin;
  readonly #yields: Yields;
  readonly #source: EntrySource;
  readonly #lease: Lease | undefined;
  readonly #views: Views;
  readonly #words: Int32Array;
  #left: number;

  constructor(origin: RangeOrigin, bounds: Bounds, yields: Yields) {
    this.#origin = origin;
    this.#views = origin.views;
    this.#words = origin.core.words;
    this.#yields = yields;
    this.#left = bounds.limit;
    const given = origin.view();
    this.#lease = given === undefined ? origin.views.acquire() : undefined;
    const view: View | undefined = given ?? this.#lease;
    assert(view !== undefined, 'an iterator reads at some moment');
    const wantsValue = yields !== 'keys';
    try {
      this.#source = origin.source?.(bounds, view, wantsValue) ?? new RangeReader(origin.core, bounds, view, wantsValue, origin.decodeKey);
    } catch (error) {
      this.#lease?.release();
      throw error;
    }
    if (this.#lease !== undefined) forgotten.register(this, this.#lease, this);
  }

  next(): IteratorResult<T, undefined> {
    return this.nextWithin(Infinity) as IteratorResult<T, undefined>;
  }

  /** @returns `undefined` when it has passed `skipsMax` entries that nobody sees: to be called again */
  nextWithin(skipsMax: number): IteratorResult<T, undefined> | undefined {
    // A plain load: the status only rises, and what is read while it does is still of its moment.
    if (this.#views.isClosed || this.#words[L.CONTROL_STATUS] >= L.STATUS_CLOSING) {
      this.#end();
      throw this.#origin.core.control.closedError();
    }
    // What a snapshot or transaction that was closed meanwhile has to say.
    if (this.#lease === undefined) this.#origin.view();
    if (this.#left <= 0 || !this.#source.advance(skipsMax)) {
      if (this.#left > 0 && this.#source.isPaused) return undefined;
      this.#end();
      return { done: true, value: undefined };
    }
    this.#left--;
    return { done: false, value: this.#entry() as T };
  }

  #entry(): unknown {
    const source = this.#source;
    if (this.#yields === 'entries') return [source.decodeKey(), source.value];
    return this.#yields === 'keys' ? source.decodeKey() : source.value;
  }

  return(): IteratorResult<T, undefined> {
    this.#end();
    return { done: true, value: undefined };
  }

  #end(): void {
    this.#left = 0;
    if (this.#lease === undefined) return;
    forgotten.unregister(this);
    this.#lease.release();
  }

  [Symbol.iterator](): this {
    return this;
  }
}

class AsyncRangeIterator<T> implements AsyncIterableIterator<T, undefined> {
  readonly #iterator: RangeIterator<T>;
  #untilTurn = CHUNK;
  #last: Promise<unknown> = Promise.resolve();

  constructor(iterator: RangeIterator<T>) {
    this.#iterator = iterator;
  }

  /** Calls that come before the last one is done wait for it: entries are handed out in order. */
  next(): Promise<IteratorResult<T, undefined>> {
    const result = this.#last.then(() => this.#next());
    this.#last = result.catch(() => undefined);
    return result;
  }

  async #next(): Promise<IteratorResult<T, undefined>> {
    if (--this.#untilTurn < 0) await this.#turn();
    for (;;) {
      const result = this.#iterator.nextWithin(SKIPS);
      if (result !== undefined) return result;
      await this.#turn();
    }
  }

  async #turn(): Promise<void> {
    this.#untilTurn = CHUNK;
    await new Promise((resolve) => setImmediate(resolve));
  }

  return(): Promise<IteratorResult<T, undefined>> {
    return Promise.resolve(this.#iterator.return());
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** A range of the store: read it with `for` or `for await`, any number of times. */
export interface RangeIterable<T> {
  [Symbol.iterator](): IterableIterator<T, undefined>;
  [Symbol.asyncIterator](): AsyncIterableIterator<T, undefined>;
}

export class OrderedRange<T> implements RangeIterable<T> {
  readonly #origin: RangeOrigin;
  readonly #bounds: Bounds;
  readonly #yields: Yields;

  constructor(origin: RangeOrigin, bounds: Bounds, yields: Yields) {
    this.#origin = origin;
    this.#bounds = bounds;
    this.#yields = yields;
  }

  [Symbol.iterator](): IterableIterator<T, undefined> {
    return new RangeIterator<T>(this.#origin, this.#bounds, this.#yields);
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<T, undefined> {
    return new AsyncRangeIterator(new RangeIterator<T>(this.#origin, this.#bounds, this.#yields));
  }
}

/** Entries in a range at a moment, without reading their values. */
export function countRange(core: Core, bounds: Bounds, view: View): number {
  const reader = new RangeReader(core, bounds, view, false);
  let count = 0;
  while (count < bounds.limit && reader.advance()) {
    count++;
    if ((count & 0xfff) === 0 && Atomics.load(core.words, L.CONTROL_STATUS) >= L.STATUS_CLOSING)
      throw new FlashVectorError('FV_CLOSED', 'the store was closed while keys were counted');
  }
  return count;
}
