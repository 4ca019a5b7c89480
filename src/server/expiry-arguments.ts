/** Moments and spans of time in arguments, checked as Redis does. */

import { integerOf } from './arguments.js';
import { CommandError } from './protocol-error.js';

export type ExpiryUnit = 'seconds' | 'milliseconds' | 'unix-seconds' | 'unix-milliseconds';

const INT64_MAX = 2n ** 63n - 1n;
/** As far as the store's moments reach. */
const MOMENT_MS_MAX = 8.64e15;

function isOfSeconds(unit: ExpiryUnit): boolean {
  return unit === 'seconds' || unit === 'unix-seconds';
}

/** The moment, in ms since 1970, of an expiry that SET and the like take: it must be positive. @throws CommandError */
export function expiryOf(argument: Buffer, unit: ExpiryUnit, command: string): number {
  const value = BigInt(integerOf(argument));
  if (value <= 0n) throw invalidExpiry(command);
  return momentOf(value, unit, command);
}

/** The moment of an expiry that EXPIRE and the like take: one that has passed removes the key. @throws CommandError */
export function momentOf(value: bigint, unit: ExpiryUnit, command: string): number {
  let ms = value;
  if (isOfSeconds(unit)) {
    if (value > INT64_MAX / 1000n || value < -INT64_MAX / 1000n) throw invalidExpiry(command);
    ms *= 1000n;
  }
  if (unit === 'seconds' || unit === 'milliseconds') {
    const now = BigInt(Date.now());
    if (ms > INT64_MAX - now) throw invalidExpiry(command);
    ms += now;
  }
  // What expires behind the end of all dates expires then.
  return Math.min(Number(ms), MOMENT_MS_MAX);
}

function invalidExpiry(command: string): CommandError {
  return new CommandError(`ERR invalid expire time in '${command}' command`);
}
