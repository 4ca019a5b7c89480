/**
 * Fragments: what a leaf of the ordered index knows of each of its keys, 24 bits, so that most steps of a search compare numbers and touch no key.
 *
 * A fragment orders as the keys do, but not always strictly: equal fragments leave the keys themselves to decide. There are two kinds, and a leaf has one of them.
 * *Plain*: three bytes behind those that all keys of the leaf share. *Dense*: six of them, each in four bits, for keys that go on with digits or
 * lower-case hexadecimal ones: numbers, moments, identifiers. Three digits tell a thousand keys apart, six a million; a leaf of a hundred numbers out of many
 * has often several with the same three. Which kind a leaf has is only a matter of speed: both order any keys.
 *
 * A dense fragment ends at the first byte that is no hexadecimal digit. Such a byte lies between two digits, or before or behind all: it becomes the digit below
 * it, and the rest all ones; below '0' it becomes 0, and the rest zeros, as behind the end of a key.
 */

const DIGITS = 6;
const DIGIT_BITS = 4;
const DIGITS_WORTHWHILE = 4;
const ENDS_LOW = 16;
const ENDS_HIGH = 32;

/** The word of a leaf that says how many bytes are shared has this bit where its fragments are dense. */
const DENSE = 1 << 30;
const SHARED_MASK = 0xffff;

/** By byte: the digit, and whether the fragment ends there, with zeros or with ones. */
const DIGIT_OF = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte < 0x30) return ENDS_LOW;
  if (byte <= 0x39) return byte - 0x30;
  if (byte < 0x61) return 9 | ENDS_HIGH;
  if (byte <= 0x66) return byte - 0x61 + 10;
  return 15 | ENDS_HIGH;
});

/** Bytes shared by all keys of a leaf, of the word that says so. */
export function sharedOf(prefix: number): number {
  return prefix & SHARED_MASK;
}

/** The word for a leaf of keys like this one. @param start of the key in `bytes`; 0 <= shared <= 65,535 */
export function prefixFor(bytes: Uint8Array, start: number, length: number, shared: number): number {
  // With fewer digits a dense fragment tells no more than three bytes do.
  if (length < shared + DIGITS_WORTHWHILE) return shared;
  for (let i = shared; i < shared + DIGITS_WORTHWHILE; i++) if (DIGIT_OF[bytes[start + i]] >= ENDS_LOW) return shared;
  return shared | DENSE;
}

/** @param prefix the word of the leaf; it may be torn, then so is the result */
export function fragmentOf(bytes: Uint8Array, start: number, length: number, prefix: number): number {
  const skip = prefix & SHARED_MASK;
  return (prefix & DENSE) === 0 ? fragment3(bytes, start, length, skip) : denseFragment(bytes, start + skip, length - skip);
}

function denseFragment(bytes: Uint8Array, at: number, left: number): number {
  const count = left < DIGITS ? left : DIGITS;
  let fragment = 0;
  let shift = DIGITS * DIGIT_BITS;
  for (let i = 0; i < count; i++) {
    const digit = DIGIT_OF[bytes[at + i]];
    shift -= DIGIT_BITS;
    fragment |= (digit & 15) << shift;
    if (digit >= ENDS_LOW) return digit === ENDS_LOW ? fragment : fragment | ((1 << shift) - 1);
  }
  return fragment;
}

/** The same of eight bytes at hand, zeros behind the key's end, from byte `skip` on. @param skip 2 at most for a dense fragment, 5 for a plain one */
export function fragmentOfEight(high: number, low: number, skip: number, areDense: boolean): number {
  if (!areDense) {
    if (skip <= 1) return (high >>> (8 - skip * 8)) & 0xff_ffff;
    if (skip >= 4) return (low >>> (40 - skip * 8)) & 0xff_ffff;
    return ((high << (skip * 8 - 8)) | (low >>> (40 - skip * 8))) & 0xff_ffff;
  }
  let fragment = 0;
  let shift = DIGITS * DIGIT_BITS;
  for (let i = skip; i < skip + DIGITS; i++) {
    const digit = DIGIT_OF[(i < 4 ? high >>> (24 - i * 8) : low >>> (56 - i * 8)) & 0xff];
    shift -= DIGIT_BITS;
    fragment |= (digit & 15) << shift;
    if (digit >= ENDS_LOW) return digit === ENDS_LOW ? fragment : fragment | ((1 << shift) - 1);
  }
  return fragment;
}

/** Whether `fragmentOfEight` can tell. */
export function canTell(skip: number, areDense: boolean): boolean {
  return skip >= 0 && skip <= (areDense ? 2 : 5);
}

export function isDense(prefix: number): boolean {
  return (prefix & DENSE) !== 0;
}

/** Three bytes of a key from byte `skip` on, the first on top; zeros behind its end. */
function fragment3(bytes: Uint8Array, start: number, length: number, skip: number): number {
  const left = length - skip;
  const at = start + skip;
  if (left >= 3) return (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2];
  if (left <= 0) return 0;
  return left === 2 ? (bytes[at] << 16) | (bytes[at + 1] << 8) : bytes[at] << 16;
}

/** Four bytes of a key from byte `skip` on as an unsigned number, the first on top; zeros behind its end. For separators in inner nodes. */
export function fragment4(bytes: Uint8Array, start: number, length: number, skip: number): number {
  const at = start + skip;
  if (length - skip >= 4) return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
  return (fragment3(bytes, start, length, skip) << 8) >>> 0;
}
