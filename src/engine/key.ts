/** Keys and entries as the user sees them. */

/** UTF-8 string or bytes, 1 to 65,535 bytes long. A string and its UTF-8 bytes are the same key. */
export type Key = string | Uint8Array;

export interface Entry<V = unknown> {
  value: V;
  /** LSN of the write that made this value: the version for `ifVersion`. */
  lsn: number;
  /** When it expires, in ms since 1970; absent where it does not. */
  expiresAt?: number;
}
