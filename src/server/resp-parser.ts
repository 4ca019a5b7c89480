/**
 * Commands out of a stream of RESP: arrays of bulk strings, or lines of words (inline commands).
 *
 * It goes on where it stopped, so a command that comes in many pieces is looked at once; what is known to be incomplete is kept in
 * pieces and put together once. Arguments are views of the chunks that they came in: who keeps one keeps its chunk.
 *
 * Limits and the wording of errors are those of Redis 7.
 */

import { ProtocolError } from './protocol-error.js';

const LINE_BYTES_MAX = 64 * 1024;
const CR = 13;
const LF = 10;
const STAR = 0x2a;
const DOLLAR = 0x24;
const MINUS = 0x2d;
const NONE = Buffer.alloc(0);
/** Names longer than this are of no command. */
const NAME_BYTES_MAX = 32;
/** What may come from who has not said the password. */
const STRANGER_ARGUMENTS_MAX = 10;
const STRANGER_BULK_BYTES_MAX = 16_384;
/** A number that is none; and one whose line has not come to its end. */
const BAD = -Infinity;
const PARTIAL = Infinity;

export interface ParserLimits {
  /** Arguments of a command. */
  argumentsMax: number;
  /** Bytes of one argument. */
  bulkBytesMax: number;
}

export class RespParser {
  /** A stranger's commands are short. */
  isTrusted = false;
  #buffer: Buffer = NONE;
  #at = 0;
  /** Chunks behind `#buffer`, and their bytes. */
  #chunks: Buffer[] = [];
  #chunkBytes = 0;
  /** Bytes from `#at` on without which nothing can go on. */
  #needed = 0;
  #args: Buffer[] = [];
  /** The name of the last command. */
  #lastName = Buffer.alloc(0);
  /** Arguments still to come of the command under way. */
  #left = 0;
  /** Length of the argument under way, or -1 before it is known. */
  #bulk = -1;

  constructor(readonly limits: ParserLimits) {}

  /** Bytes that are kept: of commands that are not complete, or that nobody has asked for. */
  get pendingBytes(): number {
    return this.#buffer.length - this.#at + this.#chunkBytes;
  }

  /** Forgets everything that has come. */
  discard(): void {
    this.#buffer = NONE;
    this.#at = 0;
    this.#chunks = [];
    this.#chunkBytes = 0;
    this.#needed = 0;
    this.#left = 0;
    this.#bulk = -1;
    this.#args = [];
  }

  push(chunk: Buffer): void {
    if (this.#at === this.#buffer.length && this.#chunkBytes === 0) {
      this.#buffer = chunk;
      this.#at = 0;
      this.#needed = 0;
      return;
    }
    this.#chunks.push(chunk);
    this.#chunkBytes += chunk.length;
  }

