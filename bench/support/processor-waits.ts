/**
 * How long this process's main thread was ready to run and had no processor: the second figure of
 * /proc/self/task/<pid>/schedstat, in ns. Only Linux has it, and what a hypervisor takes away is not in it.
 */

import fs from 'node:fs';

export class ProcessorWaits {
  readonly #file: number | undefined = openStatistics();
  readonly #text = Buffer.alloc(128);
  #waitedNs = 0;

  constructor() {
    this.look();
  }

  /** @returns ms waited since the last look. Cost: a few microseconds */
  look(): number | undefined {
    if (this.#file === undefined) return undefined;
    const length = fs.readSync(this.#file, this.#text, 0, this.#text.length, 0);
    const waitedNs = Number(this.#text.latin1Slice(0, length).split(' ')[1]);
    const sinceNs = waitedNs - this.#waitedNs;
    this.#waitedNs = waitedNs;
    return sinceNs / 1e6;
  }

  close(): void {
    if (this.#file !== undefined) fs.closeSync(this.#file);
  }
}

function openStatistics(): number | undefined {
  try {
    return fs.openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  } catch {
    return undefined;
  }
}
