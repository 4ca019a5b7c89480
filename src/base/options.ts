/** The options of `open`: their types, their defaults, and one place that checks them. */

import { availableParallelism } from 'node:os';
import { FlashVectorError, describe } from './errors.js';

/**
 * When a write is acknowledged.
 * - `sync`: after `fdatasync` of the log.
 * - `interval`: once written to the operating system; synced every `syncIntervalMs`, and after 2 MiB.
 * - `memory`: at once.
 */
export type Durability = 'sync' | 'interval' | 'memory';

export interface RecoveryProgress {
  /** What recovery is doing. */
  phase: 'load' | 'replay' | 'index' | 'done';
  /** Bytes read so far, and in all: of the checkpoint while it is loaded, of the log while it is replayed. */
  bytesRead: number;
  bytesTotal: number;
  /** Entries loaded, records replayed, or keys put in order so far. */
  records: number;
}

export interface OpenOptions {
  /** Default durability of writes. `'sync'`. */
  durability?: Durability;
  /** Longest time that an `interval` write stays unsynced, in ms, 1 to 60,000. 100. */
  syncIntervalMs?: number;
  /**
   * After a group of eight and more writes whose writers waited for it, the log pauses for so many µs, 0 to 100,000, before it takes the next one. For many
   * writers that each wait for their own write and are far away, as clients of a server are: their writes then make one group. Others only wait longer. 0.
   */
  commitDelayUs?: number;
  /**
   * Where a thread writes again as soon as it is told, time after time, its event loop keeps turning while the next acknowledgement is awaited, for up to so many µs, 0 (never) to
   * 1,000, instead of sleeping: its processor stays awake, and the acknowledgement arrives some 50 µs sooner, for that much of the processor's time. Timers and everything else are
   * served as ever; `performance.eventLoopUtilization()` counts it as work. Never with a single processor. 300.
   */
  ackPollUs?: number;
  /** Number of shards, a power of two, 1 to 256. Each has memory of its own: where `maxMemoryBytes` leaves it less than a MiB, fewer waste less. 16. */
  shards?: number;
  /**
   * Cap on all shared memory of the store, in bytes: entries, old versions, hash tables, the ordered index, and what is there from the
   * beginning (the ring, some 0.7 MiB for locks and counters); but not long records on their way to the log, 64 MiB at most. Writes past it are refused with `FV_MEMORY_FULL`, or evict. Recovery is not bound by it,
   * since what fitted before may take a little more in another order. No cap.
   */
  maxMemoryBytes?: number;
  /**
   * What gives way at the memory cap: nothing (writes are refused with `FV_MEMORY_FULL`), what was used longest ago (`'lru'`), or what
   * expires first (`'ttl'`; what does not expire stays). Both by sampling, and with an eye to whose memory serves what is written: where sizes differ, or change, a younger entry may go
   * before an older one. Cost: a write that finds no room waits for a turn of the event loop, and evicts for those behind it as well. Needs `maxMemoryBytes`. `'none'`.
   */
  eviction?: 'none' | 'lru' | 'ttl';
  /** Size of one log file, in bytes, 64 KiB to 1 GiB. 64 MiB. */
  walSegmentBytes?: number;
  /** Size of the ring between writers and the log thread, a power of two, 64 KiB to 256 MiB. 4 MiB. */
  ringBytes?: number;
  /** Threads for recovery and other background work, 1 to 64. Number of cores, at most 8. */
  poolThreads?: number;
  /** Longest time between checkpoints while anything is written, in seconds, 0 (none by time) to 31,536,000. 300. */
  snapshotIntervalSeconds?: number;
  /**
   * Bytes of log after which a checkpoint is made, 64 KiB to 2^53. By default half the size of the last
   * checkpoint, and at least 40 MiB: so log and checkpoints together stay below three times the data and two segments,
   * and those 40 MiB where the data is less.
   */
  checkpointLogBytes?: number;
  /**
   * Keeps the keys in order, for ranges, snapshots' iterators, transactions over ranges, `count` and `clear`. Without it a new key costs less time and some 13
   * bytes less, and those calls are refused with `FV_OPTION`. `true`.
   */
  ordered?: boolean;
  /**
   * `'ordered'`: keys may be numbers, strings, booleans, dates, null and arrays of these, in this order of kinds, numbers by their value (package
   * ordered-binary). A store does not note it: give the same at every opening. `'utf8'`: strings and bytes.
   */
  keyEncoding?: 'utf8' | 'ordered';
  /** Opens for reading only; no file is created, changed or locked. `false`. */
  readOnly?: boolean;
  /** Creates the store when there is none. `true`. */
  createIfMissing?: boolean;
  /** Refuses a store that exists. `false`. */
  errorIfExists?: boolean;
  /** SIGINT and SIGTERM close the store before they end the process; a second one ends it at once. In the main thread only. `false`. */
  handleSignals?: boolean;
  /**
   * Whether this thread keeps values of hot string keys decoded: `get` is quicker then, and the objects and arrays that it returns are frozen and may be the
   * same ones each time. What holds bytes, dates, maps or sets, and what has more than 4 KiB, is not kept and comes as a copy. `false`.
   */
  cache?: boolean;
  /** Called from time to time while the store recovers. What it throws fails the opening, with that very error. */
  onProgress?: (progress: RecoveryProgress) => void;
}

