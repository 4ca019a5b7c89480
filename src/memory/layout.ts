/**
 * Every slot of the control region, in one place: what it holds, who writes it, who waits on it.
 *
 * The control region is one SharedArrayBuffer seen as an Int32Array. Slots that different threads
 * write lie on different cache lines (16 words). "Guarded by L" means: written only while L is held.
 * `docs/concurrency.md` argues the order of operations on these words.
 */

/** A cache line of 64 bytes. */
const LINE_WORDS = 16;

// Line 0: constants, written before the region is shared; the memory cap is set once recovery is done.
/** CONTROL_MEMORY_UNITS_MAX of a store without a cap. */
export const MEMORY_UNITS_UNLIMITED = 0x7fff_ffff;
export const CONTROL_MAGIC = 0;
export const CONTROL_LAYOUT = 1;
export const CONTROL_SHARDS = 2;
export const CONTROL_HASH_SEED = 3;
/** DURABILITY_* of writes that do not say. */
export const CONTROL_DURABILITY = 4;
/** Limit of the regions' memory, in units of 64 KiB; MEMORY_UNITS_UNLIMITED: none. */
export const CONTROL_MEMORY_UNITS_MAX = 5;
/** Longest time that a thread's event loop is kept turning while it waits for an acknowledgement, in µs. */
export const CONTROL_ACK_POLL_US = 6;
export const CONTROL_MAGIC_VALUE = 0x46564354;
export const CONTROL_LAYOUT_VERSION = 4;

// Line 1: life of the store. Written by the owner and, for READONLY, by the log thread; read by all.
/** STATUS_*; only ever rises, but for FAILED, which sets READONLY from OPEN by compare-and-swap. */
export const CONTROL_STATUS = 16;
/** Bytes of the JSON that describes the failure, in the failure area; written before STATUS. */
export const CONTROL_FAILURE_BYTES = 17;
/** 64 KiB units that all regions together hold. Atomics.add by whoever grows a region. */
export const CONTROL_MEMORY_UNITS = 18;
/** Bumped when a slot of the thread registry is taken or freed. */
export const CONTROL_REGISTRY_EPOCH = 19;

/** Slots of the thread registry below this one may be in use. Only rises: who takes a slot raises it first. */
export const CONTROL_THREAD_SLOTS = 20;

/** Units of 64 KiB that the index's region holds; part of MEMORY_UNITS. Written under the index's lock. */
export const CONTROL_INDEX_UNITS = 21;

export const STATUS_OPEN = 0;
export const STATUS_READONLY = 1;
export const STATUS_CLOSING = 2;
export const STATUS_CLOSED = 3;

// Line 2: the log lock: slot + 1 of the thread that reserves ring room, or 0. Held for some dozen
// instructions, never across a wait. Waiters sleep on it with a time-out; release wakes one.
export const CONTROL_LOG_LOCK = 32;
/** 1 when somebody may be asleep on the lock. Set before sleeping, cleared by the release that wakes. */
export const CONTROL_LOG_LOCK_WAITERS = 33;

// Line 3: guarded by the log lock; read by the log thread.
/** Ring position (8-byte units, wraps at 2^32) behind the last reserved record. Stored last. */
export const CONTROL_RING_HEAD = 48;
/** The LSN that the next record takes: high, low, and high again (see Control.storeLsn). */
export const CONTROL_NEXT_LSN = 49;

// Line 4: written by the log thread, read by writers.
/** Ring position up to which room may be reused: behind it nothing is unread or being applied. */
export const CONTROL_RING_TAIL = 64;
/** Bumped and notified when the tail moved while ROOM_WAITERS was set; writers without room wait on it. */
export const CONTROL_ROOM_EPOCH = 65;

// Line 5: writers to the log thread.
/** 0 (awake), LOG_ASLEEP, LOG_NAPPING or LOG_RESTING: about to sleep, or asleep, on LOG_WAKE. Written by the log thread. */
export const CONTROL_LOG_SLEEPING = 80;
/** Bumped and notified by a writer that published while LOG_SLEEPING was set, by who wants room or a sync then, and by the owner; bumped by whoever begins to listen for acknowledgements. */
export const CONTROL_LOG_WAKE = 81;
/** Threads that wait for room. Incremented and decremented by them. */
export const CONTROL_ROOM_WAITERS = 82;
/** 1 when somebody wants what is written to be synced now; the log thread takes it back to 0. */
export const CONTROL_SYNC_REQUESTED = 84;
/** 1: the log thread is to begin a new segment; it takes it back to 0 and notifies. Written by the owner before a checkpoint. */
export const CONTROL_LOG_ROTATE = 86;
/** 1: the log thread drains the ring, writes the closing frame and ends. Written by the owner. */
export const CONTROL_LOG_STOP = 85;
/** Threads that wait for acknowledgements. Incremented and decremented by them. */
export const CONTROL_ACK_WAITERS = 87;

