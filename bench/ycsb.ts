/**
 * The core workloads A to F of the Yahoo Cloud Serving Benchmark: records of ten fields of 100 bytes, keys chosen zipfian (0.99, scrambled) or the latest first.
 * One client. Updates put a whole record, as key-value bindings do; nobody waits for a single write, and every thousand operations and at the end all
 * are safe, in memory or on disk as the table says.
 */

import fs from 'node:fs';
import path from 'node:path';
import { loopsFor, type Loops, type Program } from './engines/loops.js';
import { availableEngines, ENGINES } from './engines/peers.js';
import { keyOf, recordOf, shuffledNumbers } from './support/data-set.js';
import { runPaired, type Contestant } from './support/paired.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';
import { makeProgram, MIXES, type Mix } from './support/ycsb-programs.js';

const RECORDS = 100_000;
const OPERATIONS = 100_000;
/** Scans take a hundred times as long. */
const OPERATIONS_OF_SCANS = 10_000;
const QUICK_SHARE = 10;
const SEED = 20_101;
/** Least ratio to lmdb-js. */
const TARGETS: Record<string, number> = { A: 4, B: 3, C: 2.5, D: 3, E: 1.2, F: 4 };
const BASE = 'lmdb-js';
/** An engine that reads later runs a share of the program. */
const LATER_SHARE = 10;

interface Data {
  keys: string[];
  values: Record<string, string>[];
}

function dataFor(count: number, loaded: number): Data {
  // Inserted keys lie between the others, not behind them.
  const numbers = [...shuffledNumbers(count)];
  return { keys: numbers.map(keyOf), values: numbers.slice(0, loaded).map(recordOf) };
}

function shareOf(program: Program, operations: number): Program {
  const { kinds, targets, lengths } = program;
  return { kinds: kinds.subarray(0, operations), targets: targets.subarray(0, operations), lengths: lengths.subarray(0, operations) };
}

async function measure(context: Context, name: string, mix: Mix, durable: boolean): Promise<Section> {
  const records = context.quick ? RECORDS / QUICK_SHARE : RECORDS;
  const full = mix.scan === undefined ? OPERATIONS : OPERATIONS_OF_SCANS;
  const operations = context.quick ? full / QUICK_SHARE : full;
  const { program, keys: count } = makeProgram(mix, records, operations, SEED);
  const { keys, values } = dataFor(count, records);
  const { names, missing } = await availableEngines();
  const closers: (() => Promise<void>)[] = [];
  const contestants: Contestant[] = [];
  for (const engineName of names) {
    if (engineName === 'Map') continue;
    // It has no way to make some writes durable but to write a table.
    if (durable && engineName === 'rocksdb-native') continue;
    const folder = fs.mkdtempSync(path.join(context.folder, 'store-'));
    const engine = await ENGINES[engineName]({ folder, durable, kind: 'record' });
    await engine.fill(keys.slice(0, records), values);
    const loops: Loops = await loopsFor(engineName);
    const own = engine.readsAtOnce ? program : shareOf(program, Math.ceil(operations / LATER_SHARE));
    closers.push(async () => {
      await engine.close();
      fs.rmSync(folder, { recursive: true, force: true });
    });
    let round = 0;
    contestants.push({
      name: engineName,
      run: async () => {
        // Others each time: SQLite does not write what is there already.
        round++;
        const others = [...values.slice(round), ...values.slice(0, round)];
        const started = performance.now();
        const read = await loops.runProgram(engine, own, keys, others);
        const seconds = (performance.now() - started) / 1000;
        if (read === 0) throw new Error(`${engineName} found nothing`);
        return own.kinds.length / seconds;
      },
    });
  }
  const rates = await runPaired(contestants, { rounds: context.quick ? 2 : 5, warmups: 1, collects: false });
  for (const close of closers) await close();
  const kind = durable ? 'on disk every 1,000 operations' : 'in memory';
  const out = section(`YCSB ${name}: ${mix.title}, ${records.toLocaleString('en-US')} records, ${kind}`, 'operations');
  for (const { name: task } of contestants) out.rows.push({ task, rate: rates.rate(task), ratio: rates.ratio(task, BASE) });
  out.notes.push(...missing);
  const reached = rates.ratio('FlashVector', BASE);
  out.targets.push({ work: `YCSB ${name}, ${kind}`, unit: 'x lmdb-js', target: TARGETS[name], reached, bound: 'at least' });
  return out;
}

export const workload: Workload = {
  title: 'Yahoo Cloud Serving Benchmark',
  async run(context) {
    const sections: Section[] = [];
    for (const durable of [true, false])
      for (const [name, mix] of Object.entries(MIXES)) {
        // Reads alone are the same.
        if (durable && name === 'C') continue;
        sections.push(await measure(context, name, mix, durable));
      }
    return sections;
  },
};
