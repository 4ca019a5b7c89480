/** Real documents to measure with: a file of JSON, one document a line, gzipped or not. */

import fs from 'node:fs';
import readline from 'node:readline';
import { createGunzip } from 'node:zlib';
import type { DataSet } from './data-set.js';

const QUICK_COUNT = 5000;

/** Keys are made from the line numbers, so that no field is needed. @throws Error when the file cannot be read or is no JSON */
export async function readDocuments(file: string, quick: boolean): Promise<DataSet> {
  const raw = fs.createReadStream(file);
  const lines = readline.createInterface({ input: file.endsWith('.gz') ? raw.pipe(createGunzip()) : raw, crlfDelay: Infinity });
  const keys: string[] = [];
  const values: unknown[] = [];
  for await (const line of lines) {
    if (line === '') continue;
    keys.push(`document:${String(keys.length).padStart(9, '0')}`);
    values.push(JSON.parse(line));
    if (quick && keys.length === QUICK_COUNT) break;
  }
  return { keys, values };
}
