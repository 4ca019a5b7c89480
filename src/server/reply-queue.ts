/**
 * Replies of one connection on their way out, in order. A block of replies waits until the writes among them are durable; a write that fails
 * has its reply replaced by the error.
 *
 * Blocks that wait for the same promise are served by one callback: writes of one turn of the event loop share theirs.
 */

import { errorReply } from './error-reply.js';

/** Where the reply of a write lies in its block. */
interface WriteReply {
  start: number;
  end: number;
  promise: Promise<unknown>;
}

export class Block {
  /** Promises that have not settled. */
  waitsFor = 0;
  #failures: { start: number; end: number; error: Buffer }[] = [];

  constructor(
    public bytes: Buffer,
    readonly writes: readonly WriteReply[],
    readonly queue: ReplyQueue,
  ) {}

  fail(promise: Promise<unknown>, error: unknown): void {
    const text = Buffer.from(`-${errorReply(error)}\r\n`, 'latin1');
    for (const write of this.writes) {
      if (write.promise === promise) this.#failures.push({ start: write.start, end: write.end, error: text });
    }
  }

  /** The bytes to be sent. */
  finish(): Buffer {
    if (this.#failures.length === 0) return this.bytes;
    const parts: Buffer[] = [];
    let at = 0;
    // A command with several writes that failed gets one error.
    for (const { start, end, error } of this.#failures.sort((a, b) => a.start - b.start)) {
      if (start < at) continue;
      parts.push(this.bytes.subarray(at, start), error);
      at = end;
    }
    parts.push(this.bytes.subarray(at));
    return Buffer.concat(parts);
  }
}

/** Blocks by the promise that they wait for: one for the whole server. */
export class BlockWaits {
  #last: Promise<unknown> | undefined;
  #lastBlocks: Block[] = [];

  /** Lets `block` wait for all the promises of its writes. */
  add(block: Block): void {
    let before: Promise<unknown> | undefined;
    for (const { promise } of block.writes) {
      if (promise === before) continue;
      before = promise;
      block.waitsFor++;
      if (promise === this.#last) {
        this.#lastBlocks.push(block);
        continue;
      }
      const blocks = [block];
      this.#last = promise;
      this.#lastBlocks = blocks;
      promise.then(
        () => {
          if (promise === this.#last) this.#last = undefined;
          for (const waiting of blocks) waiting.queue.settled(waiting);
        },
        (error: unknown) => {
          if (promise === this.#last) this.#last = undefined;
          for (const waiting of blocks) {
            waiting.fail(promise, error);
            waiting.queue.settled(waiting);
          }
        },
      );
    }
  }
}

export class ReplyQueue {
  #blocks: Block[] = [];
  #next = 0;
  /** Bytes of blocks that are not sent yet. */
  bytes = 0;

  /** @param send gets the replies in order, each block once it may go */
  constructor(
    readonly waits: BlockWaits,
    readonly send: (bytes: Buffer) => void,
  ) {}

  get isEmpty(): boolean {
    return this.#next === this.#blocks.length;
  }

  /** @param writes the replies that have to wait, in order */
  push(bytes: Buffer, writes: readonly WriteReply[]): void {
    if (writes.length === 0 && this.isEmpty) {
      this.send(bytes);
      return;
    }
    const block = new Block(bytes, writes, this);
    this.#blocks.push(block);
    this.bytes += bytes.length;
    this.waits.add(block);
  }

  settled(block: Block): void {
    block.waitsFor--;
    while (this.#next < this.#blocks.length && this.#blocks[this.#next].waitsFor === 0) {
      const first = this.#blocks[this.#next++];
      this.bytes -= first.bytes.length;
      this.send(first.finish());
    }
    if (this.#next === this.#blocks.length) {
      this.#blocks = [];
      this.#next = 0;
    } else if (this.#next > 64) {
      this.#blocks = this.#blocks.slice(this.#next);
      this.#next = 0;
    }
  }
}
