/** Bits of strings: bit 0 is the highest of the first byte. */

import { integerOf, numberOf, syntaxError, wordOf } from '../arguments.js';
import { ONE_KEY, type Command } from '../command.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';
import { fromBytes, latin1, toBytes } from '../values.js';
import { replacement, VALUE_BYTES_MAX } from '../replacement.js';

const NONE = Buffer.alloc(0);
const BAD_OFFSET = 'ERR bit offset is not an integer or out of range';
/** Bits that are set in a byte. */
const ONES = Uint8Array.from({ length: 256 }, (_, byte) => {
  let count = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  return count;
});

export function bytesUnder(session: Session, key: Buffer): Buffer {
  const value = session.store.get(key);
  return value === undefined ? NONE : toBytes(value);
}

function bitOffset(argument: Buffer): number {
  const offset = numberOf(argument, BAD_OFFSET);
  if (offset < 0 || Math.floor(offset / 8) >= VALUE_BYTES_MAX) throw new CommandError(BAD_OFFSET);
  return offset;
}

/** The bytes, at least so many. */
function grown(bytes: Buffer, length: number): Buffer {
  const copy = Buffer.alloc(Math.max(bytes.length, length));
  bytes.copy(copy);
  return copy;
}

function setBit(session: Session, [, key, where, what]: Buffer[]): Promise<void> | undefined {
  const offset = bitOffset(where);
  const text = latin1(what);
  if (text !== '0' && text !== '1') throw new CommandError('ERR bit is not an integer or out of range');
  let old = 0;
  return session.store.modify(
    key,
    (entry) => {
      const at = Math.floor(offset / 8);
      const bytes = grown(entry === undefined ? NONE : toBytes(entry.value), at + 1);
      const mask = 0x80 >>> (offset % 8);
      old = (bytes[at] & mask) === 0 ? 0 : 1;
      bytes[at] = text === '1' ? bytes[at] | mask : bytes[at] & ~mask;
      return replacement(fromBytes(bytes), entry?.expiresAt);
    },
    () => session.reply.integer(old),
  );
}

function getBit(session: Session, [, key, where]: Buffer[]): void {
  const offset = bitOffset(where);
  const bytes = bytesUnder(session, key);
  const at = Math.floor(offset / 8);
  session.reply.integer(at < bytes.length && (bytes[at] & (0x80 >>> (offset % 8))) !== 0 ? 1 : 0);
}

interface BitRange {
  /** First and last, in bits. */
  first: number;
  last: number;
}

/** A range that counts from either end, in bits. @returns `undefined` for an empty one */
function bitRange(start: number, end: number | undefined, isInBits: boolean, length: number): BitRange | undefined {
  const size = isInBits ? length * 8 : length;
  let first = start;
  let last = end ?? size - 1;
  if (first < 0) first = Math.max(0, size + first);
  if (last < 0) last = Math.max(0, size + last);
  if (last >= size) last = size - 1;
  if (first > last) return undefined;
  return isInBits ? { first, last } : { first: first * 8, last: last * 8 + 7 };
}

function isOfBits(unit: Buffer | undefined): boolean {
  if (unit === undefined) return false;
  const word = wordOf(unit);
  if (word !== 'BIT' && word !== 'BYTE') throw syntaxError();
  return word === 'BIT';
}

/** The byte at an index with the bits outside of a range cleared. */
function byteWithin(bytes: Uint8Array, at: number, { first, last }: BitRange): number {
  let byte = bytes[at];
  if (at === Math.floor(first / 8)) byte &= 0xff >>> (first % 8);
  if (at === Math.floor(last / 8)) byte &= 0xff << (7 - (last % 8));
  return byte & 0xff;
}

function bitCount(session: Session, args: Buffer[]): void {
  const bytes = bytesUnder(session, args[1]);
  if (bytes.length === 0 && !session.store.has(args[1])) {
    session.reply.integer(0);
    return;
  }
  if (args.length === 3 || args.length > 5) throw syntaxError();
  let range: BitRange | undefined = { first: 0, last: bytes.length * 8 - 1 };
  if (args.length > 2) {
    const start = numberOf(args[2]);
    const end = numberOf(args[3]);
    // Before the unit is looked at, as in Redis.
    range = start < 0 && end < 0 && start > end ? undefined : bitRange(start, end, isOfBits(args[4]), bytes.length);
  }
  let count = 0;
  if (range !== undefined && bytes.length > 0)
    for (let at = Math.floor(range.first / 8); at <= Math.floor(range.last / 8); at++) count += ONES[byteWithin(bytes, at, range)];
  session.reply.integer(count);
}