export type AttachOptions = Pick<OpenOptions, 'cache'>;

type Unset = 'onProgress' | 'checkpointLogBytes';
export type ResolvedOptions = Required<Omit<OpenOptions, Unset>> & Pick<OpenOptions, Unset>;

const MIB = 1024 * 1024;
/** What a region can reach: V8 refuses a growable SharedArrayBuffer of 4 GiB and more. */
export const REGION_BYTES_MAX = 4096 * MIB - 65_536;

type Check = (value: unknown) => boolean;
interface Rule {
  allowed: string;
  check: Check;
}

const integer = (min: number, max: number): Rule => ({
  allowed: `an integer from ${min} to ${max}`,
  check: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
});
const powerOfTwo = (min: number, max: number): Rule => ({
  allowed: `a power of two from ${min} to ${max}`,
  check: (value) => integer(min, max).check(value) && Number.isInteger(Math.log2(value as number)),
});
const boolean: Rule = { allowed: 'true or false', check: (value) => typeof value === 'boolean' };
const durability: Rule = {
  allowed: "'sync', 'interval' or 'memory'",
  check: (value) => value === 'sync' || value === 'interval' || value === 'memory',
};

const RULES: Record<keyof OpenOptions, Rule> = {
  durability,
  syncIntervalMs: integer(1, 60_000),
  commitDelayUs: integer(0, 100_000),
  ackPollUs: integer(0, 1000),
  shards: powerOfTwo(1, 256),
  maxMemoryBytes: integer(MIB, Number.MAX_SAFE_INTEGER),
  eviction: { allowed: "'none', 'lru' or 'ttl'", check: (value) => value === 'none' || value === 'lru' || value === 'ttl' },
  walSegmentBytes: integer(65_536, 1024 * MIB),
  ringBytes: powerOfTwo(65_536, 256 * MIB),
  poolThreads: integer(1, 64),
  snapshotIntervalSeconds: integer(0, 31_536_000),
  checkpointLogBytes: integer(65_536, Number.MAX_SAFE_INTEGER),
  ordered: boolean,
  keyEncoding: { allowed: "'utf8' or 'ordered'", check: (value) => value === 'utf8' || value === 'ordered' },
  readOnly: boolean,
  createIfMissing: boolean,
  errorIfExists: boolean,
  handleSignals: boolean,
  cache: boolean,
  onProgress: { allowed: 'a function', check: (value) => typeof value === 'function' },
};

/**
 * Checks the options of a call against `rules`. An option that is `undefined` counts as not given.
 * @throws FlashVectorError FV_OPTION, naming the option, its value and what is allowed
 */