// Line 6: progress, written by the log thread only. An LSN takes three words: high, low, high again.
export const CONTROL_WRITTEN = 96;
export const CONTROL_DURABLE = 103;
/** The low word of an LSN, behind its first word. */
export const LSN_LOW = 1;
/** Bumped and notified on progress, on failure and at the end; threads with pending promises waitAsync on it. */
export const CONTROL_ACK_EPOCH = 100;
/** LOG_*; the owner waits on it at open and close. */
export const CONTROL_LOG_STATE = 101;
/** Bumped by the log thread at every turn of its loop, at least once a second: it is alive. */
export const CONTROL_LOG_HEARTBEAT = 106;
/** Ring position up to which the log thread has written. */
export const CONTROL_RING_CONSUMED = 102;

export const LOG_ASLEEP = 1;
/** Asleep for a moment so that records gather: to be woken only by who wants an acknowledgement. */
export const LOG_NAPPING = 2;
/** Asleep for a moment because nobody listened to the last acknowledgement: to be woken by who begins to listen, not by writers. */
export const LOG_RESTING = 3;

export const LOG_STARTING = 0;
export const LOG_RUNNING = 1;
export const LOG_FAILED = 2;
export const LOG_ENDED = 3;

// Line 7: the staging region (see staging.ts): its lock and the bytes staged. Guarded by its lock.
export const CONTROL_STAGING_LOCK = 112;
export const CONTROL_STAGING_WAITERS = 113;
/** Staged and not yet freed, in units of 8 bytes. */
export const CONTROL_STAGED_UNITS = 114;
/** First block of the list of staged blocks, oldest first, and the last; offsets in units of 8 bytes. */
export const CONTROL_STAGED_FIRST = 115;
export const CONTROL_STAGED_LAST = 116;

// Line 8: the dictionary of record structures (see dictionary.ts). Guarded by its lock.
export const CONTROL_DICTIONARY_LOCK = 128;
export const CONTROL_DICTIONARY_WAITERS = 129;
/** Number of structures; stored after the structure itself is in place. */
export const CONTROL_DICTIONARY_COUNT = 130;
/** Bytes used in the dictionary area. */
export const CONTROL_DICTIONARY_BYTES = 131;

/** A line that nobody reads: the target of the fence (see fence.ts). */
export const CONTROL_FENCE = 144;

// Line 10: the checkpoint under way.
/** 1: pool tasks of the checkpoint are to stop. Written by the owner. */
export const CONTROL_CHECKPOINT_ABORT = 160;
/** Entries written so far. Atomics.add by the pool tasks; taken back to 0 by the owner before they start. */
export const CONTROL_CHECKPOINT_ENTRIES = 161;
/** Bumped and notified by a thread that wants a checkpoint; the owner waits on it asynchronously. */
export const CONTROL_CHECKPOINT_REQUESTS = 162;
/** Bumped and notified by the owner when a checkpoint has ended; who wants one waits on it asynchronously. */
export const CONTROL_CHECKPOINT_ENDS = 163;
/** Requests that were there when the checkpoint that ended last began, and how it ended: CHECKPOINT_*. Written by the owner before ENDS. */
export const CONTROL_CHECKPOINT_SERVED = 164;
export const CONTROL_CHECKPOINT_OUTCOME = 165;
export const CHECKPOINT_MADE = 0;
export const CHECKPOINT_FAILED = 1;
/** A thread that wrote it died, or the store was closed. */
export const CHECKPOINT_ABORTED = 2;
/** Start LSN of the newest checkpoint; three words (see Control.storeLsn). Written by the owner before ENDS. */
export const CONTROL_CHECKPOINT_LSN = 166;
/**
 * Number of the checkpoint that was read back whole last: from here on it counts, and what it replaces is being removed. Written by the pool task that publishes
 * it; the owner reads it when that task's thread has died.
 */
export const CONTROL_CHECKPOINT_VERIFIED = 169;

