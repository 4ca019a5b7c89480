/**
 * The key encoding `ordered`: numbers, strings, booleans, dates, null and arrays of these as bytes that order as the values do, by
 * the package ordered-binary. Order of kinds: null, booleans, numbers, strings; arrays element by element.
 *
 * What the package encodes and does not give back as it was is refused here: byte arrays, arrays of less than two elements, arrays in arrays, bigints.
 */

import { fromBufferKey, writeKey } from 'ordered-binary';
import { FlashVectorError, describe } from '../base/errors.js';
import { KEY_BYTES_MAX } from '../base/record.js';

type OrderedKeyPart = string | number | boolean | null | Date;
/** What a key may be where `keyEncoding` is `'ordered'`. A date is kept, and comes back, as its milliseconds since 1970. */
export type OrderedKey = OrderedKeyPart | readonly OrderedKeyPart[];

const ALLOWED = 'numbers, strings, booleans, dates and null, or an array of two or more of these';

function partOf(part: unknown, key: unknown): string | number | boolean | null {
  if (part === null || typeof part === 'string' || typeof part === 'boolean') return part;
  if (typeof part === 'number' && !Number.isNaN(part)) return Object.is(part, -0) ? 0 : part;
  if (part instanceof Date && !Number.isNaN(part.getTime())) return part.getTime();
  const where = part === key ? '' : ` in ${describe(key)}`;
  throw new FlashVectorError('FV_KEY', `an ordered key is one of ${ALLOWED}, not ${describe(part)}${where}`);
}

/** @throws FlashVectorError FV_KEY for what has no place in the order */
export function encodeOrderedKey(key: unknown): Uint8Array {
  if (!Array.isArray(key)) return encode(partOf(key, key), key);
  if (key.length < 2) throw new FlashVectorError('FV_KEY', `an ordered key is one of ${ALLOWED}; this array has ${key.length}`);
  // `from` instead of `map`: a hole is looked at, too.
  const parts = Array.from(key, (part: unknown) => partOf(part, key));
  if (parts.length > 2 && parts[parts.length - 1] === null)
    throw new FlashVectorError(
      'FV_KEY',
      `an ordered key of three or more elements cannot end in null: it would come back with an empty string there`,
    );
  return encode(parts, key);
}

/** A multiple of four long, which the package expects. */
const target = Buffer.alloc(KEY_BYTES_MAX + 65);

/** @param key as it was given, for messages */
function encode(parts: string | number | boolean | null | (string | number | boolean | null)[], key: unknown): Uint8Array {
  let end: number;
  try {
    end = writeKey(parts, target, 0);
  } catch (error) {
    throw new FlashVectorError('FV_KEY', `a key has at most ${KEY_BYTES_MAX} bytes; this one has more: ${describe(key)}`, { cause: error });
  }
  if (end > KEY_BYTES_MAX)
    throw new FlashVectorError('FV_KEY', `a key has at most ${KEY_BYTES_MAX} bytes; this one has ${end}: ${describe(key)}`);
  return Uint8Array.prototype.slice.call(target, 0, end);
}

/** The bytes with which all keys begin that are arrays with these first elements; for a string, strings that begin with it, and arrays whose first element does. */
export function encodeOrderedPrefix(prefix: unknown): Uint8Array {
  if (typeof prefix === 'string' && prefix !== '') return encode(prefix, prefix);
  if (!Array.isArray(prefix) || prefix.length === 0)
    throw new FlashVectorError(
      'FV_KEY',
      `a prefix of ordered keys is a string, or an array of the first elements, not ${describe(prefix)}`,
    );
  const parts = Array.from(prefix, (part: unknown) => partOf(part, prefix));
  // Numbers take another form inside arrays: the last element must not be the last of the array.
  const whole = encode([...parts, null], prefix);
  return whole.subarray(0, whole.length - 1);
}

export function decodeOrderedKey(bytes: Uint8Array): OrderedKey {
  return fromBufferKey(Buffer.from(bytes)) as OrderedKey;
}
