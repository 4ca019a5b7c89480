/** The documents of the quickstart, every `package.json` under a folder, and what each of its threads does with them. */

import fs from 'node:fs';
import path from 'node:path';
import type { FlashVector, StoreHandle } from '../src/index.js';

/** Durable writes that a thread has in flight. */
const IN_FLIGHT = 8;
/** How often each thread reads all documents: a few hundred reads alone say little. */
const READ_PASSES = 40;

/** Key: the file's path relative to the root, with `/`. Value: what it parses to. */
export type Documents = Map<string, unknown>;

export interface Work {
  count: number;
  ms: number;
}

export interface WorkerInput {
  handle: StoreHandle;
  root: string;
  /** Keys that this worker writes. */
  share: string[];
  /** Keys that every thread reads. */
  all: string[];
}

export type WorkerRequest = 'write' | 'read' | 'close';
export type WorkerReply = { type: 'ready' } | ({ type: 'written' } & Work) | ({ type: 'read' } & Work);

export function findDocuments(root: string): string[] {
  if (!fs.existsSync(root)) return [];
  const files = fs.readdirSync(root, { recursive: true, encoding: 'utf8' });
  return files.filter((file) => path.basename(file) === 'package.json').map((file) => file.replaceAll(path.sep, '/'));
}

/** A key `__proto__` is refused: JSON makes it a property, and assignment, which every decoder uses, a prototype. */
function refuseProto(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new Error('has a key __proto__');
  return value;
}

/** Reads and parses; leaves out what does not parse. */
export function loadDocuments(root: string, keys: readonly string[]): Documents {
  const documents: Documents = new Map();
  for (const key of keys) {
    try {
      documents.set(key, JSON.parse(fs.readFileSync(path.join(root, key), 'utf8'), refuseProto));
    } catch {
      // Packages ship broken files on purpose, as fixtures for their tests. The caller counts what is missing.
    }
  }
  return documents;
}

/** Writes all, each durable before the next of the same lane is begun. */
export async function writeDocuments(db: FlashVector, documents: Documents): Promise<Work> {
  const startedMs = performance.now();
  const left = documents.entries();
  const lane = async (): Promise<void> => {
    for (const [key, value] of left) await db.put(key, value);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
  return { count: documents.size, ms: performance.now() - startedMs };
}

/** Reads all, several times. @throws Error naming a key that is not there */
export function readDocuments(db: FlashVector, keys: readonly string[]): Work {
  const startedMs = performance.now();
  for (let pass = 0; pass < READ_PASSES; pass++) {
    for (const key of keys) if (db.get(key) === undefined) throw new Error(`${key} was written and is not there`);
  }
  return { count: keys.length * READ_PASSES, ms: performance.now() - startedMs };
}
