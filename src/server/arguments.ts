/** Arguments of commands as numbers, in Redis's rules and words. */

import { CommandError, NOT_AN_INTEGER, SYNTAX_ERROR } from './protocol-error.js';
import { latin1 } from './values.js';

const SAFE_DIGITS = 15;
const INTEGER_MIN = -(2n ** 63n);
const INTEGER_MAX = 2n ** 63n - 1n;
const INTEGER = /^(?:0|-?[1-9]\d{0,18})$/;

/** A 64-bit integer written as Redis writes it: no plus, no zeros in front. @returns a number while it is exact, else a bigint, or `undefined` */
export function parseInteger(text: string): number | bigint | undefined {
  if (!INTEGER.test(text)) return undefined;
  if (text.length <= SAFE_DIGITS) return Number(text);
  const value = BigInt(text);
  if (value < INTEGER_MIN || value > INTEGER_MAX) return undefined;
  return narrow(value);
}

/** A number where that is exact. */
export function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Whether a 64-bit integer can hold it. */
export function fitsInteger(value: bigint): boolean {
  return value >= INTEGER_MIN && value <= INTEGER_MAX;
}

/** @throws CommandError */
export function integerOf(argument: Buffer, message = NOT_AN_INTEGER): number | bigint {
  const value = argument.length > 20 ? undefined : parseInteger(latin1(argument));
  if (value === undefined) throw new CommandError(message);
  return value;
}

/** An integer as a number; one that is not exact is still in order with others. @throws CommandError */
export function numberOf(argument: Buffer, message = NOT_AN_INTEGER): number {
  return Number(integerOf(argument, message));
}

/** A word in upper case, for comparison with options. */
export function wordOf(argument: Buffer): string {
  return argument.length > 64 ? '' : latin1(argument).toUpperCase();
}

export function syntaxError(): CommandError {
  return new CommandError(SYNTAX_ERROR);
}

/** Whether a string matches a pattern in the style of shells: `*`, `?`, `[a-c]`, `[^a]`, and `\` before what is meant as it is. */
export function globMatches(pattern: Uint8Array, text: Uint8Array): boolean {
  return globFrom(pattern, 0, text, 0, { left: GLOB_STEPS_MAX });
}

/** Steps after which a pattern with many stars counts as not matching. */
const GLOB_STEPS_MAX = 1_000_000;

function globFrom(pattern: Uint8Array, fromPattern: number, text: Uint8Array, fromText: number, steps: { left: number }): boolean {
  let p = fromPattern;
  let t = fromText;
  // The last star and where it was tried: of several stars only the last has to be tried again.
  let star = -1;
  let tried = 0;
  for (;;) {
    if (--steps.left < 0) return false;
    if (p < pattern.length && pattern[p] === 0x2a) {
      star = p++;
      tried = t;
      continue;
    }
    if (t === text.length) {
      if (p === pattern.length) return true;
      return false;
    }
    const next = p < pattern.length ? matchOne(pattern, p, text[t]) : 0;
    if (next > 0) {
      p = next;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++tried;
    } else {
      return false;
    }
  }
}

/** Matches one byte. @returns where the pattern goes on, or 0 */
function matchOne(pattern: Uint8Array, at: number, byte: number): number {
  const first = pattern[at];
  if (first === 0x3f) return at + 1;
  if (first === 0x5c && at + 1 < pattern.length) return pattern[at + 1] === byte ? at + 2 : 0;
  if (first !== 0x5b) return first === byte ? at + 1 : 0;
  let p = at + 1;
  const isNegated = pattern[p] === 0x5e;
  if (isNegated) p++;
  let isMatch = false;
  for (; ; p++) {
    // A class that is not closed ends with the pattern.
    if (p >= pattern.length) {
      p--;
      break;
    }
    if (pattern[p] === 0x5c && p + 1 < pattern.length) {
      p++;
      if (pattern[p] === byte) isMatch = true;
    } else if (pattern[p] === 0x5d) {
      break;
    } else if (p + 2 < pattern.length && pattern[p + 1] === 0x2d) {
      const low = Math.min(pattern[p], pattern[p + 2]);
      const high = Math.max(pattern[p], pattern[p + 2]);
      p += 2;
      if (byte >= low && byte <= high) isMatch = true;
    } else if (pattern[p] === byte) {
      isMatch = true;
    }
  }
  return isMatch === isNegated ? 0 : p + 1;
}
