/** What the benchmark reckons with: programs that are the same for all and as skewed as they say, charts, comparisons. */

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { INSERT, MODIFY, READ, SCAN, UPDATE } from '../../bench/engines/loops.js';
import { renderChart } from '../../bench/support/chart.js';
import { makeProgram, MIXES } from '../../bench/support/ycsb-programs.js';
import { renderSummary } from '../../bench/support/render.js';
import { isMet, section, type TargetResult } from '../../bench/support/workload.js';
import { tempFolder } from '../support/temp.js';

const COMPARE = fileURLToPath(new URL('../../bench/compare.js', import.meta.url));

void t.test('a program is the same for the same seed, and its shares are those of its mix', (t) => {
  const wanted: Record<string, Record<number, number>> = {
    A: { [READ]: 0.5, [UPDATE]: 0.5 },
    B: { [READ]: 0.95, [UPDATE]: 0.05 },
    C: { [READ]: 1 },
    D: { [READ]: 0.95, [INSERT]: 0.05 },
    E: { [SCAN]: 0.95, [INSERT]: 0.05 },
    F: { [READ]: 0.5, [MODIFY]: 0.5 },
  };
  for (const [name, mix] of Object.entries(MIXES)) {
    const { program, keys } = makeProgram(mix, 1000, 20_000, 7);
    t.same(makeProgram(mix, 1000, 20_000, 7), { program, keys }, `${name} is repeatable`);
    for (const [kind, share] of Object.entries(wanted[name])) {
      const found = program.kinds.filter((one) => one === Number(kind)).length / 20_000;
      t.ok(Math.abs(found - share) < 0.02, `${name}: ${found} of ${share}`);
    }
    const inserts = program.kinds.filter((one) => one === INSERT).length;
    t.equal(keys, 1000 + inserts, `${name} counts its keys`);
    t.ok(
      program.targets.every((target) => target >= 0 && target < keys),
      `${name} stays within its keys`,
    );
  }
  t.end();
});

void t.test('keys are as popular as a zipfian distribution with 0.99 has them', (t) => {
  const { program } = makeProgram(MIXES.C, 1000, 100_000, 1);
  const counts = new Map<number, number>();
  for (const target of program.targets) counts.set(target, (counts.get(target) ?? 0) + 1);
  const sorted = [...counts.values()].sort((a, b) => b - a);
  // The sum of 1 / i ** 0.99 for i to 1,000 is 7.73.
  t.ok(Math.abs(sorted[0] / 100_000 - 1 / 7.73) < 0.01, `the first has ${sorted[0]}`);
  t.ok(Math.abs(sorted[9] / 100_000 - 1 / 10 ** 0.99 / 7.73) < 0.005, `the tenth has ${sorted[9]}`);
  t.end();
});

void t.test('the latest keys are read most where the mix says so', (t) => {
  const { program } = makeProgram(MIXES.D, 1000, 50_000, 3);
  let keys = 1000;
  let near = 0;
  let reads = 0;
  for (const [i, kind] of program.kinds.entries()) {
    if (kind === INSERT) keys++;
    else {
      reads++;
      if (keys - program.targets[i] <= 10) near++;
    }
    if (program.targets[i] >= keys) t.fail(`operation ${i} reads a key that is not there yet`);
  }
  t.ok(near / reads > 0.25, `${near} of ${reads} are among the last ten`);
  t.end();
});

void t.test('a chart has a bar for each row, and its text is escaped', (t) => {
  const out = section('get <b> & "c"', 'gets');
  t.equal(renderChart(out, 'here'), undefined, 'nothing to draw');
  out.rows.push({ task: 'FlashVector', rate: 200, ratio: 2 }, { task: 'lmdb-js', rate: 100, ratio: 1 }, { task: 'no rate' });
  const chart = renderChart(out, 'here') ?? '';
  t.equal(chart.match(/<rect /g)?.length, 3, 'the ground and two bars');
  t.match(chart, 'get &lt;b&gt; &amp; &quot;c&quot;');
  t.notMatch(chart, '<b>');
  t.end();
});

void t.test('comparing two runs', (t) => {
  const folder = tempFolder(t);
  const machine = { cpu: 'x', cores: 2, memoryGib: 1, load: 0, platform: 'p', node: 'v', commit: 'c', date: '2026-01-01T00:00:00.000Z' };
  const write = (name: string, ratio: number): string => {
    const sections = [{ ...section('get', 'gets'), rows: [{ task: 'FlashVector', rate: 1000, ratio }] }];
    const file = path.join(folder, name);
    fs.writeFileSync(
      file,
      JSON.stringify({ version: 1, machine, quick: false, workloads: [{ name: 'get', title: '', seconds: 1, sections }], targets: [] }),
    );
    return file;
  };
  const [a, same, slower] = [write('a.json', 4), write('same.json', 3.9), write('slower.json', 2)];
  const compare = (...args: string[]): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, [COMPARE, ...args], { encoding: 'utf8' });
  t.equal(compare(a, same).status, 0);
  const result = compare(a, slower);
  t.equal(result.status, 1);
  t.match(String(result.stdout), '-50 %');
  t.equal(compare(slower, a).status, 0, 'faster is no fault');
  t.equal(compare(a, slower, '--threshold', '60').status, 0);
  t.equal(compare(a).status, 2, 'one file is none to compare');
  t.equal(compare(a, path.join(folder, 'none.json')).status, 2);
  fs.writeFileSync(path.join(folder, 'other.json'), '{}');
  t.equal(compare(a, path.join(folder, 'other.json')).status, 2, 'another file');
  t.end();
});

void t.test('work that was not done in full is a miss, also behind JSON', (t) => {
  const reached: TargetResult = { work: 'delay', unit: 'ms', target: 3, reached: 2, bound: 'at most' };
  for (const [result, met] of [
    [reached, true],
    [{ ...reached, reached: 4 }, false],
    [{ ...reached, reached: undefined }, undefined],
    [{ ...reached, isMissed: true }, false],
  ] as const) {
    const read = JSON.parse(JSON.stringify(result)) as TargetResult;
    t.equal(isMet(read), met);
    t.match(renderSummary([read]), met === undefined ? 'not measured' : met ? 'yes' : 'NO');
  }
  t.end();
});
