/** A quick measurement from the command line; `npm run bench` is the thorough one. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { say, sayJson } from './output.js';
import { openTarget, type TargetOptions } from './targets.js';
import { EXIT_OK } from './usage.js';

const IN_FLIGHT = 1000;

/** Puts and gets keys that begin with `bench:` and removes them; without --connect in a folder of its own. */
export async function runBench(options: TargetOptions, count: number, valueBytes: number, isJson: boolean): Promise<number> {
  const own = options.connect === undefined ? mkdtempSync(path.join(tmpdir(), 'flashvector-bench-')) : undefined;
  const target = await openTarget({ ...options, dir: own ?? options.dir }, true);
  const value = 'x'.repeat(valueBytes);
  const keyOf = (i: number): string => `bench:${String((i * 7919) % count).padStart(10, '0')}`;
  try {
    const put = await rate(count, (i) => target.put(keyOf(i), value));
    const get = await rate(count, (i) => target.get(keyOf(i)));
    const del = await rate(count, (i) => target.del(keyOf(i)));
    const result = { count, valueBytes, inFlight: IN_FLIGHT, putsPerSecond: put, getsPerSecond: get, deletesPerSecond: del };
    if (isJson) sayJson(result);
    else {
      say(`${count.toLocaleString('en-US')} keys, values of ${valueBytes} bytes, ${IN_FLIGHT} in flight`);
      say(`put  ${put.toLocaleString('en-US')} a second, each durable when it counts`);
      say(`get  ${get.toLocaleString('en-US')} a second`);
      say(`del  ${del.toLocaleString('en-US')} a second`);
    }
  } finally {
    await target.close();
    if (own !== undefined) rmSync(own, { recursive: true, force: true });
  }
  return EXIT_OK;
}

async function rate(count: number, call: (i: number) => Promise<unknown>): Promise<number> {
  const started = performance.now();
  for (let i = 0; i < count; i += IN_FLIGHT) {
    const calls: Promise<unknown>[] = [];
    for (let j = i; j < Math.min(count, i + IN_FLIGHT); j++) calls.push(call(j));
    await Promise.all(calls);
  }
  return Math.round((count * 1000) / (performance.now() - started));
}