// Line 11: the ordered index (see table/ordered-index.ts): its lock, taken after shard locks and before the log lock.
export const CONTROL_INDEX_LOCK = 176;
export const CONTROL_INDEX_WAITERS = 177;
/** 1: the store keeps an ordered index. A constant, written before the region is shared. */
export const CONTROL_INDEXED = 178;
/** What is done when there is no memory left: EVICTION_*. A constant as well. */
export const CONTROL_EVICTION = 180;
/** 1: keys are in the encoding `ordered`. A constant as well. */
export const CONTROL_ORDERED_KEYS = 179;

// Line 12: open snapshots (see snapshots.ts). Guarded by the log lock; read by writers and by who frees old versions.
/** LSN of the youngest open snapshot, 0 when none is open; three words (see Control.storeLsn). */
export const CONTROL_SNAPSHOT_NEWEST = 192;
/** LSN of the oldest open snapshot, SNAPSHOT_NONE when none is open; three words. */
export const CONTROL_SNAPSHOT_OLDEST = 195;
/** Bumped whenever NEWEST changes: a writer that finds it changed under the log lock plans its write anew. */
export const CONTROL_SNAPSHOT_EPOCH = 198;
/** Slots of the snapshot table below this one may be in use. */
export const CONTROL_SNAPSHOT_SLOTS = 199;
/** Open snapshots, each registered one counted once. */
export const CONTROL_SNAPSHOT_COUNT = 200;

export const EVICTION_NONE = 0;
export const EVICTION_LRU = 1;
export const EVICTION_TTL = 2;

// Line 13: the store's clock, in milliseconds; a double in words 208 and 209. Written by the owner at opening.
/** What has to be added to the process's monotonic clock, in ms, to get the time of day. */
export const CONTROL_CLOCK_WORD = 208;
/** The access clock, for marks.ts: seconds since the store was opened. Written by the owner. */
export const CONTROL_ACCESS_TICK = 210;

/** OLDEST when no snapshot is open: past every LSN. */
export const SNAPSHOT_NONE = Number.MAX_SAFE_INTEGER;

/** Line 14: who puts waiting keys into the ordered index (see engine/indexer.ts): INDEXER_*. */
export const CONTROL_INDEXER = 224;

/** Writers settle their keys themselves. */
export const INDEXER_NONE = 0;
/** Set by a writer that has much to settle, from NONE by compare-and-swap: the owner is to assign the store. */
export const INDEXER_WANTED = 1;
/** Set by the owner. NONE again when the indexer has ended, or given the store up. */
export const INDEXER_ASSIGNED = 2;

export const FAILURE_AREA_WORD = 240;
export const FAILURE_AREA_BYTES = 4096;

export const DICTIONARY_AREA_WORD = FAILURE_AREA_WORD + FAILURE_AREA_BYTES / 4;
export const DICTIONARY_AREA_BYTES = 64 * 1024;
export const DICTIONARY_STRUCTURES_MAX = 32;

// Shard lines: one line of lock words, one of version words, and one for who settles pending keys.
const SHARD_AREA_WORD = DICTIONARY_AREA_WORD + DICTIONARY_AREA_BYTES / 4;
const SHARD_WORDS = 3 * LINE_WORDS;
/** Slot + 1 of the writer, or 0. Compare-and-swap to take, store to release; waiters sleep on it. */
export const SHARD_LOCK = 0;
/** 1 when somebody may be asleep on SHARD_LOCK. Set before sleeping, cleared by the release that wakes. */
export const SHARD_LOCK_WAITERS = 1;
/** Readers under the lock, one bit a thread slot, READER_WORDS words; a writer with patience sleeps on them. */
export const SHARD_READERS = 2;
/** Odd while a writer changes the table; read around every optimistic read. Guarded by SHARD_LOCK. */
export const SHARD_VERSION = 16;
/** Live entries, low and high word. Guarded by SHARD_LOCK. */
export const SHARD_ENTRIES = 17;
/** Times that SHARD_VERSION has come round to 0. Guarded by SHARD_LOCK; stored before the 0 is, so who sees a version of the next round sees the next number. */
export const SHARD_VERSION_ROUNDS = 19;
/**
 * Keys of the shard that wait to be put into the ordered index (see table/pending-keys.ts): how many were ever added, and settled. Counts wrap
 * at 2^32. ADDED is guarded by SHARD_LOCK and stored last; SETTLED is guarded by the index lock.
 */
