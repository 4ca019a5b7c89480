/** Commands on single keys and ranges, and statistics. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Range } from '../index.js';
import { keyText, say, sayJson, valueText } from './output.js';
import type { Target } from './targets.js';
import { EXIT_FOUND, EXIT_OK, UsageError } from './usage.js';

const WATCH_MS = 1000;

export async function runGet(target: Target, key: string, isJson: boolean): Promise<number> {
  const value = await target.get(key);
  if (value === undefined) return EXIT_FOUND;
  if (isJson) sayJson(value);
  else say(valueText(value));
  return EXIT_OK;
}

export async function runPut(target: Target, key: string, text: string, isJsonValue: boolean, isJson: boolean): Promise<number> {
  let value: unknown = text;
  if (isJsonValue) {
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new UsageError(`the value is no JSON: ${(error as Error).message}`);
    }
  }
  await target.put(key, value);
  if (isJson) sayJson({ key, stored: true });
  return EXIT_OK;
}

export async function runDel(target: Target, key: string, isJson: boolean): Promise<number> {
  const isDeleted = await target.del(key);
  if (isJson) sayJson({ key, deleted: isDeleted });
  return isDeleted ? EXIT_OK : EXIT_FOUND;
}

export async function runScan(target: Target, range: Range, keysOnly: boolean, isJson: boolean): Promise<number> {
  for await (const [key, value] of target.scan(range)) {
    if (isJson) sayJson(keysOnly ? keyText(key) : { key: keyText(key), value });
    else say(keysOnly ? keyText(key) : `${keyText(key)}\t${valueText(value)}`);
  }
  return EXIT_OK;
}

export async function runStats(target: Target, isWatching: boolean, isJson: boolean): Promise<number> {
  do {
    const stats = await target.stats();
    if (isJson) sayJson(stats);
    else {
      if (isWatching && process.stdout.isTTY) process.stdout.write('\x1b[2J\x1b[H');
      for (const line of flatten(stats)) say(line);
    }
    if (isWatching) await sleep(WATCH_MS);
  } while (isWatching);
  return EXIT_OK;
}

/** `a.b.c  value`, a line for each number; shards are summed up elsewhere. */
function flatten(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return [];
  if (typeof value !== 'object' || value === null)
    return [`${path.padEnd(34)} ${typeof value === 'number' ? value.toLocaleString('en-US') : String(value)}`];
  return Object.entries(value).flatMap(([name, item]) => flatten(item, path === '' ? name : `${path}.${name}`));
}
