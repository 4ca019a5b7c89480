/** One thread's mapping of a store: views of the shared memory, and the private memory that goes with them. */

import { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { ThreadMetrics } from '../memory/metrics.js';
import { Region } from '../memory/region.js';
import { threadWord } from '../memory/registry.js';
import { Ring } from '../memory/ring.js';
import { Staging } from '../memory/staging.js';
import { Scratch } from '../table/scratch.js';
import { Shard } from '../table/shard.js';
import { Dictionary } from '../table/structures.js';
import { ValueCodec } from '../table/value-codec.js';
import type { StoreHandle } from './handle.js';

export class Core {
  readonly control: Control;
  readonly words: Int32Array;
  readonly ring: Ring;
  readonly staging: Staging;
  readonly scratch: Scratch;
  readonly dictionary: Dictionary;
  readonly codec: ValueCodec;
  readonly shards: Shard[];
  readonly shardMask: number;
  readonly metrics: ThreadMetrics;
  readonly threadWord: number;
  /** DURABILITY_* of writes that do not say. */
  readonly durability: number;

  constructor(
    readonly handle: StoreHandle,
    readonly slot: number,
  ) {
    this.control = new Control(handle.control);
    this.words = this.control.words;
    this.scratch = new Scratch(this.words[L.CONTROL_HASH_SEED]);
    this.ring = new Ring(handle.ring, this.control, slot);
    this.staging = new Staging(handle.staging, this.control, slot);
    this.dictionary = new Dictionary(this.control, slot + 1, this.ring);
    this.codec = new ValueCodec(this.scratch, this.dictionary);
    this.shards = handle.shards.map((buffer, i) => new Shard(new Region(buffer, this.words), i, this.scratch, this.codec, slot));
    this.shardMask = handle.shards.length - 1;
    this.metrics = new ThreadMetrics(this.control, slot);
    this.threadWord = threadWord(this.control, slot);
    this.durability = this.words[L.CONTROL_DURABILITY];
  }
}
