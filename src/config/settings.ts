/**
 * The settings of a node: their names in the file, in the environment and as flags, what is allowed, and what they are without being said.
 *
 * The name in the environment and the flag follow from the name in the file: `DataDir`, `DATA_DIR`, `--data-dir`.
 */

import { parseAddress } from './addresses.js';

export type SettingValue = string | number | boolean | string[] | undefined;

export interface SettingRule {
  name: string;
  /** How the value is written in the environment and as a flag. */
  kind: 'string' | 'integer' | 'boolean' | 'list';
  allowed: string;
  check: (value: SettingValue) => boolean;
  default: SettingValue;
  /** Never shown. */
  isSecret?: boolean;
  help: string;
}

/** The settings of a node, checked. */
export interface NodeSettings {
  NodeID: string;
  DataDir: string;
  Role: 'leader' | 'follower';
  ListenAddr: string;
  HttpAddr: string | undefined;
  LeaderAddr: string | undefined;
  Peers: string[];
  EnableMetrics: boolean;
  Durability: 'sync' | 'interval' | 'memory';
  SyncIntervalMs: number;
  CommitDelayUs: number;
  AckPollUs: number;
  SnapshotIntervalSeconds: number;
  CheckpointLogBytes: number | undefined;
  MaxMemoryBytes: number | undefined;
  Eviction: 'none' | 'lru' | 'ttl';
  Shards: number;
  WalSegmentBytes: number;
  RingBytes: number;
  PoolThreads: number | undefined;
  RequirePass: string | undefined;
  ProtectedMode: boolean;
  TlsCertFile: string | undefined;
  TlsKeyFile: string | undefined;
  TlsCaFile: string | undefined;
  TlsClientAuth: 'none' | 'optional' | 'required';
  MaxClients: number;
  TimeoutSeconds: number;
  MaxBulkBytes: number;
  MaxArguments: number;
  MaxOutputBytes: number;
  MaxHttpBodyBytes: number;
  ShutdownTimeoutSeconds: number;
  LogLevel: string;
  LogFormat: 'auto' | 'json' | 'pretty';
}

const MIB = 1024 * 1024;
const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

type Made = Omit<SettingRule, 'name'>;

function text(help: string, fallback?: string, more: Partial<SettingRule> = {}): Made {
  return {
    kind: 'string',
    allowed: 'a string that is not empty',
    check: (value) => typeof value === 'string' && value !== '' && !value.includes('\0'),
    default: fallback,
    help,
    ...more,
  };
}

function oneOf(help: string, values: readonly string[], fallback: string): Made {
  const names = values.map((value) => `"${value}"`);
  return {
    kind: 'string',
    allowed: `${names.slice(0, -1).join(', ')} or ${names.at(-1) ?? ''}`,
    check: (value) => typeof value === 'string' && values.includes(value),
    default: fallback,
    help,
  };
}

function integer(help: string, min: number, max: number, fallback?: number): Made {
  return {
    kind: 'integer',
    allowed: `an integer from ${min} to ${max}`,
    check: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
    default: fallback,
    help,
  };
}

function powerOfTwo(help: string, min: number, max: number, fallback: number): Made {
  const base = integer(help, min, max, fallback);
  return {
    ...base,
    allowed: `a power of two from ${min} to ${max}`,
    check: (value) => base.check(value) && Number.isInteger(Math.log2(value as number)),
  };
}

function flag(help: string, fallback: boolean): Made {
  return { kind: 'boolean', allowed: 'true or false', check: (value) => typeof value === 'boolean', default: fallback, help };
}

const ADDRESS = 'an address such as ":8080", "host:8080" or "[::1]:8080"';

function address(help: string, fallback?: string): Made {
  return {
    kind: 'string',
    allowed: ADDRESS,
    check: (value) => typeof value === 'string' && parseAddress(value) !== undefined,
    default: fallback,
    help,
  };
}

