/**
 * Numbers with a fraction as INCRBYFLOAT knows them. Redis computes in 80-bit floating point and prints 17 digits behind the point; here numbers
 * are decimals, added exactly, and what is printed is cut at 17 digits behind the point, so 0.1 and 0.2 are 0.3.
 */

/** `digits` times ten to the power of -`scale`. */
export interface Decimal {
  digits: bigint;
  scale: number;
}

const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
const TEXT_MAX = 256;
const PRINTED_SCALE = 17;
/** Largest power of ten of an 80-bit number. */
const EXPONENT_MAX = 4932;

/** @returns `undefined` for what is no finite number */
export function parseDecimal(text: string): Decimal | undefined {
  if (text.length > TEXT_MAX || !NUMBER.test(text)) return undefined;
  const [mantissa, exponent = '0'] = text.toLowerCase().split('e');
  const [whole, fraction = ''] = mantissa.split('.');
  const scale = fraction.length - Number(exponent);
  if (Math.abs(scale) > EXPONENT_MAX) return undefined;
  const isNegative = whole.startsWith('-');
  const magnitude = BigInt(`${whole.replace(/^[+-]/, '')}${fraction}`);
  const digits = isNegative ? -magnitude : magnitude;
  return scale >= 0 ? { digits, scale } : { digits: digits * 10n ** BigInt(-scale), scale: 0 };
}

/** @returns `undefined` when the sum is larger than 80 bits can hold */
export function addDecimals(a: Decimal, b: Decimal): Decimal | undefined {
  const scale = Math.max(a.scale, b.scale);
  const digits = a.digits * 10n ** BigInt(scale - a.scale) + b.digits * 10n ** BigInt(scale - b.scale);
  const magnitude = digits < 0n ? -digits : digits;
  return magnitude.toString().length - scale > EXPONENT_MAX ? undefined : { digits, scale };
}

/** With 17 digits behind the point at most, rounded, and no zeros at the end. */
export function formatLongDouble({ digits, scale }: Decimal): string {
  let value = digits < 0n ? -digits : digits;
  let places = scale;
  if (places > PRINTED_SCALE) {
    const unit = 10n ** BigInt(places - PRINTED_SCALE);
    value = (value + unit / 2n) / unit;
    places = PRINTED_SCALE;
  }
  const text = value.toString().padStart(places + 1, '0');
  const whole = text.slice(0, text.length - places);
  const fraction = text.slice(text.length - places).replace(/0+$/, '');
  const sign = digits < 0n && value !== 0n ? '-' : '';
  return `${sign}${whole}${fraction === '' ? '' : `.${fraction}`}`;
}
