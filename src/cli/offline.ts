/** Commands on a store that nobody has open: verify, repair, inspect, backup. */

import { inspect, open, repair, verify } from '../index.js';
import { say, sayJson } from './output.js';
import { EXIT_FOUND, EXIT_OK } from './usage.js';

export async function runVerify(directory: string, isJson: boolean): Promise<number> {
  const report = await verify(directory);
  if (isJson) {
    sayJson(report);
    return report.problems.length === 0 ? EXIT_OK : EXIT_FOUND;
  }
  for (const file of report.files) {
    say(`${file.problems.length === 0 ? 'ok     ' : 'PROBLEM'} ${file.file} (${file.bytes} bytes) ${file.contents}`);
  }
  for (const problem of report.problems)
    say(`problem at ${problem.file}:${problem.offset}${problem.bytes === 0 ? '' : ` (${problem.bytes} bytes)`}: ${problem.message}`);
  for (const note of report.notes) say(`note: ${note}`);
  say(report.problems.length === 0 ? `no problems; the last record is ${report.lastLsn}` : `${report.problems.length} problems`);
  return report.problems.length === 0 ? EXIT_OK : EXIT_FOUND;
}

export async function runRepair(directory: string, out: string, isJson: boolean): Promise<number> {
  const report = await repair(directory, out);
  if (isJson) {
    sayJson(report);
  } else {
    say(
      `${report.entries} entries saved to ${report.out}, from ${report.checkpointEntries} in checkpoints and ${report.records} log records; the last is ${report.lastLsn}`,
    );
    for (const loss of report.losses) say(`lost at ${loss.file}:${loss.offset}: ${loss.message}`);
    if (report.losses.length === 0) say('nothing was lost');
  }
  return report.losses.length === 0 ? EXIT_OK : EXIT_FOUND;
}

export async function runInspect(directory: string, isJson: boolean): Promise<number> {
  const lines: string[] = [];
  await inspect(directory, isJson ? (line) => lines.push(line) : say);
  if (isJson) sayJson(lines);
  return EXIT_OK;
}

export async function runBackup(directory: string, out: string, isJson: boolean): Promise<number> {
  const db = await open(directory, { createIfMissing: false });
  try {
    const lsn = await db.backup(out);
    if (isJson) sayJson({ out, lsn, entries: db.size });
    else say(`${db.size} entries copied to ${out}, up to LSN ${lsn}`);
  } finally {
    await db.close();
  }
  return EXIT_OK;
}
