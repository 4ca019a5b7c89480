/** Printing: lines for people or JSON for programs on standard output, progress on standard error. */

import { jsonReplacer } from '../server/values.js';

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function sayJson(value: unknown): void {
  say(JSON.stringify(value, jsonReplacer));
}

/** A value as people read it: strings as they are, bytes in base64, the rest as JSON. */
export function valueText(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value instanceof Uint8Array) return `base64:${Buffer.from(value).toString('base64')}`;
  return JSON.stringify(value, jsonReplacer) ?? 'null';
}

export function keyText(key: string | Uint8Array): string {
  return typeof key === 'string' ? key : `base64:${Buffer.from(key).toString('base64')}`;
}

const BAR_CHARACTERS = 30;
const REDRAW_MS = 100;

/** A line that shows how far a long command is. Silent where standard error is no terminal. */
export class Progress {
  readonly #isShown = process.stderr.isTTY;
  readonly #startedMs = performance.now();
  #drawnMs = 0;

  constructor(
    readonly what: string,
    /** Of what `update` gets as `done`; `undefined` when nobody knows. */
    readonly total: number | undefined,
  ) {}

  update(done: number, count: number): void {
    const now = performance.now();
    if (!this.#isShown || now - this.#drawnMs < REDRAW_MS) return;
    this.#drawnMs = now;
    const rate = Math.round((count * 1000) / Math.max(1, now - this.#startedMs));
    const share = this.total === undefined || this.total === 0 ? undefined : Math.min(1, done / this.total);
    const bar =
      share === undefined ? '' : `[${'#'.repeat(Math.round(share * BAR_CHARACTERS)).padEnd(BAR_CHARACTERS)}] ${Math.round(share * 100)} % `;
    process.stderr.write(`\r\x1b[K${this.what} ${bar}${count.toLocaleString('en-US')} entries, ${rate.toLocaleString('en-US')}/s`);
  }

  finish(): void {
    if (this.#isShown) process.stderr.write('\r\x1b[K');
  }
}