function bitPos(session: Session, args: Buffer[]): void {
  const wanted = numberOf(args[2]);
  if (wanted !== 0 && wanted !== 1) throw new CommandError('ERR The bit argument must be 1 or 0.');
  const value = session.store.get(args[1]);
  if (value === undefined) {
    session.reply.integer(wanted === 1 ? -1 : 0);
    return;
  }
  if (args.length > 6) throw syntaxError();
  const bytes = toBytes(value);
  const hasEnd = args.length > 4;
  let range: BitRange | undefined = { first: 0, last: bytes.length * 8 - 1 };
  if (args.length > 3) {
    const start = numberOf(args[3]);
    const isInBits = isOfBits(args[5]);
    range = bitRange(start, hasEnd ? numberOf(args[4]) : undefined, isInBits, bytes.length);
  }
  if (range === undefined || bytes.length === 0) {
    // Without an end, zeros go on behind the string.
    session.reply.integer(-1);
    return;
  }
  for (let bit = range.first; bit <= range.last; bit++) {
    const byte = bytes[bit >>> 3];
    if (bit % 8 === 0 && byte === (wanted === 1 ? 0 : 0xff) && bit + 7 <= range.last) {
      bit += 7;
      continue;
    }
    if (((byte >>> (7 - (bit % 8))) & 1) === wanted) {
      session.reply.integer(bit);
      return;
    }
  }
  session.reply.integer(wanted === 0 && !hasEnd ? bytes.length * 8 : -1);
}

const OPERATIONS: Record<string, (a: number, b: number) => number> = {
  AND: (a, b) => a & b,
  OR: (a, b) => a | b,
  XOR: (a, b) => a ^ b,
};

function bitOp(session: Session, args: Buffer[]): Promise<void> | undefined {
  const name = wordOf(args[1]);
  const combine = OPERATIONS[name];
  if (combine === undefined && name !== 'NOT') throw syntaxError();
  const [, , target, ...sources] = args;
  if (name === 'NOT' && sources.length !== 1) throw new CommandError('ERR BITOP NOT must be called with a single source key.');
  return session.store.atomically((store) => {
    const inputs = sources.map((key) => {
      const value = store.get(key);
      return value === undefined ? NONE : toBytes(value);
    });
    const length = inputs.reduce((most, input) => Math.max(most, input.length), 0);
    const out = grown(inputs[0], length);
    if (name === 'NOT') {
      for (let i = 0; i < length; i++) out[i] = ~out[i];
    } else {
      for (const input of inputs.slice(1)) for (let i = 0; i < length; i++) out[i] = combine(out[i], i < input.length ? input[i] : 0);
    }
    if (length === 0) store.del(target);
    else store.put(target, fromBytes(out), 0);
    session.reply.integer(length);
  });
}

// BITFIELD ------------------------------------------------------------------------------------

interface Field {
  isSigned: boolean;
  bits: number;
}

interface FieldOperation extends Field {
  operation: 'GET' | 'SET' | 'INCRBY';
  offset: number;
  value: bigint;
  overflow: 'WRAP' | 'SAT' | 'FAIL';
}

const BAD_TYPE = 'ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.';

function fieldType(argument: Buffer): Field {
  const match = /^([iu])(\d{1,2})$/.exec(latin1(argument));
  const bits = Number(match?.[2] ?? 0);
  const isSigned = match?.[1] === 'i';
  if (match === null || bits < 1 || bits > (isSigned ? 64 : 63)) throw new CommandError(BAD_TYPE);
  return { isSigned, bits };
}

function fieldOffset(argument: Buffer, bits: number): number {
  const text = latin1(argument);
  const isMultiple = text.startsWith('#');
  const number = numberOf(isMultiple ? argument.subarray(1) : argument, BAD_OFFSET);
  const offset = isMultiple ? number * bits : number;
  if (offset < 0 || Math.floor((offset + bits - 1) / 8) >= VALUE_BYTES_MAX) throw new CommandError(BAD_OFFSET);
  return offset;
}

function fieldOperations(args: readonly Buffer[], isReadOnly: boolean): FieldOperation[] {
  const operations: FieldOperation[] = [];
  let overflow: FieldOperation['overflow'] = 'WRAP';
  for (let i = 2; i < args.length;) {
    const word = wordOf(args[i]);
    const left = args.length - i - 1;
    if (word === 'OVERFLOW' && left >= 1) {
      const kind = wordOf(args[i + 1]);
      if (kind !== 'WRAP' && kind !== 'SAT' && kind !== 'FAIL') throw new CommandError('ERR Invalid OVERFLOW type specified');
      overflow = kind;
      i += 2;
      continue;
    }
    if (!((word === 'GET' && left >= 2) || ((word === 'SET' || word === 'INCRBY') && left >= 3))) throw syntaxError();
    const field = fieldType(args[i + 1]);
    const offset = fieldOffset(args[i + 2], field.bits);
    let value = 0n;
    if (word !== 'GET') {
      value = BigInt(integerOf(args[i + 3]));
    }
    operations.push({ ...field, operation: word, offset, value, overflow });
    i += word === 'GET' ? 3 : 4;
  }
  if (isReadOnly && operations.some(({ operation }) => operation !== 'GET'))
    throw new CommandError('ERR BITFIELD_RO only supports the GET subcommand');
  return operations;
}

