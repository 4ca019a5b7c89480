/**
 * A node: the store, the two servers before it, and its life from start to stop.
 *
 * Start: HTTP first, so that `/healthz` and `/readyz` answer while the store recovers; then the store; then Redis clients. Stop: no new clients and
 * commands, what is in flight is finished and replied to, then the store is closed, which syncs.
 *
 * What a follower is: a node whose store takes no writes from clients. What feeds it, replication, will write through `db`; until then it serves what its
 * folder holds.
 */

import { readFileSync } from 'node:fs';
import type { TlsOptions } from 'node:tls';
import { formatAddress, httpAddressBeside, parseAddress, type Address } from '../config/addresses.js';
import type { NodeSettings } from '../config/settings.js';
import { FlashVectorError, open, type FlashVector, type OpenOptions } from '../index.js';
import { HttpServer } from './http-server.js';
import type { Log } from './log.js';
import { NodeMetrics } from './node-metrics.js';
import { Passwords } from './passwords.js';
import { RespServer } from './resp-server.js';

/** Share of the time for a shutdown that clients have to take what they are owed; the rest is for the store. */
const GRACE_SHARE = 0.7;
const PROGRESS_LOG_MS = 1000;
const SYNC_POLICIES = { sync: 'always', interval: 'everysec', memory: 'no' } as const;
const EVICTION_POLICIES = { none: 'noeviction', lru: 'allkeys-lru', ttl: 'volatile-ttl' } as const;

type Phase = 'starting' | 'recovering' | 'ready' | 'stopping' | 'stopped';

export class FlashVectorNode {
  readonly metrics: NodeMetrics;
  readonly #settings: NodeSettings;
  readonly #log: Log;
  readonly #version: string;
  #phase: Phase = 'starting';
  #db: FlashVector | undefined;
  #resp: RespServer | undefined;
  #http: HttpServer | undefined;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  /** Called when a client has asked for shutdown. */
  onShutdown: () => void = () => undefined;

