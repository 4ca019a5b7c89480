/**
 * Log sequence numbers: a `number` in the API, two 32-bit words in memory and on disk.
 *
 * An LSN stays below 2^53: at ten million records a second that is 28 years of writing.
 */

const WORD = 0x1_0000_0000;

export function lsnFrom(low: number, high: number): number {
  return (high >>> 0) * WORD + (low >>> 0);
}

export function lsnLow(lsn: number): number {
  return lsn | 0;
}

export function lsnHigh(lsn: number): number {
  return Math.floor(lsn / WORD) | 0;
}

/**
 * True when the progress word `reached` (the low word of an LSN) is at or past `lsn`.
 * Compares low words as a circle: right as long as the two are less than 2^31 records apart, and
 * the ring bounds that distance to far less.
 */
export function lsnReached(reached: number, lsn: number): boolean {
  return ((reached - lsn) | 0) >= 0;
}
