/**
 * Applies logged operations to the tables, before anybody else uses them.
 *
 * One replayer takes every `partitions`-th shard; several run in parallel over the same log, and
 * since shards share nothing they need not wait for each other.
 */

import { lsnHigh, lsnLow } from '../base/lsn.js';
import { ENTRY_FLAGS_MASK, ENTRY_FLAGS_SHIFT, OPERATION_HEADER_WORDS, VALUE_TYPE_MASK, VALUE_TYPE_SHIFT } from '../base/record.js';
import { ABSENT } from './hash-table.js';
import { hashWords } from './key-codec.js';
import { memoryFull } from './memory-full.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';
import type { Shard } from './shard.js';
import type { Dictionary } from './structures.js';

/** What a log reader says of an operation; offsets are into `payload`. */
interface LoggedOperation {
  type: number;
  meta: number;
  keyLength: number;
  valueLength: number;
  keyStart: number;
  valueStart: number;
}

export interface Partition {
  index: number;
  count: number;
}

export class Replayer {
  /** Operations applied by this partition. */
  applied = 0;

  constructor(
    readonly shards: readonly Shard[],
    readonly scratch: Scratch,
    readonly dictionary: Dictionary,
    readonly partition: Partition,
  ) {}

  /** @param only shards to which the operation is applied, if given; the caller holds their locks */
  operation(operation: LoggedOperation, payload: Buffer, lsn: number, only?: readonly Shard[]): void {
    const scratch = this.scratch;
    const keyBytes = operation.valueStart - operation.keyStart;
    payload.copy(scratch.bytes, OPERATION_HEADER_WORDS * 4, operation.keyStart, operation.keyStart + keyBytes);
    const hash = hashWords(scratch, operation.keyLength);
    const shard = this.shards[hash & (this.shards.length - 1)];
    if (only === undefined ? shard.index % this.partition.count !== this.partition.index : !only.includes(shard)) return;
    scratch.keyLength = operation.keyLength;
    scratch.keyHash = hash;
    scratch.keyFlags = (operation.meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK;
    shard.region.sync();
    this.applied++;
    const length = operation.valueLength;
    const valueEnd = operation.valueStart + length;
    scratch.valueType = (operation.meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK;
    scratch.valueLength = length;
    if (length > INLINE_VALUE_BYTES_MAX) {
      scratch.valueBytes = payload.subarray(operation.valueStart, valueEnd);
    } else {
      scratch.valueBytes = null;
      // Padding included: the log has it as zeros, as the table wants it.
      payload.copy(scratch.bytes, OPERATION_HEADER_WORDS * 4 + keyBytes, operation.valueStart, valueEnd + (-length & 3));
    }
    this.#apply(shard, operation.type, lsn);
  }

  #apply(shard: Shard, type: number, lsn: number): void {
    const entry = shard.table.locate(this.scratch);
    if (!shard.prepareLocked(type, entry)) throw memoryFull();
    const ordered = shard.touchesIndex ? shard.ordered : undefined;
    ordered?.lockFor(shard.index);
    try {
      if (ordered !== undefined && !shard.reserveIndexLocked(entry)) {
        shard.giveBackLocked();
        throw memoryFull();
      }
      shard.applyLocked(type, entry, lsnLow(lsn), lsnHigh(lsn));
    } finally {
      ordered?.unlock();
    }
  }

  /** Whether the table holds nothing as young under the operation's key. */
  isNewer(operation: LoggedOperation, payload: Buffer, lsn: number): boolean {
    const scratch = this.scratch;
    payload.copy(scratch.bytes, OPERATION_HEADER_WORDS * 4, operation.keyStart, operation.valueStart);
    scratch.keyLength = operation.keyLength;
    scratch.keyHash = hashWords(scratch, operation.keyLength);
    const shard = this.shards[scratch.keyHash & (this.shards.length - 1)];
    shard.region.sync();
    const entry = shard.table.locate(scratch);
    return entry === ABSENT || shard.lsnLocked(entry) < lsn;
  }

  structure(number: number, names: Buffer): void {
    if (this.partition.index === 0) this.dictionary.append(number, names);
  }
}
