/**
 * Cursors of SCAN: numbers that stand for the last key that was seen. A key that is there from the beginning of a scan to its end is met once.
 * The server keeps those given out last; one that has been forgotten is refused, so that a scan never skips keys silently.
 */

import { CommandError } from './protocol-error.js';

const CURSORS_MAX = 65_536;
const BYTES_MAX = 16 * 1024 * 1024;

export class ScanCursors {
  readonly #keys = new Map<string, Buffer>();
  #next = 1;
  #bytes = 0;

  /** @returns the cursor that goes on behind `key` */
  keep(key: Buffer): string {
    const cursor = String(this.#next++);
    this.#keys.set(cursor, Buffer.from(key));
    this.#bytes += key.length;
    for (const [oldest, kept] of this.#keys) {
      if (this.#keys.size <= CURSORS_MAX && this.#bytes <= BYTES_MAX) break;
      this.#keys.delete(oldest);
      this.#bytes -= kept.length;
    }
    return cursor;
  }

  /** @throws CommandError */
  find(cursor: string): Buffer {
    const key = this.#keys.get(cursor);
    if (key === undefined) throw new CommandError('ERR the cursor is unknown, or too old: begin again with 0');
    return key;
  }
}
