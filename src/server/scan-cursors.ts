/**
 * Cursors of SCAN: numbers that stand for the last key that was seen. A key that is there from the beginning of a scan to its end is met once.
 * The server keeps those given out last; one that has been forgotten is refused, so that a scan never skips keys silently.
 */

import { CommandError } from './protocol-error.js';

const CURSORS_MAX = 65_536;

export class ScanCursors {
  readonly #keys = new Map<string, Buffer>();
  #next = 1;

  /** @returns the cursor that goes on behind `key` */
  keep(key: Buffer): string {
    const cursor = String(this.#next++);
    this.#keys.set(cursor, Buffer.from(key));
    if (this.#keys.size > CURSORS_MAX) {
      const [oldest] = this.#keys.keys();
      this.#keys.delete(oldest);
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