function checkOptions(options: object, rules: Record<string, Rule>, call: string): void {
  for (const [name, value] of Object.entries(options) as [string, unknown][]) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (rule === undefined) {
      throw new FlashVectorError('FV_OPTION', `${call} has no option ${describe(name)}; it takes ${Object.keys(rules).join(', ')}`);
    }
    if (value !== undefined && !rule.check(value)) {
      throw new FlashVectorError('FV_OPTION', `${call}: option ${name} is ${describe(value)}; allowed is ${rule.allowed}`);
    }
  }
}

/** @throws TypeError, FlashVectorError FV_OPTION */
export function checkAttachOptions(options: AttachOptions): void {
  if (typeof options !== 'object' || options === null) throw new TypeError(`attach: options must be an object, not ${describe(options)}`);
  checkOptions(options, { cache: boolean }, 'attach');
}

export function resolveOptions(options: OpenOptions = {}): ResolvedOptions {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new TypeError(`open: options must be an object, not ${describe(options)}`);
  }
  checkOptions(options, RULES, 'open');
  const resolved: ResolvedOptions = {
    durability: options.durability ?? 'sync',
    syncIntervalMs: options.syncIntervalMs ?? 100,
    commitDelayUs: options.commitDelayUs ?? 0,
    ackPollUs: options.ackPollUs ?? 300,
    shards: options.shards ?? 16,
    maxMemoryBytes: options.maxMemoryBytes ?? Number.MAX_SAFE_INTEGER,
    eviction: options.eviction ?? 'none',
    walSegmentBytes: options.walSegmentBytes ?? 64 * MIB,
    ringBytes: options.ringBytes ?? 4 * MIB,
    poolThreads: options.poolThreads ?? Math.min(8, availableParallelism()),
    snapshotIntervalSeconds: options.snapshotIntervalSeconds ?? 300,
    checkpointLogBytes: options.checkpointLogBytes,
    ordered: options.ordered ?? true,
    keyEncoding: options.keyEncoding ?? 'utf8',
    readOnly: options.readOnly ?? false,
    createIfMissing: options.createIfMissing ?? true,
    errorIfExists: options.errorIfExists ?? false,
    handleSignals: options.handleSignals ?? false,
    cache: options.cache ?? false,
    onProgress: options.onProgress,
  };
  if (resolved.readOnly && resolved.errorIfExists) {
    throw new FlashVectorError('FV_OPTION', 'open: readOnly and errorIfExists exclude each other');
  }
  if (resolved.eviction !== 'none' && options.maxMemoryBytes === undefined) {
    throw new FlashVectorError(
      'FV_OPTION',
      `open: option eviction is '${resolved.eviction}', and without maxMemoryBytes nothing is ever evicted`,
    );
  }
  return resolved;
}

export interface PutOptions {
  /** Writes only where the key is absent; otherwise rejects with `FV_CONFLICT`. */
  ifAbsent?: boolean;
  /** Writes only where the entry's LSN is this one; otherwise rejects with `FV_CONFLICT`. */
  ifVersion?: number;
  /** Overrides the store's durability for this write. */
  durability?: Durability;
  /** The entry is absent from so many milliseconds on, and is removed in the background. Without it the entry stays. */
  ttl?: number;
  /** The same as a moment, in ms since 1970; excludes `ttl`. */
  expiresAt?: number;
}
export type DeleteOptions = Omit<PutOptions, 'ifAbsent' | 'ttl' | 'expiresAt'>;
export type WriteOptions = Pick<PutOptions, 'durability'>;