function readField(bytes: Uint8Array, { offset, bits, isSigned }: FieldOperation): bigint {
  let value = 0n;
  for (let i = 0; i < bits; i++) {
    const at = Math.floor((offset + i) / 8);
    const bit = at < bytes.length ? (bytes[at] >>> (7 - ((offset + i) % 8))) & 1 : 0;
    value = (value << 1n) | BigInt(bit);
  }
  return isSigned ? BigInt.asIntN(bits, value) : value;
}

function writeField(bytes: Uint8Array, { offset, bits }: FieldOperation, value: bigint): void {
  const pattern = BigInt.asUintN(bits, value);
  for (let i = 0; i < bits; i++) {
    const at = Math.floor((offset + i) / 8);
    const mask = 0x80 >>> ((offset + i) % 8);
    const isSet = ((pattern >> BigInt(bits - 1 - i)) & 1n) === 1n;
    bytes[at] = isSet ? bytes[at] | mask : bytes[at] & ~mask;
  }
}

/** What is stored where a number does not fit. @returns `undefined` where that is to fail */
function fitted(value: bigint, { bits, isSigned, overflow }: FieldOperation): bigint | undefined {
  const least = isSigned ? -(1n << BigInt(bits - 1)) : 0n;
  const most = isSigned ? (1n << BigInt(bits - 1)) - 1n : (1n << BigInt(bits)) - 1n;
  if (value >= least && value <= most) return value;
  if (overflow === 'FAIL') return undefined;
  if (overflow === 'SAT') return value < least ? least : most;
  return isSigned ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);
}

function bitField(session: Session, args: Buffer[]): Promise<void> | undefined {
  const operations = fieldOperations(args, false);
  if (operations.every(({ operation }) => operation === 'GET')) {
    readFields(session, args[1], operations);
    return undefined;
  }
  let replies: (bigint | undefined)[] = [];
  return session.store.modify(
    args[1],
    (entry) => {
      replies = [];
      const old = entry === undefined ? NONE : toBytes(entry.value);
      const ends = operations
        .filter(({ operation }) => operation !== 'GET')
        .map(({ offset, bits }) => Math.floor((offset + bits - 1) / 8) + 1);
      const bytes = grown(
        old,
        ends.reduce((most, end) => Math.max(most, end), 0),
      );
      for (const operation of operations) {
        const before = readField(bytes, operation);
        if (operation.operation === 'GET') {
          replies.push(before);
          continue;
        }
        const isSet = operation.operation === 'SET';
        // A negative number is to an unsigned field what it is in 64 bits: a large one.
        const set = operation.isSigned ? operation.value : BigInt.asUintN(64, operation.value);
        const value = fitted(isSet ? set : before + operation.value, operation);
        if (value === undefined) {
          replies.push(undefined);
          continue;
        }
        writeField(bytes, operation, value);
        replies.push(isSet ? before : value);
      }
      return replacement(fromBytes(bytes), entry?.expiresAt);
    },
    () => {
      session.reply.array(replies.length);
      for (const reply of replies) {
        if (reply === undefined) session.reply.nil();
        else session.reply.integer(reply);
      }
    },
  );
}

function readFields(session: Session, key: Buffer, operations: readonly FieldOperation[]): void {
  const bytes = bytesUnder(session, key);
  session.reply.array(operations.length);
  for (const operation of operations) session.reply.integer(readField(bytes, operation));
}

export const bitCommands: readonly Command[] = [
  {
    name: 'setbit',
    arity: 4,
    flags: ['write', 'denyoom'],
    keys: ONE_KEY,
    group: 'bitmap',
    summary: 'Sets a bit, replies with the old one.',
    run: setBit,
  },
  { name: 'getbit', arity: 3, flags: ['readonly', 'fast'], keys: ONE_KEY, group: 'bitmap', summary: 'A bit.', run: getBit },
  {
    name: 'bitcount',
    arity: -2,
    flags: ['readonly'],
    keys: ONE_KEY,
    group: 'bitmap',
    summary: 'Number of bits that are set.',
    run: bitCount,
  },
  {
    name: 'bitpos',
    arity: -3,
    flags: ['readonly'],
    keys: ONE_KEY,
    group: 'bitmap',
    summary: 'Place of the first bit of a kind.',
    run: bitPos,
  },
  {
    name: 'bitop',
    arity: -4,
    flags: ['write', 'denyoom'],
    keys: [2, -1, 1],
    group: 'bitmap',
    summary: 'Combines values bit by bit.',
    run: bitOp,
  },
  {
    name: 'bitfield',
    arity: -2,
    flags: ['write', 'denyoom'],
    keys: ONE_KEY,
    group: 'bitmap',
    summary: 'Integers of any width within a value.',
    run: bitField,
  },
  {
    name: 'bitfield_ro',
    arity: -2,
    flags: ['readonly', 'fast'],
    keys: ONE_KEY,
    group: 'bitmap',
    summary: 'Reads integers of any width within a value.',
    run: (session, args) => readFields(session, args[1], fieldOperations(args, true)),
  },
];
