/**
 * One client's connection: reads commands, runs them, sends the replies.
 *
 * Commands of a connection run one after the other, all that came together in one go, so their writes become one group commit. A reply leaves when the
 * writes before it are durable. The connection stops reading while a reply takes its time, while the gate is shut, and while the client does not read
 * what it has asked for.
 */

import assert from 'node:assert';
import type { Socket } from 'node:net';
import { isPromise } from 'node:util/types';
import { errorReply } from './error-reply.js';
import { execute } from './execute.js';
import { ProtocolError } from './protocol-error.js';
import { ReplyQueue } from './reply-queue.js';
import type { ReplyWriter } from './reply-writer.js';
import { RespParser } from './resp-parser.js';
import type { RespServer } from './resp-server.js';
import { Session, type Outlet } from './session.js';

/** Replies that a client may leave unread before nothing more of it is run; and how few let it go on. */
const OUTPUT_HIGH_BYTES = 1024 * 1024;
const OUTPUT_LOW_BYTES = 256 * 1024;
/** Replies of one go are sent in parts of so many bytes. */
const BLOCK_BYTES = 256 * 1024;
/** Commands after which others get their turn. */
const COMMANDS_PER_TURN = 1024;
/** And the time; looked at after every eighth command. */
const TURN_MS = 10;
/** A connection that ends and takes nothing for so long has had its time. */
const LINGER_MS = 5000;

export class Connection implements Outlet {
  readonly session: Session;
  readonly parser: RespParser;
  readonly address: string;
  readonly localAddress: string;
  readonly #queue: ReplyQueue;
  /** What goes to the socket at the end of this round of the event loop, and its bytes. */
  #outgoing: Buffer[] = [];
  #outgoingBytes = 0;
  #writes: { start: number; end: number; promise: Promise<unknown> }[] = [];
  /** A command has not replied yet. */
  #isWaiting = false;
  /** It stands at the gate, or has given others their turn. */
  #isParked = false;
  #isRunning = false;
  /** All complete commands that have come have been run. */
  #isDry = true;
  /** Messages to this client from its own command under way: they follow the command's reply. */
  #asides: Buffer[] = [];
  #asideBytes = 0;
  /** Nothing more is read; what is under way is still replied to. */
  #isEnding = false;
  #isPaused = false;
  #isFinished = false;
  #isClosed = false;