  constructor(settings: NodeSettings, log: Log, version: string) {
    this.#settings = settings;
    this.#log = log;
    this.#version = version;
    this.metrics = new NodeMetrics({ node: settings.NodeID, role: settings.Role });
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** Where Redis clients connect; known once it has started. */
  get respAddress(): Address {
    return { ...addressOf(this.#settings.ListenAddr), port: this.#resp?.port ?? 0 };
  }

  get httpAddress(): Address | undefined {
    if (this.#http === undefined) return undefined;
    return { host: this.#http.options.host, port: this.#http.port };
  }

  get db(): FlashVector | undefined {
    return this.#db;
  }

  /**
   * Rejects with a FlashVectorError when the folder, an address or a certificate is not as it has to be, and with `FV_ABORTED` when it is told to stop meanwhile; nothing
   * runs then.
   */
  start(): Promise<void> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  async #start(): Promise<void> {
    const started = performance.now();
    const settings = this.#settings;
    const log = this.#log;
    log.info({ version: this.#version, role: settings.Role, folder: settings.DataDir }, 'starting');
    try {
      const tls = this.#tls();
      const passwords = new Passwords(settings.RequirePass);
      await this.#startHttp(tls, passwords);
      this.#goOn('recovering');
      const db = await this.#openStore();
      this.#goOn('recovering');
      const resp = new RespServer(db, this.#respOptions(tls), log, passwords);
      resp.onShutdown = () => this.onShutdown();
      this.#resp = resp;
      this.metrics.server = resp;
      await listening(resp.listen(), settings.ListenAddr);
      this.#goOn('ready');
    } catch (error) {
      await this.#abandon();
      throw error;
    }
    this.#phase = 'ready';
    log.info(
      {
        resp: formatAddress(this.respAddress),
        http: this.httpAddress && formatAddress(this.httpAddress),
        ms: Math.round(performance.now() - started),
      },
      'ready',
    );
  }

  /** @throws FlashVectorError FV_ABORTED when it is to stop */
  #goOn(phase: Phase): void {
    if (this.#stopping !== undefined) throw new FlashVectorError('FV_ABORTED', 'the node was told to stop while it started');
    this.#phase = phase;
  }

  async #startHttp(tls: TlsOptions | undefined, passwords: Passwords): Promise<void> {
    const settings = this.#settings;
    if (settings.HttpAddr === 'off') return;
    const address = settings.HttpAddr === undefined ? httpAddressBeside(addressOf(settings.ListenAddr)) : addressOf(settings.HttpAddr);
    const http = new HttpServer(
      {
        ...address,
        tls,
        bodyBytesMax: settings.MaxHttpBodyBytes,
        connectionsMax: settings.MaxClients,
        isProtected: settings.ProtectedMode,
        enableMetrics: settings.EnableMetrics,
        leader: this.#leader(),
      },
      {
        db: () => (this.#phase === 'ready' || this.#phase === 'stopping' ? this.#db : undefined),
        unready: () => this.#unready(),
        metrics: this.metrics,
      },
      passwords,
      this.#log,
    );
    await listening(http.listen(), formatAddress(address));
    this.#http = http;
  }

  async #openStore(): Promise<FlashVector> {
    const settings = this.#settings;
    const log = this.#log;
    const started = performance.now();
    let lastMs = started;
    const options: OpenOptions = {
      durability: settings.Durability,
      syncIntervalMs: settings.SyncIntervalMs,
      commitDelayUs: settings.CommitDelayUs,
      ackPollUs: settings.AckPollUs,
      snapshotIntervalSeconds: settings.SnapshotIntervalSeconds,
      eviction: settings.Eviction,
      shards: settings.Shards,
      walSegmentBytes: settings.WalSegmentBytes,
      ringBytes: settings.RingBytes,
      onProgress: (progress) => {
        if (performance.now() - lastMs < PROGRESS_LOG_MS) return;
        lastMs = performance.now();
        log.info(progress, 'recovering');
      },
    };
    if (settings.CheckpointLogBytes !== undefined) options.checkpointLogBytes = settings.CheckpointLogBytes;
    if (settings.MaxMemoryBytes !== undefined) options.maxMemoryBytes = settings.MaxMemoryBytes;
    if (settings.PoolThreads !== undefined) options.poolThreads = settings.PoolThreads;
    const db = await open(settings.DataDir, options);
    this.#db = db;
    this.metrics.db = db;
    db.on('error', (error) => log.error({ err: error }, 'the store reported an error'));
    db.on('readonly', (cause) => log.error({ err: cause }, 'the store takes no writes any more until it is opened again'));
    db.on('checkpoint', ({ error, reason, lsn, entries, bytes, durationMs }) => {
      if (error === undefined) log.info({ reason, lsn, entries, bytes, ms: Math.round(durationMs) }, 'checkpoint written');
      else log.error({ err: error, reason }, 'a checkpoint failed; nothing is lost');
    });
    log.info({ entries: db.size, lsn: db.stats().log.lastLsn, ms: Math.round(performance.now() - started) }, 'store opened');
    return db;
  }

  #respOptions(tls: TlsOptions | undefined): ConstructorParameters<typeof RespServer>[1] {
    const settings = this.#settings;
    return {
      ...addressOf(settings.ListenAddr),
      password: settings.RequirePass,
      tls,
      maxClients: settings.MaxClients,
      timeoutSeconds: settings.TimeoutSeconds,
      bulkBytesMax: settings.MaxBulkBytes,
      argumentsMax: settings.MaxArguments,
      outputBytesMax: settings.MaxOutputBytes,
      isProtected: settings.ProtectedMode,
      leader: this.#leader(),
      nodeId: settings.NodeID,
      syncPolicy: SYNC_POLICIES[settings.Durability],
      evictionPolicy: EVICTION_POLICIES[settings.Eviction],
      version: this.#version,
    };
  }

  /** `undefined` on a leader. */
  #leader(): string | undefined {
    if (this.#settings.Role === 'leader') return undefined;
    return this.#settings.LeaderAddr === undefined ? '' : formatAddress(addressOf(this.#settings.LeaderAddr));
  }

  /** @throws FlashVectorError FV_OPTION */
  #tls(): TlsOptions | undefined {
    const { TlsCertFile: cert, TlsKeyFile: key, TlsCaFile: ca, TlsClientAuth: clientAuth } = this.#settings;
    if (cert === undefined || key === undefined) return undefined;
    const options: TlsOptions = { cert: readSetting('TlsCertFile', cert), key: readSetting('TlsKeyFile', key), minVersion: 'TLSv1.2' };
    if (ca !== undefined) options.ca = readSetting('TlsCaFile', ca);
    if (clientAuth !== 'none') {
      options.requestCert = true;
      options.rejectUnauthorized = clientAuth === 'required';
    }
    return options;
  }

  #unready(): string | undefined {
    if (this.#phase !== 'ready') return `the node is ${this.#phase}`;
    return this.#db?.status === 'open' ? undefined : 'the store takes no writes';
  }

  async #abandon(): Promise<void> {
    this.#phase = 'stopped';
    this.#resp?.destroy();
    this.#http?.destroy();
    await this.#db?.close().catch(() => undefined);
  }

  /** Finishes what is in flight, syncs, and ends everything. Calling it again returns the same promise. */
  stop(reason: string): Promise<void> {
    this.#stopping ??= this.#stop(reason);
    return this.#stopping;
  }

  /** Before the process is ended at once: what was written is synced, if that takes no longer than `ms`. Matters where writes are acknowledged before they are on disk. */
  async rescue(ms: number): Promise<void> {
    const timer = new Promise<void>((resolve) => setTimeout(resolve, ms).unref());
    const flushed = this.#db?.status === 'open' ? this.#db.flush().then(() => undefined) : Promise.resolve();
    await Promise.race([flushed.catch(() => undefined), timer]);
  }

  async #stop(reason: string): Promise<void> {
    const started = performance.now();
    this.#phase = 'stopping';
    this.#log.info({ reason }, 'stopping');
    // What is being started is finished first, and then taken back.
    await this.#starting?.catch(() => undefined);
    const graceMs = this.#settings.ShutdownTimeoutSeconds * 1000 * GRACE_SHARE;
    await Promise.all([this.#resp?.close(graceMs), this.#http?.close(graceMs)]);
    await this.#db?.close();
    this.#phase = 'stopped';
    this.#log.info({ ms: Math.round(performance.now() - started) }, 'stopped');
  }
}

function addressOf(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new FlashVectorError('FV_OPTION', `${JSON.stringify(text)} is no address`);
  return address;
}

function readSetting(name: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new FlashVectorError('FV_OPTION', `${name} is ${JSON.stringify(file)}, which cannot be read: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** @throws FlashVectorError FV_OPTION naming the address */
async function listening(attempt: Promise<void>, address: string): Promise<void> {
  try {
    await attempt;
  } catch (cause) {
    throw new FlashVectorError('FV_OPTION', `cannot listen on ${address}: ${(cause as Error).message}`, { cause });
  }
}
