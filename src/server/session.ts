/** What the server knows of a client, and what a command of its works with. No socket here: connection.ts has that. */

import type { Command } from './command.js';
import { storeKey } from './key-spaces.js';
import { ReplyWriter } from './reply-writer.js';
import type { CommandStore } from './stores.js';
import { DirectStore } from './stores.js';
import type { RespServer } from './resp-server.js';

/** Between MULTI and EXEC. */
export interface Multi {
  commands: { command: Command; args: Buffer[] }[];
  /** What they take. */
  bytes: number;
  /** A command was refused: EXEC will be, too. */
  isBroken: boolean;
}

export interface WatchedKey {
  database: number;
  key: Buffer;
  /** The store's key for it. */
  stored: string | Uint8Array;
  /** LSN of the entry, 0 for none. */
  lsn: number;
}

/** What a session needs of its connection. */
export interface Outlet {
  readonly address: string;
  readonly localAddress: string;
  /** Sends a message that is no reply, behind the replies so far. */
  deliver(bytes: Buffer): void;
  /** Sends what is there, then ends the connection. */
  end(): void;
  /** Ends the connection at once. */
  kill(): void;
  /** Bytes not yet read by the client. */
  readonly outputBytes: number;
  readonly inputBytes: number;
}

const SMALL_REPLY_BYTES = 512;

export class Session {
  readonly direct: DirectStore;
  store: CommandStore;
  /** Where replies go. */
  reply: ReplyWriter;
  database = 0;
  protocol = 2;
  isAuthenticated: boolean;
  name = '';
  libraryName = '';
  libraryVersion = '';
  multi: Multi | undefined;
  watched: WatchedKey[] = [];
  /** A watched key has been written. */
  isDirty = false;
  readonly channels = new Set<string>();
  readonly patterns = new Set<string>();
  /** CLIENT REPLY: no replies at all; none to this command; none to the next. */
  isReplyOff = false;
  #isReplySkipped = false;
  isNextReplySkipped = false;
  readonly createdMs = Date.now();
  lastCommandMs = Date.now();
  lastCommand = 'NULL';
  /** The name last looked up, and what was found. */
  lastName: Buffer | undefined;
  lastFound: Command | undefined;
  /** What happens once the transaction under way is committed. */
  afterCommit: (() => void)[] | undefined;
  /** The writes of the command under way. */
  #tracked: Promise<unknown>[] = [];

  constructor(
    readonly server: RespServer,
    readonly outlet: Outlet,
    readonly id: number,
  ) {
    this.isAuthenticated = !server.needsPassword;
    this.reply = server.reply;
    this.direct = new DirectStore(this, server.db);
    this.store = this.direct;
  }

  get isSubscribed(): boolean {
    return this.channels.size + this.patterns.size > 0;
  }

  /** The reply must wait for this write. */
  track(promise: Promise<unknown>): void {
    this.#tracked.push(promise);
  }

  get hasTracked(): boolean {
    return this.#tracked.length > 0;
  }

  takeTracked(): Promise<unknown>[] {
    const tracked = this.#tracked;
    this.#tracked = [];
    return tracked;
  }

  /** From here on the reply of this command is written aside: others may run before it is complete. */
  replyApart(): void {
    if (this.reply !== this.server.reply) return;
    this.reply = new ReplyWriter(SMALL_REPLY_BYTES);
    this.reply.protocol = this.protocol;
  }

  setProtocol(protocol: number): void {
    this.protocol = protocol;
    this.reply.protocol = protocol;
  }

  watch(argument: Buffer): void {
    // A copy: as a view it would keep the chunk that it came in.
    const key = Buffer.from(argument);
    const stored = storeKey(this.database, key);
    if (this.watched.some((watched) => sameKey(watched.stored, stored))) return;
    this.server.watches.add(stored, this);
    this.watched.push({ database: this.database, key, stored, lsn: this.store.entry(key)?.lsn ?? 0 });
  }

  /** Whether the command that has just run gets no reply. */
  get isMuffled(): boolean {
    return this.isReplyOff || this.#isReplySkipped;
  }

  /** A command is over. */
  nextReply(): void {
    this.#isReplySkipped = this.isNextReplySkipped;
    this.isNextReplySkipped = false;
  }

  replyOn(): void {
    this.isReplyOff = false;
    this.#isReplySkipped = false;
  }

  unwatch(): void {
    for (const { stored } of this.watched) this.server.watches.remove(stored, this);
    this.watched = [];
    this.isDirty = false;
  }
}

function sameKey(a: string | Uint8Array, b: string | Uint8Array): boolean {
  return a === b || (typeof a !== 'string' && typeof b !== 'string' && Buffer.compare(a, b) === 0);
}
