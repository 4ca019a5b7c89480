/**
 * Latency at fixed rates: writes arrive on a schedule, whether or not those before are done, and a write's latency counts from the moment at which it was
 * due. A closed loop that waits for a slow answer sends less meanwhile, and so hides what the slowness does ("coordinated omission").
 *
 * Source: Tene, "How NOT to Measure Latency", 2013.
 */

import fs from 'node:fs';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { Engine } from './engines/engine.js';
import { availableEngines, ENGINES } from './engines/peers.js';
import { keyCount, makeDataSet, type DataSet } from './support/data-set.js';
import { collectGarbage } from './support/paired.js';
import { LatencyLog } from './support/percentiles.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const RATES = [1000, 10_000, 50_000];
const SECONDS = 5;
const SECONDS_QUICK = 1;
/** Behind its schedule by so much an engine is given up: the rest would only pile up. */
const BEHIND_MS_MAX = 2000;
/** A single write of these takes a turn of the thread pool, or holds the event loop. */
const LEFT_OUT = new Set(['Map', 'rocksdb-native', 'lmdb-js, sharedStructuresKey']);

interface Outcome {
  latency: LatencyLog;
  done: number;
  seconds: number;
  gaveUp: boolean;
}

/** @param shift whose values the keys get: not those that they have, which SQLite would not write */
async function runAtRate(engine: Engine, { keys, values }: DataSet, rate: number, seconds: number, shift: number): Promise<Outcome> {
  const latency = new LatencyLog();
  const total = rate * seconds;
  const everyMs = 1000 / rate;
  const started = performance.now();
  let sent = 0;
  let done = 0;
  let failure: unknown;
  const send = (index: number, dueMs: number): void => {
    engine.putSafely(keys[index % keys.length], values[(index + shift + Math.floor(index / keys.length)) % keys.length]).then(
      () => {
        latency.add(performance.now() - dueMs);
        done++;
      },
      (error: unknown) => {
        failure ??= error;
      },
    );
  };
  let gaveUp = false;
  while (done < total && failure === undefined) {
    const now = performance.now();
    for (; sent < total && started + sent * everyMs <= now; sent++) send(sent, started + sent * everyMs);
    if (now > started + done * everyMs + BEHIND_MS_MAX && sent - done > rate) {
      gaveUp = true;
      break;
    }
    await turn();
  }
  const elapsed = (performance.now() - started) / 1000;
  await engine.safe();
  if (failure !== undefined) throw failure;
  return { latency, done, seconds: elapsed, gaveUp };
}

async function measure(context: Context, data: DataSet, rate: number): Promise<Section> {
  const out = section(`durable put, 100-byte string, ${rate.toLocaleString('en-US')} a second, latency from when it was due`, 'puts');
  const { names, missing } = await availableEngines();
  for (const name of names) {
    if (LEFT_OUT.has(name)) continue;
    const folder = fs.mkdtempSync(path.join(context.folder, 'store-'));
    const engine = await ENGINES[name]({ folder, durable: true, kind: 'string' });
    await engine.fill(data.keys, data.values);
    collectGarbage();
    await runAtRate(engine, data, rate, 1, 1);
    const { latency, done, seconds, gaveUp } = await runAtRate(engine, data, rate, context.quick ? SECONDS_QUICK : SECONDS, 2);
    const detail = gaveUp ? `cannot: given up ${BEHIND_MS_MAX / 1000} s behind schedule` : undefined;
    out.rows.push({ task: name, rate: done / seconds, latency: latency.percentiles(), detail });
    await engine.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
  out.notes.push(...missing);
  return out;
}

export const workload: Workload = {
  title: 'Latency at fixed rates',
  async run(context) {
    const data = makeDataSet('string', keyCount(context.quick));
    const sections: Section[] = [];
    for (const rate of RATES) sections.push(await measure(context, data, rate));
    return sections;
  },
};
