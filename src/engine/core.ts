/** One thread's mapping of a store: views of the shared memory, and the private memory that goes with them. */

import { Bell } from '../memory/bell.js';
import { Clock } from '../memory/clock.js';
import { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { ThreadMetrics } from '../memory/metrics.js';
import { Region } from '../memory/region.js';
import { threadWord } from '../memory/registry.js';
import { Ring } from '../memory/ring.js';
import { SnapshotTable } from '../memory/snapshots.js';
import { Staging } from '../memory/staging.js';
import { decodeKey, encodeKey } from '../table/key-codec.js';
import { OrderedIndex } from '../table/ordered-index.js';
import { Scratch } from '../table/scratch.js';
import { Shard } from '../table/shard.js';
import { Dictionary } from '../table/structures.js';
import { ValueCodec } from '../table/value-codec.js';
import { EncodedBatch } from './batch.js';
import type { StoreHandle } from './handle.js';

/** Batches kept to be used again: two for each of some transactions under way. */
const BATCHES_KEPT = 16;

export class Core {
  readonly control: Control;
  readonly words: Int32Array;
  readonly ring: Ring;
  readonly staging: Staging;
  readonly scratch: Scratch;
  readonly dictionary: Dictionary;
  readonly codec: ValueCodec;
  readonly shards: Shard[];
  readonly index: OrderedIndex | undefined;
  readonly clock: Clock;
  readonly snapshots: SnapshotTable;
  readonly shardMask: number;
  readonly metrics: ThreadMetrics;
  readonly threadWord: number;
  readonly hasOrderedKeys: boolean;
  /** Called when this thread has many keys to put into the index. The owner's thread has it. */
  onIndexerWanted: (() => void) | undefined;
  readonly #batches: EncodedBatch[] = [];
  /** DURABILITY_* of writes that do not say. */
  readonly durability: number;

  constructor(
    readonly handle: StoreHandle,
    readonly slot: number,
  ) {
    this.control = new Control(handle.control);
    this.words = this.control.words;
    this.hasOrderedKeys = this.words[L.CONTROL_ORDERED_KEYS] !== 0;
    this.scratch = new Scratch(this.words[L.CONTROL_HASH_SEED], this.hasOrderedKeys);
    this.ring = new Ring(handle.ring, this.control, slot);
    this.staging = new Staging(handle.staging, this.control, slot);
    this.dictionary = new Dictionary(this.control, slot + 1, this.ring);
    this.codec = new ValueCodec(this.scratch, this.dictionary);
    this.clock = new Clock(handle.control);
    this.snapshots = new SnapshotTable(this.control, slot, this.ring, this.clock);
    const mapped = mapShards(handle, this.words, slot, this.scratch, this.codec, this.clock);
    this.shards = mapped.shards;
    this.index = mapped.index;
    this.shardMask = handle.shards.length - 1;
    this.metrics = new ThreadMetrics(this.control, slot);
    this.threadWord = threadWord(this.control, slot);
    this.durability = this.words[L.CONTROL_DURABILITY];
  }

  /** An empty batch: one that was given back, or a new one. */
  takeBatch(): EncodedBatch {
    return this.#batches.pop() ?? new EncodedBatch();
  }

  /** Takes a batch back that nobody uses any more. */
  giveBatch(batch: EncodedBatch): void {
    batch.reset();
    const batches = this.#batches;
    const top = batches.pop();
    if (top === undefined) {
      batches.push(batch);
      return;
    }
    // The largest is the next to be taken; the others are taken seldom.
    const isLarger = batch.bytes.length > top.bytes.length;
    const other = isLarger ? top : batch;
    other.trim();
    if (batches.length < BATCHES_KEPT - 1) batches.push(other);
    batches.push(isLarger ? batch : top);
  }

  /** A key as the user sees it. The bytes are copied. */
  decodeKey(bytes: Buffer, start: number, end: number, flags: number): string | Uint8Array {
    return decodeKey(bytes, start, end, flags, this.hasOrderedKeys);
  }

  /** Puts the deletion of a key into the scratch. @throws TypeError, FlashVectorError FV_KEY */
  encodeDelete(key: unknown): void {
    const { scratch } = this;
    encodeKey(scratch, key);
    scratch.valueType = 0;
    scratch.valueLength = 0;
    scratch.valueBytes = null;
  }
}

/** The shards and the ordered index as one thread sees them, over the same regions. */
export function mapShards(
  handle: StoreHandle,
  words: Int32Array,
  slot: number,
  scratch: Scratch,
  codec: ValueCodec,
  clock: Clock,
): { shards: Shard[]; index: OrderedIndex | undefined } {
  const regions = handle.shards.map((buffer) => new Region(buffer, words));
  const index =
    words[L.CONTROL_INDEXED] === 0
      ? undefined
      : new OrderedIndex(new Region(handle.index, words, true, true), regions, slot + 1, new Bell(handle.bell));
  const context = { scratch, codec, clock, slot, index, marks: handle.marks };
  return { shards: regions.map((region, i) => new Shard(region, i, context)), index };
}
