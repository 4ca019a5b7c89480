/** Many entries at once: `load` from lines of JSON, `dump` to them, plain or compressed. */

import { createReadStream, createWriteStream, statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { formatEntry, parseEntry, type DumpedEntry } from './dump-format.js';
import { Progress, say, sayJson } from './output.js';
import type { Target } from './targets.js';
import { EXIT_FAILED, EXIT_OK, UsageError } from './usage.js';

export interface LoadArguments {
  file: string;
  /** Field of each document that is its key; without one, keys are the prefix and the number of the line. */
  keyField: string | undefined;
  keyPrefix: string;
  /** The lines are what `dump` writes. */
  isDumped: boolean;
  isJson: boolean;
}

export async function runLoad(target: Target, { file, keyField, keyPrefix, isDumped, isJson }: LoadArguments): Promise<number> {
  const progress = new Progress('loading', statSync(file).size);
  const source = createReadStream(file);
  const lines = createInterface({ input: file.endsWith('.gz') ? source.pipe(createGunzip()) : source, crlfDelay: Infinity });
  const failed = new Promise<never>((_, reject) => {
    source.once('error', reject);
  });
  failed.catch(() => undefined);
  async function* documents(): AsyncGenerator<DumpedEntry> {
    let number = 0;
    for await (const line of lines) {
      number++;
      if (line.trim() === '') continue;
      yield isDumped ? dumpedOf(line, number, file, keyPrefix) : documentOf(line, number, file, keyField, keyPrefix);
    }
  }
  const started = performance.now();
  const count = await Promise.race([target.load(documents(), (done) => progress.update(source.bytesRead, done)), failed]);
  progress.finish();
  const ms = performance.now() - started;
  if (isJson) sayJson({ entries: count, ms: Math.round(ms) });
  else
    say(
      `${count.toLocaleString('en-US')} entries loaded in ${(ms / 1000).toFixed(1)} s, ${Math.round((count * 1000) / ms).toLocaleString('en-US')} a second`,
    );
  return EXIT_OK;
}

/** @throws UsageError naming the line */
function parsedLine(line: string, number: number, file: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new UsageError(`${file}:${number} is no JSON: ${(error as Error).message}`);
  }
}

/** @throws UsageError naming the line */
function dumpedOf(line: string, number: number, file: string, keyPrefix: string): DumpedEntry {
  const entry = parseEntry(parsedLine(line, number, file));
  if (entry === undefined) throw new UsageError(`${file}:${number} is no line of a dump`);
  const { key } = entry;
  if (keyPrefix !== '') entry.key = typeof key === 'string' ? `${keyPrefix}${key}` : Buffer.concat([Buffer.from(keyPrefix), key]);
  return entry;
}

/** @throws UsageError naming the line */
function documentOf(line: string, number: number, file: string, keyField: string | undefined, keyPrefix: string): DumpedEntry {
  const value = parsedLine(line, number, file);
  if (keyField === undefined) return { key: `${keyPrefix}${number}`, value };
  const key = (value as Record<string, unknown> | null)?.[keyField];
  if (typeof key !== 'string' && typeof key !== 'number')
    throw new UsageError(`${file}:${number} has no field ${JSON.stringify(keyField)} with a string or a number`);
  return { key: `${keyPrefix}${key}`, value };
}

/** Writes every entry as a line, see dump-format.ts. */
export async function runDump(target: Target, out: string | undefined, isJson: boolean): Promise<number> {
  const progress = new Progress('dumping', await target.size());
  let count = 0;
  async function* lines(): AsyncGenerator<string> {
    for await (const entry of target.dump()) {
      count++;
      progress.update(count, count);
      yield `${formatEntry(entry)}\n`;
    }
  }
  const text = Readable.from(lines());
  if (out === undefined) {
    for await (const line of text)
      if (!process.stdout.write(line as string)) await new Promise((resolve) => process.stdout.once('drain', resolve));
    return EXIT_OK;
  }
  try {
    // What is there is not overwritten.
    const file = createWriteStream(out, { flags: 'wx' });
    await (out.endsWith('.gz') ? pipeline(text, createGzip(), file) : pipeline(text, file));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return EXIT_FAILED;
  }
  progress.finish();
  if (isJson) sayJson({ entries: count, out });
  else say(`${count.toLocaleString('en-US')} entries written to ${out}`);
  return EXIT_OK;
}
