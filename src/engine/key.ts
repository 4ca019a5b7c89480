/** Keys and entries as the user sees them. */

import type { OrderedKey } from '../table/ordered-keys.js';

/** UTF-8 string or bytes, 1 to 65,535 bytes long. A string and its UTF-8 bytes are the same key. */
export type Key = string | Uint8Array;

/** What is taken for a key: in a store or a sublevel with `keyEncoding: 'ordered'` other kinds of values, too. */
export type AnyKey = Key | OrderedKey;

export interface Entry<V = unknown> {
  value: V;
  /** LSN of the write that made this value: the version for `ifVersion`. */
  lsn: number;
  /** When it expires, in ms since 1970; absent where it does not. */
  expiresAt?: number;
}

/** A key that stays as it is although the caller goes on to change what it gave. */
export function copyOfKey(key: AnyKey): AnyKey {
  if (key instanceof Uint8Array) return Uint8Array.prototype.slice.call(key);
  return Array.isArray(key) ? ([...key] as AnyKey) : key;
}