export const SHARD_PENDING_ADDED = 20;
export const SHARD_PENDING_SETTLED = 32;
/** Keys of a shard that can wait, a power of two. Settling them takes 0.15 ms in a small store, half a millisecond and more in one of ten million keys. */
export const PENDING_SLOTS = 512;

export const THREADS_MAX = 128;
export const READER_WORDS = THREADS_MAX / 32;

/** Slots of the owner, the log thread, and the indexer in the thread registry. */
export const OWNER_SLOT = 0;
export const LOG_SLOT = 1;
export const INDEXER_SLOT = 2;
/** The first slot for threads that attach. */
export const FIRST_FREE_SLOT = 3;

// Thread registry: one line a thread.
export const THREAD_WORDS = LINE_WORDS;
/** threadId + 1 of the thread, or 0 for a free slot. Taken by compare-and-swap; freed by the thread itself, or by the owner when it is dead. */
export const THREAD_ID = 0;
/** Ring position of the record that this thread is applying; means something while THREAD_BUSY is 1. */
export const THREAD_APPLYING = 1;
/** 1 from the reservation of a record until it is in the tables. Written by the thread, read by the log thread. */
export const THREAD_BUSY = 2;
/** Writes that wait for room or a lock, to be tried again. Written by the thread, read by the owner at close. */
export const THREAD_DEFERRED = 3;
/** 1 while this thread counts in ROOM_WAITERS. Written by the thread; taken back by who buries it. */
export const THREAD_WAITS_FOR_ROOM = 4;
/** The operating system's number of the thread, by which anybody can tell whether it lives; 0 where that is not known. */
export const THREAD_SYSTEM_ID = 5;
/** The THREAD_ID of a thread of which an attached one has heard that it has ended: the owner buries it. The id, because the slot may have changed hands. */
export const THREAD_ENDED = 6;

/**
 * A block that this thread has taken, has not linked yet, and fills while it holds no lock: its unit, and its shard + 1, or 0 for none.
 * Written by the thread under that shard's lock, the unit first; read by who rebuilds the shard's allocator.
 */
export const THREAD_BLOCK_UNIT = 7;
export const THREAD_BLOCK_SHARD = 8;
/** 1 while this thread counts in ACK_WAITERS. Written by the thread; taken back by who buries it. */
export const THREAD_WAITS_FOR_ACK = 9;

/** Counters and histograms, per thread: see metrics.ts. */
export const METRICS_COUNTERS = 24;
export const HISTOGRAM_BUCKETS = 288;
export const METRICS_HISTOGRAMS = 4;
export const METRICS_WORDS = METRICS_COUNTERS * 2 + METRICS_HISTOGRAMS * HISTOGRAM_BUCKETS;

/**
 * The snapshot table: one slot for each registered snapshot. Guarded by the log lock.
 * Word 0: slot + 1 of the thread that opened it, or 0 for a free slot; words 1 to 3: its LSN; words 4 and 5: a double, when it was opened
 * (ms of the store's clock).
 */
export const SNAPSHOTS_MAX = 1024;
export const SNAPSHOT_WORDS = 8;
export const SNAPSHOT_THREAD = 0;
export const SNAPSHOT_LSN = 1;
export const SNAPSHOT_OPENED = 4;

/** Word offsets that depend on the number of shards. */
export interface ControlShape {
  readonly shards: number;
  readonly threadAreaWord: number;
  readonly metricsAreaWord: number;
  readonly snapshotAreaWord: number;
  /** Units of the entries whose keys wait for the index, PENDING_SLOTS for each shard. */
  readonly pendingAreaWord: number;
  readonly words: number;
}

export function controlShape(shards: number): ControlShape {
  const threadAreaWord = SHARD_AREA_WORD + shards * SHARD_WORDS;
  const metricsAreaWord = threadAreaWord + THREADS_MAX * THREAD_WORDS;
  const snapshotAreaWord = metricsAreaWord + THREADS_MAX * METRICS_WORDS;
  const pendingAreaWord = snapshotAreaWord + SNAPSHOTS_MAX * SNAPSHOT_WORDS;
  const words = pendingAreaWord + shards * PENDING_SLOTS;
  return { shards, threadAreaWord, metricsAreaWord, snapshotAreaWord, pendingAreaWord, words };
}

/** First control word of a shard. */
export function shardWord(shard: number): number {
  return SHARD_AREA_WORD + shard * SHARD_WORDS;
}
