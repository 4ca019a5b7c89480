/**
 * An entry: a key and its current value, in one block of a region.
 *
 *     word 0   bits 0-15 key length, 16-20 value type, 21-23 flags, 24-31 size class of the block
 *     word 1   value length in bytes
 *     word 2   LSN of the record that wrote the value, low word
 *     word 3   LSN, high word
 *     word 4   unit of the newest older version that an open snapshot needs, or 0
 *     word 5+  key bytes, padded with zeros to 4; value bytes, padded with zeros to 4
 *
 * Where the flag ENTRY_FLAG_EXPIRES is set the value's first 8 bytes are a double, little endian: the moment from which on the entry counts as absent,
 * in milliseconds since 1970.
 *
 * Invariants:
 * 1. An entry stays in its block while its key exists and its value fits the block.
 * 2. Words 0 to 4 and the bytes change only while the shard's version is odd, unless no slot of the
 *    hash table refers to the block.
 * 3. What an open snapshot needs is not overwritten: the new state takes another block, and the old one becomes a version behind it
 *    (versions.ts). The LSNs of a chain of versions fall.
 * 4. Entries larger than IN_PLACE_BYTES_MAX are never overwritten in place: their copy is made before the
 *    version turns odd, so that readers and writers of the shard wait for a pointer, not for a copy.
 */

import { VALUE_TYPE_MASK, VALUE_TYPE_SHIFT } from '../base/record.js';

export const ENTRY_HEADER_WORDS = 5;
export const ENTRY_HEADER_BYTES = 20;
export const ENTRY_VALUE_LENGTH = 1;
export const ENTRY_LSN_LOW = 2;
export const ENTRY_LSN_HIGH = 3;
export const ENTRY_OLDER = 4;

export const ENTRY_CLASS_SHIFT = 24;

export function isTombstone(words: Int32Array, entry: number): boolean {
  return ((words[entry] >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK) === TYPE_TOMBSTONE;
}

export const IN_PLACE_BYTES_MAX = 16_384;

/** How a value's bytes are to be read. Numbers are on disk; they never change meaning. */
export const TYPE_MSGPACK = 0;
/** String of characters below U+0080, one byte each. */
export const TYPE_ASCII = 1;
export const TYPE_UTF8 = 2;
/** String with lone surrogates, two bytes a code unit, little endian. */
export const TYPE_UTF16 = 3;
export const TYPE_UINT8_ARRAY = 4;
export const TYPE_BUFFER = 5;
/** 4 bytes, little endian. */
export const TYPE_INT32 = 6;
/** 8 bytes, little endian. */
export const TYPE_FLOAT64 = 7;
export const TYPE_NULL = 8;
export const TYPE_FALSE = 9;
export const TYPE_TRUE = 10;
/** As TYPE_MSGPACK, and all characters of all its strings are below U+0080. What may well be ASCII can have TYPE_MSGPACK all the same. */
export const TYPE_ASCII_MSGPACK = 11;
/**
 * In memory only: the key was deleted, and a snapshot still needs what was there before. An entry of this type has no value; it is
 * in the table and in the index, and nobody but older snapshots and the writer of its key takes notice of it.
 */
export const TYPE_TOMBSTONE = 31;
