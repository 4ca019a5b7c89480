/**
 * Keys that sessions watch. A write through the server marks who watches its key, so that EXEC sees a change that has been undone since, too; changes by
 * the library are seen by the entry's version.
 */

import type { Session } from './session.js';

export class Watches {
  readonly #sessions = new Map<string, Set<Session>>();

  get isEmpty(): boolean {
    return this.#sessions.size === 0;
  }

  add(key: string | Uint8Array, session: Session): void {
    const id = idOf(key);
    const sessions = this.#sessions.get(id);
    if (sessions === undefined) this.#sessions.set(id, new Set([session]));
    else sessions.add(session);
  }

  remove(key: string | Uint8Array, session: Session): void {
    const id = idOf(key);
    const sessions = this.#sessions.get(id);
    if (sessions?.delete(session) === true && sessions.size === 0) this.#sessions.delete(id);
  }

  /** A key has been written or removed. */
  touch(key: string | Uint8Array): void {
    if (this.#sessions.size === 0) return;
    const sessions = this.#sessions.get(idOf(key));
    if (sessions !== undefined) for (const session of sessions) session.isDirty = true;
  }

  /** All keys watched. */
  *keys(): Generator<Buffer> {
    for (const id of this.#sessions.keys()) yield Buffer.from(id, 'latin1');
  }
}

function idOf(key: string | Uint8Array): string {
  return typeof key === 'string'
    ? Buffer.from(key).toString('latin1')
    : Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1');
}
