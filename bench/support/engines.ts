/**
 * Opening the engines that are compared. lmdb-js is opened with its default settings; every setting that
 * is not a default is in the name that the tables print.
 */

import fs from 'node:fs';
import path from 'node:path';
import { open, type FlashVector, type OpenOptions } from '../../src/index.js';
import { inFillOrder, type DataSet } from './data-set.js';

export type Lmdb = typeof import('lmdb');
/** What the workloads use of an lmdb-js database, over string keys. */
export interface LmdbStore {
  get(key: string): unknown;
  put(key: string, value: unknown): Promise<boolean>;
  getRange(options?: { start?: string; limit?: number }): Iterable<{ key: string; value: unknown }>;
  transaction(action: () => unknown): Promise<unknown>;
  readonly flushed: Promise<boolean>;
  close(): Promise<void>;
}
export interface LmdbOptions {
  noSync?: boolean;
  sharedStructuresKey?: symbol;
}

export const FLASHVECTOR = 'FlashVector';
export const LMDB = 'lmdb-js';
export const LMDB_SHARED = 'lmdb-js, sharedStructuresKey';
export const MAP = 'Map';

let stores = 0;

/** A folder of its own for the next store. */
function nextFolder(folder: string, engine: string): string {
  return path.join(folder, `${engine}-${stores++}`);
}

/** lmdb-js, or why it cannot be had: it is a native addon, and not built for every machine. */
export async function loadLmdb(): Promise<Lmdb | Error> {
  try {
    return await import('lmdb');
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

export function openFlashVector(folder: string, options?: OpenOptions): Promise<FlashVector> {
  return open(nextFolder(folder, 'flashvector'), options);
}

export function openLmdb(lmdb: Lmdb, folder: string, options: LmdbOptions = {}): LmdbStore & { path: string } {
  const directory = nextFolder(folder, 'lmdb');
  const store = lmdb.open<unknown, string>({ path: directory, ...options });
  return Object.assign(store, { path: directory });
}

/** Puts a data set, in the order for that, waiting now and then so that no queue grows without bound. */
export async function fillFlashVector(db: FlashVector, data: DataSet): Promise<void> {
  const { keys, values } = inFillOrder(data);
  for (let i = 0; i < keys.length; i++) {
    const promise = db.put(keys[i], values[i]);
    if (i % 10_000 === 0) await promise;
    else promise.catch(() => undefined);
  }
  await db.flush();
}

export async function fillLmdb(db: LmdbStore, data: DataSet): Promise<void> {
  const { keys, values } = inFillOrder(data);
  for (let i = 0; i < keys.length; i++) {
    const promise = db.put(keys[i], values[i]);
    if (i % 10_000 === 0) await promise;
  }
  await db.flushed;
}

/** Removes a closed store's files, so that disk and page cache hold no more than the stores in use. */
export function removeStores(folder: string): void {
  for (const name of fs.readdirSync(folder)) fs.rmSync(path.join(folder, name), { recursive: true, force: true });
}
