/** Putting a moment of expiry before the value in the scratch; see entry.ts for where it lies. */

import { ENTRY_FLAG_EXPIRES, EXPIRY_BYTES, OPERATION_HEADER_WORDS, wordsOf } from '../base/record.js';
import { INLINE_VALUE_BYTES_MAX, type Scratch } from './scratch.js';

/** @param expiresMs in ms since 1970; 0 changes nothing */
export function addExpiry(scratch: Scratch, expiresMs: number): void {
  if (expiresMs === 0) return;
  const { valueLength, valueBytes } = scratch;
  const start = (OPERATION_HEADER_WORDS + wordsOf(scratch.keyLength)) * 4;
  scratch.keyFlags |= ENTRY_FLAG_EXPIRES;
  scratch.valueLength = valueLength + EXPIRY_BYTES;
  if (scratch.valueLength > INLINE_VALUE_BYTES_MAX) {
    const whole = Buffer.allocUnsafeSlow(scratch.valueLength);
    whole.writeDoubleLE(expiresMs, 0);
    whole.set(valueBytes ?? scratch.bytes.subarray(start, start + valueLength), EXPIRY_BYTES);
    scratch.valueBytes = whole;
    return;
  }
  // Padding included: it stays zero.
  scratch.bytes.copyWithin(start + EXPIRY_BYTES, start, start + wordsOf(valueLength) * 4);
  scratch.floats.setFloat64(start, expiresMs, true);
}