  /** The next command, never empty, or `undefined` until more has come. @throws ProtocolError: the stream makes no sense any more */
  next(): Buffer[] | undefined {
    for (;;) {
      if (this.#chunkBytes > 0 && !this.#gather()) return undefined;
      if (this.#left === 0) {
        if (this.#at === this.#buffer.length) return undefined;
        if (this.#buffer[this.#at] !== STAR) {
          const words = this.#inline();
          if (words === undefined && this.#chunkBytes > 0) continue;
          if (words === undefined) return undefined;
          if (words.length === 0) continue;
          return words;
        }
        const count = this.#number('too big mbulk count string');
        if (count === PARTIAL) return undefined;
        if (count === BAD || count > this.limits.argumentsMax) throw new ProtocolError('invalid multibulk length');
        if (!this.isTrusted && count > STRANGER_ARGUMENTS_MAX) throw new ProtocolError('unauthenticated multibulk length');
        if (count <= 0) continue;
        this.#left = count;
        this.#args = [];
      }
      if (!this.#arguments()) {
        if (this.#chunkBytes > 0) continue;
        return undefined;
      }
      return this.#args;
    }
  }

  /** @returns false until the command is complete */
  #arguments(): boolean {
    while (this.#left > 0) {
      if (this.#bulk < 0) {
        if (this.#at === this.#buffer.length) return false;
        const type = this.#buffer[this.#at];
        if (type !== DOLLAR) throw new ProtocolError(`expected '$', got '${printable(type)}'`);
        const length = this.#number('too big bulk count string');
        if (length === PARTIAL) return false;
        if (length < 0 || length > this.limits.bulkBytesMax) throw new ProtocolError('invalid bulk length');
        if (!this.isTrusted && length > STRANGER_BULK_BYTES_MAX) throw new ProtocolError('unauthenticated bulk length');
        this.#bulk = length;
      }
      const end = this.#at + this.#bulk;
      if (end + 2 > this.#buffer.length) {
        this.#needed = this.#bulk + 2;
        return false;
      }
      this.#args.push(this.#args.length === 0 ? this.#name(end) : this.#buffer.subarray(this.#at, end));
      this.#at = end + 2;
      this.#bulk = -1;
      this.#left--;
    }
    return true;
  }

  /** The command's name. Most often it is the one before, and then it is the same object: nothing is made, and the table need not be asked. */
  #name(end: number): Buffer {
    const buffer = this.#buffer;
    const last = this.#lastName;
    const length = end - this.#at;
    if (length === last.length) {
      let i = 0;
      while (i < length && buffer[this.#at + i] === last[i]) i++;
      if (i === length) return last;
    }
    const name = buffer.subarray(this.#at, end);
    // A copy, so that no chunk is kept for it.
    if (length > NAME_BYTES_MAX) return name;
    this.#lastName = Buffer.from(name);
    return this.#lastName;
  }

  /** Puts the pieces together, if what is needed is there. */
  #gather(): boolean {
    const rest = this.#buffer.length - this.#at;
    if (rest + this.#chunkBytes < this.#needed) return false;
    this.#buffer = Buffer.concat([this.#buffer.subarray(this.#at), ...this.#chunks], rest + this.#chunkBytes);
    this.#at = 0;
    this.#chunks = [];
    this.#chunkBytes = 0;
    this.#needed = 0;
    return true;
  }

  /** The number behind the type at the beginning of a line, and goes on behind the line. */
  #number(tooLong: string): number {
    const buffer = this.#buffer;
    let at = this.#at + 1;
    let value = 0;
    let digits = 0;
    const isNegative = buffer[at] === MINUS;
    if (isNegative) at++;
    for (; at < buffer.length; at++, digits++) {
      const digit = buffer[at] - 48;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    if (at + 1 >= buffer.length) {
      if (buffer.length - this.#at > LINE_BYTES_MAX) throw new ProtocolError(tooLong);
      // Digits, or a CR, so far. More of them than a number has need not be waited for.
      return digits > 20 || (at < buffer.length && buffer[at] !== CR) ? this.#badLine(tooLong) : PARTIAL;
    }
    if (buffer[at] !== CR || digits === 0 || digits > 20) return this.#badLine(tooLong);
    this.#at = at + 2;
    return isNegative ? -value : value;
  }

  /** A line that holds no number is an error once its end is there. */
  #badLine(tooLong: string): number {
    if (this.#buffer.indexOf(CR, this.#at) >= 0) return BAD;
    if (this.#buffer.length - this.#at > LINE_BYTES_MAX) throw new ProtocolError(tooLong);
    return PARTIAL;
  }

  #inline(): Buffer[] | undefined {
    const end = this.#buffer.indexOf(LF, this.#at);
    if (end < 0 || end - this.#at > LINE_BYTES_MAX) {
      if (end >= 0 || this.#buffer.length - this.#at > LINE_BYTES_MAX) throw new ProtocolError('too big inline request');
      return undefined;
    }
    const line = this.#buffer.subarray(this.#at, end > this.#at && this.#buffer[end - 1] === CR ? end - 1 : end);
    this.#at = end + 1;
    const words = splitWords(line);
    if (words === undefined) throw new ProtocolError('unbalanced quotes in request');
    return words;
  }
}

function printable(byte: number): string {
  return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '?';
}

const ESCAPES: Record<string, number> = { n: 10, r: 13, t: 9, b: 8, a: 7 };

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 9 && byte <= 13) || byte === 0;
}

/** Words of a line, with quotes as in Redis: "\x41\n" and 'it\'s'. @returns `undefined` for quotes that do not close */
function splitWords(line: Buffer): Buffer[] | undefined {
  const words: Buffer[] = [];
  let at = 0;
  for (;;) {
    while (at < line.length && isSpace(line[at])) at++;
    if (at === line.length) return words;
    const word: number[] = [];
    let quote = 0;
    for (; ; at++) {
      if (at === line.length) {
        if (quote !== 0) return undefined;
        break;
      }
      const byte = line[at];
      if (quote === 0) {
        if (isSpace(byte)) break;
        if (byte === 0x22 || byte === 0x27) quote = byte;
        else word.push(byte);
        continue;
      }
      if (byte === 0x5c && quote === 0x22) {
        const hex = line.toString('latin1', at + 2, at + 4);
        if (line[at + 1] === 0x78 && /^[0-9a-fA-F]{2}$/.test(hex)) {
          word.push(Number.parseInt(hex, 16));
          at += 3;
        } else if (at + 1 < line.length) {
          at++;
          word.push(ESCAPES[String.fromCharCode(line[at])] ?? line[at]);
        } else {
          return undefined;
        }
      } else if (byte === 0x5c && line[at + 1] === 0x27) {
        word.push(0x27);
        at++;
      } else if (byte === quote) {
        // A closing quote ends the word.
        if (at + 1 < line.length && !isSpace(line[at + 1])) return undefined;
        quote = 0;
      } else {
        word.push(byte);
      }
    }
    words.push(Buffer.from(word));
  }
}
