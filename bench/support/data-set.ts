/**
 * The data that all workloads use: the same in every run, on every machine, for every engine.
 *
 * Keys are 18 characters. Values come in several kinds; each depends on nothing but its number.
 */

import { isDeepStrictEqual } from 'node:util';

const KEY_COUNT = 200_000;
const KEY_COUNT_QUICK = 50_000;
const SEED = 20_240_601;
/** Distinct 1 KiB values: more than the processor caches, and still not 200 MiB of heap outside of the stores. */
const BUFFER_COUNT = 8192;
const BUFFER_BYTES = 1024;
const STRING_CHARS = 100;
const SHORT_CHARS = 16;

const LARGE_BYTES = 64 * 1024;
/** Distinct 64 KiB values. */
const LARGE_COUNT = 256;
const RECORD_FIELDS = 10;

export type ValueKind = 'object' | 'string' | 'buffer' | 'number' | 'short' | 'large' | 'record';

export interface DataSet {
  /** In random order. `values[i]` belongs to `keys[i]`. */
  keys: string[];
  values: unknown[];
}

/** Values as a title says them. */
export const VALUE_NAMES: Record<ValueKind, string> = {
  object: 'six-field object',
  string: '100-byte string',
  buffer: '1 KiB buffer',
  number: 'number',
  short: '16-byte string',
  large: '64 KiB buffer',
  record: '10 fields of 100 bytes',
};

/** The generator mulberry32: 32 bits of state, uniform, the same everywhere. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** Shuffles in place (Fisher-Yates), the same way for the same seed. */
function shuffle<T extends { length: number; [index: number]: unknown }>(items: T, seed = SEED): T {
  const random = randomFrom(seed);
  for (let i = items.length - 1; i > 0; i--) {
    const other = Math.floor(random() * (i + 1));
    const item = items[i];
    items[i] = items[other];
    items[other] = item;
  }
  return items;
}

/**
 * The same text in one piece, as a service gets it from a client or a parser. What is put together stays in pieces until somebody looks at its characters, and is put in
 * one piece then: that would be in the order in which stores are filled, not in the one in which keys and values are used.
 */
function inOnePiece(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

export function keyOf(number: number): string {
  return inOnePiece(`user:${String(number).padStart(10, '0')}:pf`);
}

/** Numbers from 0 in random order. */
export function shuffledNumbers(count: number): Int32Array {
  return shuffle(Int32Array.from({ length: count }, (_, i) => i));
}

function objectOf(number: number): Record<string, unknown> {
  return {
    id: number,
    name: inOnePiece(`User number ${number}`),
    email: inOnePiece(`user${number}@example.com`),
    age: 18 + (number % 70),
    active: number % 3 !== 0,
    score: number / 8,
  };
}

export function stringOf(number: number): string {
  return inOnePiece(`value ${number} `.padEnd(STRING_CHARS, 'abcdefghijklmnopqrstuvwxyz'));
}

/** A record of the Yahoo Cloud Serving Benchmark. */
export function recordOf(number: number): Record<string, string> {
  const record: Record<string, string> = {};
  for (let field = 0; field < RECORD_FIELDS; field++) record[`field${field}`] = stringOf(number * RECORD_FIELDS + field);
  return record;
}

function makeBuffers(count: number, bytes: number): Buffer[] {
  const random = randomFrom(SEED);
  return Array.from({ length: count }, () => {
    const buffer = Buffer.alloc(bytes);
    for (let at = 0; at < bytes; at += 4) buffer.writeUInt32LE(Math.floor(random() * 0x1_0000_0000), at);
    return buffer;
  });
}

/** How to make the value of a number, for one kind. */
function valueMaker(kind: ValueKind): (number: number) => unknown {
  if (kind === 'object') return objectOf;
  if (kind === 'string') return stringOf;
  if (kind === 'number') return (number) => number + 0.5;
  if (kind === 'short') return (number) => inOnePiece(`value ${number}`.padEnd(SHORT_CHARS, 'abcdefghij'));
  if (kind === 'record') return recordOf;
  const buffers = kind === 'large' ? makeBuffers(LARGE_COUNT, LARGE_BYTES) : makeBuffers(BUFFER_COUNT, BUFFER_BYTES);
  return (number) => buffers[number % buffers.length];
}

/** How many keys a workload has, unless it is about their number. */
export function keyCount(quick: boolean): number {
  return quick ? KEY_COUNT_QUICK : KEY_COUNT;
}

export function makeDataSet(kind: ValueKind, count: number): DataSet {
  const makeValue = valueMaker(kind);
  const numbers = [...shuffledNumbers(count)];
  return { keys: numbers.map(keyOf), values: numbers.map(makeValue) };
}

/**
 * In which order stores are filled: not the one in which their keys are read, or written over, so that no engine finds the entries in its memory in that order.
 * Where they are, the processor fetches the next one ahead: FlashVector's reads of strings then take 0.45 to 0.7 of the time, and lmdb-js's as long as ever.
 */
function fillOrder(count: number): Int32Array {
  return shuffle(
    Int32Array.from({ length: count }, (_, i) => i),
    SEED + 1,
  );
}

/** The same entries in the order in which stores are filled. */
export function inFillOrder({ keys, values }: DataSet): DataSet {
  const order = [...fillOrder(keys.length)];
  return { keys: order.map((i) => keys[i]), values: order.map((i) => values[i]) };
}

function sameValue(a: unknown, b: unknown): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0;
  return isDeepStrictEqual(a, b);
}

/** Checks that a store returns every value as it was put. A fast engine that is wrong is not fast. @throws Error naming engine and key */
export function verify(engine: string, data: DataSet, get: (key: string) => unknown): void {
  for (let i = 0; i < data.keys.length; i++) {
    if (!sameValue(get(data.keys[i]), data.values[i])) throw new Error(`${engine} returns a wrong value for ${data.keys[i]}`);
  }
}

/** The same for an engine that reads later. @throws Error naming engine and key */
export async function verifyLater(engine: string, data: DataSet, get: (key: string) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < data.keys.length; i++) {
    if (!sameValue(await get(data.keys[i]), data.values[i])) throw new Error(`${engine} returns a wrong value for ${data.keys[i]}`);
  }
}
