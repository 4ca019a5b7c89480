/**
 * The record: one atomic write, as it lies in the ring and, byte for byte, in the log.
 *
 *     word 0   length of the record in bytes, header included, a multiple of 8
 *     word 1   bits 0-3 state, bits 4-7 durability wanted, bits 8-15 kind, bits 16-31 zero
 *     word 2   LSN, low word
 *     word 3   LSN, high word
 *     word 4+  the body
 *
 * The body of a `WRITE` record is a sequence of operations:
 *
 *     word 0   bits 0-15 key length, bits 16-20 value type, bits 21-23 entry flags, bits 24-31 operation
 *     word 1   value length in bytes
 *     key bytes, padded with zeros to 4; value bytes, padded with zeros to 4
 *
 * padded with zeros to 8. A `STRUCTURE` record defines one msgpackr record structure: word 0 the
 * structure's number, word 1 the length of the JSON array of field names that follows.
 *
 * Word 0 of an operation is also word 0 of an entry (its operation bits become the size class), and
 * key and value follow each other the same way in both: one word-wise copy serves ring and table.
 */

export const RECORD_HEADER_WORDS = 4;
export const RECORD_HEADER_BYTES = 16;
export const OPERATION_HEADER_WORDS = 2;

export const RECORD_LENGTH = 0;
export const RECORD_STATE = 1;
export const RECORD_LSN_LOW = 2;
export const RECORD_LSN_HIGH = 3;

/** States of a record in the ring. Only `PUBLISHED` records reach the disk. */
export const STATE_MASK = 0xf;
export const STATE_RESERVED = 0;
export const STATE_PUBLISHED = 1;

export const DURABILITY_SHIFT = 4;
export const DURABILITY_MASK = 0xf;
export const DURABILITY_MEMORY = 0;
export const DURABILITY_INTERVAL = 1;
export const DURABILITY_SYNC = 2;

export const KIND_SHIFT = 8;
export const KIND_MASK = 0xff;
/** Fills the end of the ring where the next record did not fit; has no LSN and is never logged. */
export const KIND_PAD = 0;
export const KIND_WRITE = 1;
export const KIND_STRUCTURE = 2;
/** An LSN whose writer died before publishing; keeps the sequence whole. Its body is ignored. */
export const KIND_SKIP = 3;
/**
 * In the ring only: the record itself lies in the staging region, at the unit (of 8 bytes) in word 4; word 5 is its
 * length in units. The log takes the record from there.
 */
export const KIND_STAGED = 4;

export const OPERATION_SHIFT = 24;
export const OPERATION_PUT = 1;
export const OPERATION_DELETE = 2;

export const KEY_LENGTH_MASK = 0xffff;
export const VALUE_TYPE_SHIFT = 16;
export const VALUE_TYPE_MASK = 0x1f;
export const ENTRY_FLAGS_SHIFT = 21;
export const ENTRY_FLAGS_MASK = 0x7;
/** The key was given as a `Uint8Array` and is handed out as one. */
export const ENTRY_FLAG_BINARY_KEY = 1;
/** The value begins with 8 bytes that say when it expires; see table/entry.ts. */
export const ENTRY_FLAG_EXPIRES = 2;
export const EXPIRY_BYTES = 8;
/** The key is not in the store's own encoding: a sublevel's. Outside of the sublevel it is handed out as bytes. */
export const ENTRY_FLAG_FOREIGN_KEY = 4;
/** Flags that say how the key is to be shown. */
export const KEY_FLAGS_MASK = ENTRY_FLAG_BINARY_KEY | ENTRY_FLAG_FOREIGN_KEY;
export const ENTRY_FLAGS_KNOWN = ENTRY_FLAG_BINARY_KEY | ENTRY_FLAG_EXPIRES | ENTRY_FLAG_FOREIGN_KEY;

/** Body of a `STAGED` record. */
export const STAGED_UNIT = 4;
export const STAGED_UNITS = 5;
export const STAGED_BODY_WORDS = 2;

/** Longest key, in bytes. */
export const KEY_BYTES_MAX = 65_535;
/** Longest encoded value, in bytes. */
export const VALUE_BYTES_MAX = 1024 * 1024 * 1024;
/** Longest record: a frame's length is a u32 and both must stay well inside a staging region. */
export const RECORD_BYTES_MAX = 2 * 1024 * 1024 * 1024;

/** Words taken by `bytes` bytes padded to a word. */
export function wordsOf(bytes: number): number {
  return (bytes + 3) >>> 2;
}

/** Words of an operation with a key and a value of these lengths. */
export function operationWords(keyLength: number, valueLength: number): number {
  return OPERATION_HEADER_WORDS + wordsOf(keyLength) + wordsOf(valueLength);
}

/** Length in bytes of a record whose body has `bodyWords` words. */
export function recordBytes(bodyWords: number): number {
  return ((RECORD_HEADER_WORDS + bodyWords + 1) & ~1) * 4;
}

export function recordState(kind: number, durability: number, state: number): number {
  return (kind << KIND_SHIFT) | (durability << DURABILITY_SHIFT) | state;
}