const MADE: Record<keyof NodeSettings, Made> = {
  NodeID: text('Name of the node, in logs and INFO.', 'node-1'),
  DataDir: text('Folder of the store; created when it is not there.', './data'),
  Role: oneOf('Whether it takes writes.', ['leader', 'follower'], 'leader'),
  ListenAddr: address('Where Redis clients connect. Without a host: loopback only.', ':8080'),
  HttpAddr: {
    kind: 'string',
    allowed: `${ADDRESS}, or "off"`,
    check: (value) => typeof value === 'string' && (value === 'off' || parseAddress(value) !== undefined),
    default: undefined,
    help: 'Where HTTP clients connect. By default the host of ListenAddr, and its port and 1000.',
  },
  LeaderAddr: address('On a follower: where writes are to go.'),
  Peers: {
    kind: 'list',
    allowed: `a list of addresses, each ${ADDRESS.replace('an address ', '')}`,
    check: (value) => Array.isArray(value) && value.every((item) => typeof item === 'string' && parseAddress(item) !== undefined),
    default: [],
    help: 'Addresses of the other nodes.',
  },
  EnableMetrics: flag('Serves /metrics.', true),
  Durability: oneOf(
    'When a write is acknowledged: on disk, handed to the operating system, or in memory.',
    ['sync', 'interval', 'memory'],
    'sync',
  ),
  SyncIntervalMs: integer('Longest time that a write stays unsynced with "interval".', 1, 60_000, 100),
  CommitDelayUs: integer(
    'Pause of the log after a group of writes, so that clients that wait for theirs can write again.',
    0,
    100_000,
    250,
  ),
  AckPollUs: integer('Longest time that the event loop keeps turning for an acknowledgement, where that pays; 0: never.', 0, 1000, 300),
  SnapshotIntervalSeconds: integer('Longest time between checkpoints while anything is written; 0: none by time.', 0, 31_536_000, 300),
  CheckpointLogBytes: integer('Bytes of log after which a checkpoint is made.', 65_536, Number.MAX_SAFE_INTEGER),
  MaxMemoryBytes: integer('Cap on the memory of the store. No cap.', MIB, Number.MAX_SAFE_INTEGER),
  Eviction: oneOf('What gives way at the cap.', ['none', 'lru', 'ttl'], 'none'),
  Shards: powerOfTwo('Number of shards.', 1, 256, 16),
  WalSegmentBytes: integer('Size of a log file.', 65_536, 1024 * MIB, 64 * MIB),
  RingBytes: powerOfTwo('Size of the ring between writers and the log.', 65_536, 256 * MIB, 4 * MIB),
  PoolThreads: integer('Threads for recovery and checkpoints. Number of cores, at most 8.', 1, 64),
  RequirePass: text('Password of all clients.', undefined, { isSecret: true }),
  ProtectedMode: flag('Refuses clients from other machines while no password is set.', true),
  TlsCertFile: text('Certificate of the server, PEM; with TlsKeyFile turns TLS on, for both servers.'),
  TlsKeyFile: text('Key of the certificate, PEM.'),
  TlsCaFile: text('Certificates that sign those of clients, PEM.'),
  TlsClientAuth: oneOf('Whether clients have to show a certificate.', ['none', 'optional', 'required'], 'none'),
  MaxClients: integer('Redis clients at a time.', 1, 1_000_000, 10_000),
  TimeoutSeconds: integer('Seconds of silence after which a client is cut off; 0: never.', 0, 2_000_000, 0),
  MaxBulkBytes: integer('Longest argument of a command.', MIB, 1024 * MIB, 512 * MIB),
  MaxArguments: integer('Most arguments of a command.', 16, 2 ** 31 - 1, 1024 * 1024),
  MaxOutputBytes: integer('Messages that a subscriber may leave unread, in bytes.', 65_536, Number.MAX_SAFE_INTEGER, 32 * MIB),
  MaxHttpBodyBytes: integer('Longest body of an HTTP request.', 1024, 1024 * MIB, 64 * MIB),
  ShutdownTimeoutSeconds: integer('Longest that a shutdown waits for what is in flight.', 1, 86_400, 30),
  LogLevel: oneOf('What is logged.', LOG_LEVELS, 'info'),
  LogFormat: oneOf('How it is logged; "auto": pretty on a terminal, JSON otherwise.', ['auto', 'json', 'pretty'], 'auto'),
};

export const SETTINGS: readonly SettingRule[] = Object.entries(MADE).map(([name, rule]) => ({ name, ...rule }));

/** `DataDir` as `DATA_DIR`. */
export function variableOf(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase();
}

/** `DataDir` as `data-dir`. */
export function flagOf(name: string): string {
  return variableOf(name).toLowerCase().replaceAll('_', '-');
}
