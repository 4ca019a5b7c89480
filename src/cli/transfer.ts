/** Many entries at once: `load` from lines of JSON, `dump` to them, plain or compressed. */

import { createReadStream, createWriteStream, statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { jsonReplacer } from '../server/values.js';
import { Progress, keyText, say, sayJson } from './output.js';
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
  async function* documents(): AsyncGenerator<readonly [string, unknown]> {
    let number = 0;
    for await (const line of lines) {
      number++;
      if (line.trim() === '') continue;
      const [key, value] = documentOf(line, number, file, isDumped ? 'key' : keyField, keyPrefix);
      yield [key, isDumped ? (value as { value: unknown }).value : value];
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
function documentOf(
  line: string,
  number: number,
  file: string,
  keyField: string | undefined,
  keyPrefix: string,
): readonly [string, unknown] {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new UsageError(`${file}:${number} is no JSON: ${(error as Error).message}`);
  }
  if (keyField === undefined) return [`${keyPrefix}${number}`, value];
  const key = (value as Record<string, unknown> | null)?.[keyField];
  if (typeof key !== 'string' && typeof key !== 'number')
    throw new UsageError(`${file}:${number} has no field ${JSON.stringify(keyField)} with a string or a number`);
  return [`${keyPrefix}${key}`, value];
}

/** Lines `{"key":…,"value":…}`; a key that is not UTF-8 is written as `base64:…`. */
export async function runDump(target: Target, out: string | undefined, isJson: boolean): Promise<number> {
  const progress = new Progress('dumping', undefined);
  let count = 0;
  async function* lines(): AsyncGenerator<string> {
    for await (const [key, value] of target.scan({})) {
      progress.update(0, ++count);
      yield `${JSON.stringify({ key: keyText(key), value }, jsonReplacer)}\n`;
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
