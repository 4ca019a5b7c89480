/**
 * The loops that are timed. Every engine imports a copy of its own (`loopsFor`): one shared by all would make its calls slow ones for all, and slow the
 * quickest most.
 */

import type { Engine } from './engine.js';

/** Reads each key once. @returns how many are missing */
export function readAll(engine: Engine, keys: readonly string[]): number {
  let missing = 0;
  for (let i = 0; i < keys.length; i++) if (engine.get(keys[i]) === undefined) missing++;
  return missing;
}

/** The same for an engine that only reads later: one read after the other. */
export async function readAllLater(engine: Engine, keys: readonly string[]): Promise<number> {
  let missing = 0;
  for (let i = 0; i < keys.length; i++) if ((await engine.getLater(keys[i])) === undefined) missing++;
  return missing;
}

export async function batchAll(engine: Engine, keys: readonly string[], values: readonly unknown[], size: number): Promise<void> {
  for (let from = 0; from < keys.length; from += size) await engine.batch(keys, values, from, Math.min(keys.length, from + size));
}

export async function putEachSafely(engine: Engine, keys: readonly string[], values: readonly unknown[]): Promise<void> {
  for (let i = 0; i < keys.length; i++) await engine.putSafely(keys[i], values[i]);
}

/** As many reads as writes, of keys that are there; the writes are not waited for one by one. */
export async function mix(engine: Engine, keys: readonly string[], values: readonly unknown[]): Promise<number> {
  let missing = 0;
  for (let i = 0; i < keys.length; i++) {
    const other = keys.length - 1 - i;
    if ((engine.readsAtOnce ? engine.get(keys[i]) : await engine.getLater(keys[i])) === undefined) missing++;
    engine.put(keys[other], values[other]);
    // Lets what has been begun go on: whoever answers later would only pile up.
    if (i % TURN === 0) await engine.safe();
  }
  await engine.safe();
  return missing;
}

const TURN = 1000;

/** What an operation of a program is; see `ycsb-programs.ts`. */
export const READ = 0;
export const UPDATE = 1;
export const INSERT = 2;
export const SCAN = 3;
export const MODIFY = 4;

export interface Program {
  /** By operation. */
  kinds: Uint8Array;
  /** Index into `keys`. */
  targets: Int32Array;
  /** Entries of a scan. */
  lengths: Uint8Array;
}

/** Runs a program. Writes are not waited for one by one; at its end all are safe. @returns entries that were read */
export async function runProgram(
  engine: Engine,
  program: Program,
  keys: readonly string[],
  values: readonly Record<string, string>[],
): Promise<number> {
  const { kinds, targets, lengths } = program;
  let read = 0;
  for (let i = 0; i < kinds.length; i++) {
    const key = keys[targets[i]];
    const kind = kinds[i];
    if (kind === READ || kind === MODIFY) {
      const value = (engine.readsAtOnce ? engine.get(key) : await engine.getLater(key)) as Record<string, string> | undefined;
      if (value !== undefined) read++;
      if (kind === MODIFY && value !== undefined) {
        value.field0 = values[i % values.length].field0;
        engine.put(key, value);
      }
    } else if (kind === SCAN) {
      const found = engine.scan(key, lengths[i]);
      read += typeof found === 'number' ? found : await found;
    } else {
      engine.put(key, values[i % values.length]);
    }
    if (i % TURN === 0) await engine.safe();
  }
  await engine.safe();
  return read;
}

export type Loops = typeof import('./loops.js');

/** @param engine the name of one of ENGINES */
export function loopsFor(engine: string): Promise<Loops> {
  return import(`./loops.js?engine=${encodeURIComponent(engine)}`) as Promise<Loops>;
}