const ifVersion = integer(1, Number.MAX_SAFE_INTEGER);
/** As far as a Date reaches. */
const TTL_MS_MAX = 8.64e15;
const ttlRule: Rule = {
  allowed: `a number of milliseconds above 0, at most ${TTL_MS_MAX}`,
  check: (value) => typeof value === 'number' && value > 0 && value <= TTL_MS_MAX,
};
const expiresAtRule: Rule = {
  allowed: `a moment in whole ms since 1970, above 0, at most ${TTL_MS_MAX}`,
  check: (value) => Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= TTL_MS_MAX,
};
const WRITE_RULES: Record<keyof WriteOptions, Rule> = { durability };
const DELETE_RULES: Record<keyof DeleteOptions, Rule> = { ifVersion, durability };
const EXPIRY_RULES = { ttl: ttlRule, expiresAt: expiresAtRule };
const PUT_RULES: Record<keyof PutOptions, Rule> = { ifAbsent: boolean, ifVersion, durability, ...EXPIRY_RULES };

function checkCallOptions(call: string, options: object, rules: Record<string, Rule>): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new TypeError(`${call}: options must be an object, not ${describe(options)}`);
  }
  checkOptions(options, rules, call);
}

export function checkPutOptions(options: PutOptions): void {
  checkCallOptions('put', options, PUT_RULES);
  if (options.ifAbsent === true && options.ifVersion !== undefined) {
    throw new FlashVectorError('FV_OPTION', 'put: ifAbsent and ifVersion exclude each other');
  }
  checkOneExpiry('put', options);
}

/** @throws FlashVectorError FV_OPTION */
function checkOneExpiry(call: string, { ttl, expiresAt }: Pick<PutOptions, 'ttl' | 'expiresAt'>): void {
  if (ttl !== undefined && expiresAt !== undefined)
    throw new FlashVectorError('FV_OPTION', `${call}: ttl and expiresAt exclude each other`);
}

export function checkDeleteOptions(options: DeleteOptions): void {
  checkCallOptions('del', options, DELETE_RULES);
}

export function checkWriteOptions(call: string, options: WriteOptions): void {
  checkCallOptions(call, options, WRITE_RULES);
}

/** @returns the ttl, in ms @throws FlashVectorError FV_OPTION */
export function checkTtl(call: string, ttl: unknown): number {
  checkOptions({ ttl }, { ttl: ttlRule }, call);
  if (ttl === undefined) throw new FlashVectorError('FV_OPTION', `${call}: ttl is undefined; allowed is ${ttlRule.allowed}`);
  return ttl as number;
}

export interface TransactionOptions extends WriteOptions {
  /** How often the body runs again after it has met other writers, before `transaction` rejects with `FV_CONFLICT`. 100. */
  maxRetries?: number;
}
const TRANSACTION_RULES: Record<keyof TransactionOptions, Rule> = { durability, maxRetries: integer(0, Number.MAX_SAFE_INTEGER) };

/** @throws TypeError, FlashVectorError FV_OPTION */
export function checkTransactionPutOptions(options: Pick<PutOptions, 'ttl' | 'expiresAt'>): void {
  checkCallOptions('put', options, EXPIRY_RULES);
  checkOneExpiry('put', options);
}

/** @throws TypeError, FlashVectorError FV_OPTION */
export function checkReplacement(replacement: object): void {
  checkCallOptions('modify', replacement, { value: { allowed: 'any value', check: () => true }, ...EXPIRY_RULES });
  checkOneExpiry('modify', replacement);
}

export function checkTransactionOptions(options: TransactionOptions): void {
  checkCallOptions('transaction', options, TRANSACTION_RULES);
}

export interface SublevelOptions {
  /** How the sublevel's keys are encoded; see `open`. `'utf8'`. */
  keyEncoding?: 'utf8' | 'ordered';
}

export function checkSublevelOptions(options: SublevelOptions): void {
  checkCallOptions('sublevel', options, { keyEncoding: RULES.keyEncoding });
}

const LOAD_RULES: Record<string, Rule> = {
  onProgress: { allowed: 'a function', check: (value) => typeof value === 'function' },
  signal: { allowed: 'an AbortSignal', check: (value) => value instanceof AbortSignal },
};

export function checkLoadOptions(options: object): void {
  checkCallOptions('load', options, LOAD_RULES);
}
