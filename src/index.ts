/** FlashVector: an embedded key-value store in shared memory, durable through a write-ahead log. */

export { open } from './engine/open.js';
export { attach } from './engine/attach.js';
export { verify } from './engine/verify.js';
export { repair } from './engine/salvage.js';
export { inspect } from './engine/inspect.js';
export { FlashVectorError } from './base/errors.js';
export type { FileReport, Problem, VerifyReport } from './engine/verify.js';
export type { Loss, RepairReport } from './engine/salvage.js';
export type { ErrorCode } from './base/errors.js';
export type {
  AttachOptions,
  DeleteOptions,
  Durability,
  OpenOptions,
  PutOptions,
  RecoveryProgress,
  SublevelOptions,
  TransactionOptions,
  WriteOptions,
} from './base/options.js';
export type { FlashVector } from './engine/database.js';
export type { Replacement } from './engine/modify.js';
export type { AnyKey, Entry, Key } from './engine/key.js';
export type { Range } from './engine/range.js';
export type { Change, ChangesOptions } from './engine/changes.js';
export type { LoadOptions } from './engine/bulk.js';
export type { Sublevel } from './engine/sublevel.js';
export type { OrderedKey } from './table/ordered-keys.js';
export type { RangeIterable } from './engine/range-iterable.js';
export type { ReadRange } from './engine/store-reads.js';
export type { BatchOperation } from './engine/store-writes.js';
export type { TransactionView } from './engine/transaction.js';
export type { Snapshot } from './engine/snapshot.js';
export type { ChainedBatch } from './engine/chained-batch.js';
export type { StoreHandle } from './engine/handle.js';
export type { ShardStats, Stats, Status } from './engine/stats.js';
export type { CheckpointReport, CheckpointStats } from './engine/checkpoints.js';
export type { LatencySummary } from './memory/metrics.js';
