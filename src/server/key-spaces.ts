/**
 * The databases that SELECT chooses, 0 to 15, in one store.
 *
 * Database 0 is the store's own keys: what a program calls `user:1` is `user:1` here. Database n is the sublevel `db<n>`: its keys begin with `!db<n>!`. A
 * key of database 0 that begins like that is refused.
 */

import type { FlashVector } from '../index.js';
import { CommandError } from './protocol-error.js';
import { fromBytes, latin1 } from './values.js';

export const DATABASES = 16;
const KEY_BYTES_MAX = 65_535;
const BANG = 0x21;
const RESERVED = /^!db(?:[1-9]|1[0-5])!/;
const PREFIXES = Array.from({ length: DATABASES }, (_, n) => (n === 0 ? '' : `!db${n}!`));

/** Before the keys of a database. */
export function prefixOf(database: number): string {
  return PREFIXES[database];
}

/** Whether a key of the store is not one of database 0. */
function isOfNumbered(key: string | Uint8Array): boolean {
  if (typeof key === 'string') return key.charCodeAt(0) === BANG && RESERVED.test(key);
  return key[0] === BANG && RESERVED.test(latin1(Buffer.from(key.buffer, key.byteOffset, Math.min(key.length, 8))));
}

/** The prefix of the numbered database that a key of the store belongs to, if it does to one. */
export function numberedPrefixOf(key: string | Uint8Array): string | undefined {
  return isOfNumbered(key)
    ? PREFIXES[Number(/\d+/.exec(typeof key === 'string' ? key : latin1(Buffer.from(key.buffer, key.byteOffset, 8)))?.[0])]
    : undefined;
}

/** Whether a key of the store is one of a database. */
export function isOf(database: number, key: Buffer): boolean {
  return database === 0 ? !isOfNumbered(key) : key.subarray(0, PREFIXES[database].length).equals(Buffer.from(PREFIXES[database]));
}

/** The store's key for one of a database. @throws CommandError */
export function storeKey(database: number, key: Buffer): string | Uint8Array {
  const own = fromBytes(key);
  if (key.length === 0 || key.length + PREFIXES[database].length > KEY_BYTES_MAX)
    throw new CommandError(`ERR a key has 1 to ${KEY_BYTES_MAX - PREFIXES[database].length} bytes`);
  if (database === 0) {
    if (key[0] === BANG && isOfNumbered(own))
      throw new CommandError(`ERR keys that begin with '!db1!' to '!db15!' belong to other databases`);
    return own;
  }
  return typeof own === 'string' ? PREFIXES[database] + own : Buffer.concat([Buffer.from(PREFIXES[database]), own]);
}

/** The same, for looking up only: strings and their bytes are the same key, and bytes are at hand. @throws CommandError */
export function lookUpKey(database: number, key: Buffer): string | Uint8Array {
  return database === 0 && key.length !== 0 && key.length <= KEY_BYTES_MAX && key[0] !== BANG ? key : storeKey(database, key);
}

/** The bytes of a key of a database, from the store's key. */
export function ownKey(database: number, key: string | Uint8Array): Buffer {
  const bytes = typeof key === 'string' ? Buffer.from(key) : Buffer.from(key.buffer, key.byteOffset, key.byteLength);
  return database === 0 ? bytes : bytes.subarray(PREFIXES[database].length);
}

/** Number of keys of a database. Those of database 0 are those that are in no other. Cost: some 100 ns a key of the numbered ones. */
export function countKeys(db: FlashVector, database: number): number {
  if (database !== 0) return db.count({ prefix: PREFIXES[database] });
  let count = db.size;
  for (let n = 1; n < DATABASES; n++) count -= db.count({ prefix: PREFIXES[n] });
  return Math.max(0, count);
}
