/**
 * The RESP server: listens, takes clients, and ends.
 *
 * It runs in the thread of the store's owner, one command at a time, like Redis; so a command sees the store as the one before it left it. Only writes of
 * other threads of the process can come in between, and what reads and writes is atomic against these, too.
 */

import { once } from 'node:events';
import { createServer as createPlainServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import type { FlashVector } from '../index.js';
import { Channels } from './channels.js';
import { CommandTable } from './command.js';
import { bitCommands } from './commands/bits.js';
import { connectionCommands } from './commands/connection.js';
import { counterCommands } from './commands/counters.js';
import { dumpCommands } from './commands/dump.js';
import { expiryCommands } from './commands/expiry.js';
import { flashVectorCommands } from './commands/fv.js';
import { introspectionCommands } from './commands/introspection.js';
import { keyCommands } from './commands/keys.js';
import { lcsCommands } from './commands/lcs.js';
import { pubsubCommands } from './commands/pubsub.js';
import { serverCommands } from './commands/server.js';
import { stringCommands } from './commands/strings.js';
import { transactionCommands } from './commands/transactions.js';
import { Connection } from './connection.js';
import { Gate } from './gate.js';
import { HANDSHAKE_TIMEOUT_MS, Handshakes } from './handshakes.js';
import { isLoopback } from './loopback.js';
import type { Log } from './log.js';
import { Passwords } from './passwords.js';
import { BlockWaits } from './reply-queue.js';
import { ReplyWriter } from './reply-writer.js';
import type { ParserLimits } from './resp-parser.js';
import { ScanCursors } from './scan-cursors.js';
import { serverSettings, type ServerSetting } from './server-settings.js';
import type { Session } from './session.js';
import { Watches } from './watches.js';

export interface RespServerOptions {
  host: string;
  /** 0: the system chooses; see `RespServer.port`. */
  port: number;
  password: string | undefined;
  tls: TlsOptions | undefined;
  maxClients: number;
  /** Seconds of silence after which a client is cut off; 0: never. */
  timeoutSeconds: number;
  /** Bytes of one argument; and arguments of one command. */
  bulkBytesMax: number;
  argumentsMax: number;
  /** Messages that a subscriber may leave unread. */
  outputBytesMax: number;
  /** Refuses clients from other machines while no password is set. */
  isProtected: boolean;
  /** Where writes are to go: set on a follower, empty when nobody knows. */
  leader: string | undefined;
  nodeId: string;
  /** What CONFIG GET shows: as Redis calls the store's durability and eviction. */
  syncPolicy: 'always' | 'everysec' | 'no';
  evictionPolicy: string;
  version: string;
}

/** The version of Redis whose commands these are. */
const REDIS_VERSION = '7.0.15';
const CLOCK_MS = 100;
/** Longest that the end of the server waits for clients that do not read. */
const GRACE_MS_MAX = 60_000;

const PROTECTED =
  '-DENIED FlashVector is running in protected mode because no password is set. In this mode connections are only accepted from the machine itself. Set RequirePass, or ProtectedMode to false if nobody else can reach the port.\r\n';
const TOO_MANY = '-ERR max number of clients reached\r\n';

export class RespServer {
  readonly commands = new CommandTable();
  readonly channels = new Channels();
  readonly cursors = new ScanCursors();
  readonly waits = new BlockWaits();
  readonly watches = new Watches();
  /** Where commands write their replies; empty between two turns. */
  readonly reply = new ReplyWriter();
  readonly gate: Gate;
  readonly limits: ParserLimits;
  readonly settings: ReadonlyMap<string, ServerSetting>;
  readonly redisVersion = REDIS_VERSION;
  readonly startedMs = Date.now();
  leader: string | undefined;
  /** Followers that are connected. */
  replicas = 0;
  counts = emptyCounts();
  lastCheckpointMs = Date.now();
  lastCheckpointFailed = false;
  /** The time, to a tenth of a second. */
  nowMs = Date.now();
  readonly #server: Server;
  #handshakes: Handshakes | undefined;
  readonly #connections = new Map<number, Connection>();
  #toFlush: Connection[] = [];
  #nextId = 1;
  /** A connection runs commands: see Connection. */
  isRunning = false;
  #isClosing = false;
  #closed: Promise<void> | undefined;
  #unpause: (() => void) | undefined;
  readonly #clock: NodeJS.Timeout;
  /** Set by who runs the server: SHUTDOWN calls it. */
  onShutdown: ((address: string) => void) | undefined;

  constructor(
    readonly db: FlashVector,
    readonly options: RespServerOptions,
    readonly log: Log,
    readonly passwords: Passwords = new Passwords(options.password),
  ) {
    this.gate = new Gate(db);
    this.leader = options.leader;
    this.limits = { argumentsMax: options.argumentsMax, bulkBytesMax: options.bulkBytesMax };
    this.settings = serverSettings(this);
    for (const commands of [
      stringCommands,
      counterCommands,
      bitCommands,
      lcsCommands,
      keyCommands,
      expiryCommands,
      dumpCommands,
      transactionCommands,
      pubsubCommands,
      connectionCommands,
      introspectionCommands,
      serverCommands,
      flashVectorCommands,
    ])
      this.commands.add(commands);
    db.on('checkpoint', (report) => {
      this.lastCheckpointFailed = report.error !== undefined;
      if (report.error === undefined) this.lastCheckpointMs = Date.now();
    });
    const half = { allowHalfOpen: true, noDelay: true };
    this.#server =
      options.tls === undefined
        ? createPlainServer(half, (socket) => this.#accept(socket))
        : this.#createTlsServer({ ...half, handshakeTimeout: HANDSHAKE_TIMEOUT_MS, ...options.tls });
    // A client that breaks off its handshake.
    this.#server.on('tlsClientError', (error) => log.debug({ reason: error.message }, 'a TLS handshake failed'));
    this.#clock = setInterval(() => {
      this.nowMs = Date.now();
    }, CLOCK_MS);
    this.#clock.unref();
  }

  #createTlsServer(options: TlsOptions): Server {
    const server = createTlsServer(options, (socket) => this.#accept(socket));
    // Who is one too many is told so after the handshake.
    this.#handshakes = new Handshakes(server, (count) => !this.#isClosing && count < this.options.maxClients);
    return server;
  }

  get needsPassword(): boolean {
    return this.passwords.isSet;
  }

  /** The port that it listens on. */
  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? this.options.port;
  }

  async listen(): Promise<void> {
    this.#server.listen(this.options.port, this.options.host);
    await once(this.#server, 'listening');
    this.options.port = this.port;
  }

  #accept(socket: Socket): void {
    this.counts.connections++;
    const refusal = this.#refusal(socket);
    if (refusal !== undefined) {
      this.counts.refusedConnections++;
      socket.on('error', () => socket.destroy());
      socket.end(refusal);
      socket.setTimeout(1000, () => socket.destroy());
      return;
    }
    const id = this.#nextId++;
    this.#connections.set(id, new Connection(this, socket, id));
  }

  #refusal(socket: Socket): string | undefined {
    if (this.#isClosing) return '-ERR the server is shutting down\r\n';
    if (this.options.isProtected && !this.needsPassword && !isLoopback(socket.remoteAddress)) return PROTECTED;
    return this.#connections.size >= this.options.maxClients ? TOO_MANY : undefined;
  }

  /**
   * Flushes the connection when all of them have had their turn in this round of the event loop. A client that waits is woken once then, for all
   * that has come for it and its like; a write for each turn woke it for each.
   */
  flushLater(connection: Connection): void {
    if (this.#toFlush.push(connection) === 1) setImmediate(this.#flushAll);
  }

  readonly #flushAll = (): void => {
    const connections = this.#toFlush;
    this.#toFlush = [];
    for (const connection of connections) connection.flush();
  };

  forget(connection: Connection): void {
    this.channels.forget(connection.session);
    connection.session.unwatch();
    this.#connections.delete(connection.session.id);
  }

  /** A session has said the password, or is to say it again: only with it may commands be long. */
  trust(session: Session): void {
    const connection = this.#connections.get(session.id);
    if (connection !== undefined) connection.parser.isTrusted = session.isAuthenticated;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  sessions(): Session[] {
    return [...this.#connections.values()].map(({ session }) => session);
  }

  /** Idle time of new clients and of those that are there. */
  setTimeoutSeconds(seconds: number): void {
    this.options.timeoutSeconds = seconds;
    for (const connection of this.#connections.values()) connection.watchIdleness(seconds);
  }

  /** Lets all commands wait for so long, or until `unpause`. */
  pause(ms: number): void {
    this.unpause();
    void this.gate.exclusively(
      () =>
        new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.min(ms, 0x7fff_ffff));
          this.#unpause = (): void => {
            clearTimeout(timer);
            resolve();
          };
        }),
    );
  }

  unpause(): void {
    this.#unpause?.();
    this.#unpause = undefined;
  }

  requestShutdown(address: string): void {
    this.log.info({ client: address }, 'a client asked for shutdown');
    this.onShutdown?.(address);
  }

  resetCounts(): void {
    this.counts = emptyCounts();
  }

  /**
   * Takes no more clients and commands, finishes what is under way, and ends the connections. Resolves when all have ended.
   * @param graceMs after so long who has not taken what it is owed is cut off
   */
  close(graceMs = Infinity): Promise<void> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  async #close(graceMs: number): Promise<void> {
    this.#isClosing = true;
    this.unpause();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.passwords.close();
    this.#handshakes?.destroy();
    for (const connection of this.#connections.values()) connection.end();
    const timer = setTimeout(
      () => {
        for (const connection of this.#connections.values()) connection.kill();
      },
      Math.min(graceMs, GRACE_MS_MAX),
    );
    await closed;
    clearTimeout(timer);
    clearInterval(this.#clock);
  }

  /** Ends all connections at once. */
  destroy(): void {
    this.#isClosing = true;
    this.unpause();
    this.#server.close();
    this.passwords.close();
    this.#handshakes?.destroy();
    for (const connection of this.#connections.values()) connection.kill();
    clearInterval(this.#clock);
  }
}

export interface ServerCounts {
  connections: number;
  refusedConnections: number;
  refusedPasswords: number;
  commands: number;
  errors: number;
  inputBytes: number;
  outputBytes: number;
}

function emptyCounts(): ServerCounts {
  return { connections: 0, refusedConnections: 0, refusedPasswords: 0, commands: 0, errors: 0, inputBytes: 0, outputBytes: 0 };
}