  constructor(
    readonly server: RespServer,
    readonly socket: Socket,
    id: number,
  ) {
    this.address = addressOf(socket.remoteAddress, socket.remotePort);
    this.localAddress = addressOf(socket.localAddress, socket.localPort);
    this.session = new Session(server, this, id);
    this.parser = new RespParser(server.limits);
    this.parser.isTrusted = this.session.isAuthenticated;
    this.#queue = new ReplyQueue(server.waits, (bytes) => this.#send(bytes));
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('drain', () => this.#resume());
    socket.on('end', () => this.end());
    socket.on('error', () => this.kill());
    socket.on('close', () => this.#closed());
    socket.on('timeout', () => this.#idle());
    this.watchIdleness(server.options.timeoutSeconds);
  }

  /** Ends the connection when nothing comes for so long. 0: never. Subscribers are not idle. */
  watchIdleness(seconds: number): void {
    if (!this.#isEnding) this.socket.setTimeout(seconds * 1000);
  }

  #idle(): void {
    // It waits for the server, not the other way round.
    if (!this.isIdle || (this.session.isSubscribed && !this.#isEnding)) {
      this.socket.setTimeout(this.#isEnding ? LINGER_MS : this.server.options.timeoutSeconds * 1000);
      return;
    }
    if (!this.#isEnding) this.server.log.debug({ client: this.address }, 'closing an idle client');
    this.kill();
  }

  get outputBytes(): number {
    return this.#queue.bytes + this.#outgoingBytes + this.#asideBytes + this.socket.writableLength;
  }

  get inputBytes(): number {
    return this.parser.pendingBytes;
  }

  /** Whether nothing of it is under way. */
  get isIdle(): boolean {
    return !this.#isWaiting && !this.#isParked && this.#queue.isEmpty;
  }

  #receive(chunk: Buffer): void {
    if (this.#isEnding) return;
    this.server.counts.inputBytes += chunk.length;
    this.parser.push(chunk);
    if (!this.#isWaiting && !this.#isParked) this.#run();
    this.#throttle();
  }

  /** Runs what has come, as far as it may. One connection at a time: a reply or a message to another one may let that go on, but not within the turn of the first. */
  #run(): void {
    if (this.#isRunning || this.#isParked) return;
    const { server } = this;
    if (server.isRunning) {
      this.#park((resume) => setImmediate(resume));
      return;
    }
    server.isRunning = true;
    this.#isRunning = true;
    try {
      this.#runCommands();
    } catch (error) {
      // A fault of the server's own: this client's replies are not to be trusted any more, and nobody else may get them.
      server.log.error({ err: error, client: this.address }, 'a fault in the server; the client is cut off');
      server.reply.truncate(0);
      for (const { promise } of this.#writes.splice(0)) promise.catch(() => undefined);
      this.kill();
    } finally {
      this.#isRunning = false;
      server.isRunning = false;
    }
    this.#throttle();
    this.#finishIfOver();
  }

  /** Ends the connection that is to end when everything that came has been run and replied to. */
  #finishIfOver(): void {
    if (this.#isEnding && this.#isDry && this.isIdle && !this.#isRunning) this.#finish();
  }

  #runCommands(): void {
    const { server, session } = this;
    const { reply } = server;
    assert(reply.length === 0, 'every turn hands over what it has written');
    reply.protocol = session.protocol;
    this.#isDry = false;
    const startedMs = performance.now();
    for (let count = 0; !this.#isWaiting && !this.#isClosed; count++) {
      if (!server.gate.isOpen) {
        this.#park((resume) => server.gate.wait(resume));
        break;
      }
      if (count === COMMANDS_PER_TURN || ((count & 7) === 7 && performance.now() - startedMs > TURN_MS)) {
        // What is ready goes first: the rest may take as long again.
        this.#emit();
        this.flush();
        this.#park((resume) => setImmediate(resume));
        break;
      }
      if (this.outputBytes > OUTPUT_HIGH_BYTES) break;
      const start = reply.length;
      let args: Buffer[] | undefined;
      try {
        args = this.parser.next();
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        reply.error(error.message);
        server.log.debug({ client: this.address, reason: error.message }, 'cutting off a client');
        this.#isEnding = true;
        this.#isDry = true;
        this.parser.discard();
        break;
      }
      if (args === undefined) {
        this.#isDry = true;
        break;
      }
      server.counts.commands++;
      session.lastCommandMs = server.nowMs;
      session.reply = reply;
      const result = execute(session, args);
      if (result !== undefined && isPromise(result)) {
        this.#wait(result, session.reply, start);
        break;
      }
      if (session.hasTracked) for (const promise of session.takeTracked()) this.#writes.push({ start, end: reply.length, promise });
      if (session.isMuffled) this.#muffle(start);
      session.nextReply();
      if (this.#asides.length > 0) this.#sendAsides();
      if (reply.length > BLOCK_BYTES) this.#emit();
    }
    this.#emit();
  }

  /** CLIENT REPLY OFF and SKIP: takes the command's reply back. Nobody waits for its writes then. */
  #muffle(start: number): void {
    this.server.reply.truncate(start);
    let kept = this.#writes.length;
    while (kept > 0 && this.#writes[kept - 1].start >= start) kept--;
    for (const { promise } of this.#writes.splice(kept)) promise.catch(() => undefined);
  }

  #sendAsides(): void {
    this.#emit();
    this.#pushAsides();
  }

  #pushAsides(): void {
    this.#asideBytes = 0;
    for (const bytes of this.#asides.splice(0)) this.#queue.push(bytes, []);
  }

  /** Hands over what was written so far. */
  #emit(): void {
    const { reply } = this.server;
    if (reply.length === 0) return;
    const writes = this.#writes;
    this.#writes = [];
    this.#queue.push(reply.take(), writes);
  }

  /** A command replies later: what was before it goes its way, what is behind it waits. */
  #wait(result: Promise<void>, reply: ReplyWriter, start: number): void {
    this.#isWaiting = true;
    const { session, server } = this;
    if (reply === server.reply) {
      // It has written nothing yet, and will write aside.
      reply.truncate(start);
      session.replyApart();
    }
    this.#emit();
    void this.#complete(result, session.reply);
  }

  /** Sends the reply of a command once it is there, and goes on. Never rejects. */
  async #complete(result: Promise<void>, own: ReplyWriter): Promise<void> {
    const { session, server } = this;
    try {
      await result;
    } catch (error) {
      own.truncate(0);
      own.error(errorReply(error));
    }
    this.#isWaiting = false;
    const writes = session.takeTracked().map((promise) => ({ start: 0, end: own.length, promise }));
    session.reply = server.reply;
    if (session.isMuffled) {
      own.truncate(0);
      for (const { promise } of writes.splice(0)) promise.catch(() => undefined);
    }
    session.nextReply();
    if (own.length > 0) this.#queue.push(own.take(), writes);
    this.#pushAsides();
    this.#run();
  }

  #park(wait: (resume: () => void) => void): void {
    this.#isParked = true;
    wait(() => {
      this.#isParked = false;
      if (!this.#isWaiting) this.#run();
    });
  }

  #send(bytes: Buffer): void {
    if (this.#isClosed || bytes.length === 0) return;
    this.server.counts.outputBytes += bytes.length;
    if (this.#outgoing.push(bytes) === 1) this.server.flushLater(this);
    this.#outgoingBytes += bytes.length;
    if (this.#outgoingBytes > BLOCK_BYTES) this.flush();
    if (this.#isRunning) return;
    this.#finishIfOver();
    this.#resume();
  }

  /** Gives the socket what has been collected for it in this round of the event loop. */
  flush(): void {
    const outgoing = this.#outgoing;
    if (outgoing.length === 0) return;
    this.#outgoing = [];
    this.#outgoingBytes = 0;
    if (this.#isClosed) return;
    if (outgoing.length === 1) {
      this.socket.write(outgoing[0]);
      return;
    }
    this.socket.cork();
    for (const bytes of outgoing) this.socket.write(bytes);
    this.socket.uncork();
  }

  /** Reads on, or not, by how much is under way. */
  #throttle(): void {
    const isBusy = this.#isWaiting || this.#isParked || this.outputBytes > OUTPUT_HIGH_BYTES;
    if (isBusy && !this.#isPaused && this.parser.pendingBytes > 0) {
      this.#isPaused = true;
      this.socket.pause();
    } else if (!isBusy && this.#isPaused) {
      this.#isPaused = false;
      this.socket.resume();
    }
  }

  #resume(): void {
    if (this.#isWaiting || this.#isParked || this.outputBytes > OUTPUT_LOW_BYTES) return;
    if (!this.#isDry || this.#isPaused) this.#run();
  }

  deliver(bytes: Buffer): void {
    if (this.#isClosed || this.#isEnding) return;
    if (this.#isRunning || this.#isWaiting) {
      this.#asides.push(bytes);
      this.#asideBytes += bytes.length;
    } else this.#queue.push(bytes, []);
    if (this.outputBytes > this.server.options.outputBytesMax) {
      this.server.log.warn({ client: this.address, bytes: this.outputBytes }, 'closing a client that does not read its messages');
      this.kill();
    }
  }

  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    // From now on it has so long to take the next piece of what it is still owed.
    this.socket.setTimeout(LINGER_MS);
    if (this.#isRunning) {
      // Its own command ends it: what follows that is not run.
      this.parser.discard();
      return;
    }
    if (!this.#isWaiting) this.#run();
  }

  #finish(): void {
    if (this.#isClosed || this.#isFinished) return;
    this.#isFinished = true;
    this.flush();
    this.socket.end();
    this.socket.setTimeout(LINGER_MS);
  }

  kill(): void {
    this.#isEnding = true;
    // What came in the same piece must not run either.
    this.parser.discard();
    this.flush();
    this.socket.destroy();
  }

  #closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isEnding = true;
    this.parser.discard();
    for (const promise of this.session.takeTracked()) promise.catch(() => undefined);
    this.server.forget(this);
  }
}

function addressOf(host: string | undefined, port: number | undefined): string {
  if (host === undefined) return 'unknown:0';
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
