/**
 * Replies in RESP2 or RESP3, one behind the other in a buffer that grows.
 *
 * What RESP2 does not know is written as the nearest that it knows, as Redis does: maps and sets as arrays, doubles and verbatim
 * strings as bulk strings, booleans as 0 and 1.
 */

const START_BYTES = 64 * 1024;
/** A buffer that has grown past this is let go after use. */
const KEPT_BYTES_MAX = 1024 * 1024;
const CRLF_BYTES = 2;
/** Longest head of a reply: type, 20 digits, line end. */
const HEAD_BYTES_MAX = 24;
const OK = Buffer.from('+OK\r\n');
const NIL_2 = Buffer.from('$-1\r\n');
const NIL_ARRAY_2 = Buffer.from('*-1\r\n');
const NIL_3 = Buffer.from('_\r\n');

export class ReplyWriter {
  /** 2 or 3. */
  protocol = 2;
  #buffer: Buffer;
  #at = 0;

  constructor(bytes = START_BYTES) {
    this.#buffer = Buffer.allocUnsafeSlow(bytes);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#at;
  }

  /** Takes back what was written from `length` on. */
  truncate(length: number): void {
    if (length < this.#at) this.#at = length;
  }

  /** A copy of what was written; the writer is empty then. */
  take(): Buffer {
    const bytes = Buffer.allocUnsafe(this.#at);
    this.#buffer.copy(bytes, 0, 0, this.#at);
    this.#at = 0;
    if (this.#buffer.length > KEPT_BYTES_MAX) this.#buffer = Buffer.allocUnsafeSlow(START_BYTES);
    return bytes;
  }

  /** Replies that are complete already. */
  raw(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  ok(): void {
    this.raw(OK);
  }

  /** A status of one line. */
  status(text: string): void {
    this.#line('+', text);
  }

  /** @param text with its code: `ERR no such key`; a character a byte, as what it cites of a command came */
  error(text: string): void {
    this.#room(text.length + HEAD_BYTES_MAX);
    this.#buffer[this.#at++] = 0x2d;
    this.#at += this.#buffer.latin1Write(text.replace(/[\r\n]/g, ' '), this.#at, text.length);
    this.#end();
  }

  integer(value: number | bigint): void {
    this.#line(':', String(value));
  }

  /** A binary safe string. */
  bulk(bytes: Uint8Array): void {
    this.#room(HEAD_BYTES_MAX + bytes.length + CRLF_BYTES);
    this.#head(0x24, bytes.length);
    if (bytes.length < 32) for (let i = 0; i < bytes.length; i++) this.#buffer[this.#at + i] = bytes[i];
    else this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
    this.#end();
  }

  /** The same from a string, in UTF-8. */
  text(text: string): void {
    const { length } = text;
    this.#room(HEAD_BYTES_MAX + length * 3 + CRLF_BYTES);
    const start = this.#at;
    this.#head(0x24, length);
    const written = this.#buffer.utf8Write(text, this.#at, length * 3);
    if (written !== length) {
      // Not ASCII: the length is known only now.
      this.#at = start;
      this.#head(0x24, written);
      this.#buffer.utf8Write(text, this.#at, written);
    }
    this.#at += written;
    this.#end();
  }

  /** A value, or nil. */
  textOrNil(text: string | undefined): void {
    if (text === undefined) this.nil();
    else this.text(text);
  }

  /** No value. */
  nil(): void {
    this.raw(this.protocol === 3 ? NIL_3 : NIL_2);
  }

  /** No array. */
  nilArray(): void {
    this.raw(this.protocol === 3 ? NIL_3 : NIL_ARRAY_2);
  }

  /** The head of an array; its elements follow. */
  array(count: number): void {
    this.#header(0x2a, count);
  }

  /** The head of a map; `count` keys and values follow in turn. */
  map(count: number): void {
    if (this.protocol === 3) this.#header(0x25, count);
    else this.#header(0x2a, count * 2);
  }

  set(count: number): void {
    this.#header(this.protocol === 3 ? 0x7e : 0x2a, count);
  }

  /** The head of a message that nobody has asked for. */
  push(count: number): void {
    this.#header(this.protocol === 3 ? 0x3e : 0x2a, count);
  }

  double(text: string): void {
    if (this.protocol === 3) this.#line(',', text);
    else this.text(text);
  }

  boolean(value: boolean): void {
    if (this.protocol === 3) this.raw(Buffer.from(value ? '#t\r\n' : '#f\r\n'));
    else this.integer(value ? 1 : 0);
  }

  /** Text for people. */
  verbatim(text: string): void {
    if (this.protocol !== 3) {
      this.text(text);
      return;
    }
    this.#line('=', String(Buffer.byteLength(text) + 4));
    this.#line('txt:', text);
  }

  #line(type: string, text: string): void {
    // A character of a string takes 3 bytes at most.
    this.#room(type.length + text.length * 3 + CRLF_BYTES);
    this.#at += this.#buffer.latin1Write(type, this.#at, type.length);
    this.#at += this.#buffer.utf8Write(text, this.#at, text.length * 3);
    this.#end();
  }

  #header(type: number, count: number): void {
    this.#room(HEAD_BYTES_MAX);
    this.#head(type, count);
  }

  #head(type: number, count: number): void {
    const buffer = this.#buffer;
    buffer[this.#at++] = type;
    if (count < 10) {
      buffer[this.#at++] = 48 + count;
    } else if (count < 100) {
      buffer[this.#at++] = 48 + ((count / 10) | 0);
      buffer[this.#at++] = 48 + (count % 10);
    } else {
      const digits = String(count);
      this.#at += buffer.latin1Write(digits, this.#at, digits.length);
    }
    this.#end();
  }

  #end(): void {
    this.#buffer[this.#at++] = 13;
    this.#buffer[this.#at++] = 10;
  }

  #room(bytes: number): void {
    const needed = this.#at + bytes;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.#at);
    this.#buffer = grown;
  }
}
