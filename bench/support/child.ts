/** Runs one workload in a child process and receives its report. */

import { fork } from 'node:child_process';
import { removeFolderOf } from './data-folder.js';
import type { Section } from './workload.js';

/** Longest that a workload may take; the slowest takes some ten minutes. */
const TIME_LIMIT_MS = 1_500_000;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** @returns its sections, or why there are none */
export function runChild(workload: string, quick: boolean, documents: string | undefined): Promise<Section[] | Error> {
  const parameters = ['--child', workload, ...(quick ? ['--quick'] : []), ...(documents === undefined ? [] : ['--documents', documents])];
  const child = fork(new URL('../run.js', import.meta.url), parameters, {
    execArgv: ['--expose-gc'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  return new Promise((resolve) => {
    let sections: Section[] | undefined;
    let ending: Error | undefined;
    const end = (reason: Error): void => {
      ending = reason;
      child.kill('SIGKILL');
    };
    const timer = setTimeout(() => end(new Error(`took longer than ${TIME_LIMIT_MS / 1000} s`)), TIME_LIMIT_MS);
    const interrupt = (signal: NodeJS.Signals): void => {
      end(new Error(`interrupted by ${signal}`));
      process.exitCode = 130;
    };
    for (const signal of SIGNALS) process.once(signal, interrupt);
    child.once('message', (message) => {
      sections = message as Section[];
    });
    child.once('error', (error) => {
      ending = error;
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      for (const name of SIGNALS) process.off(name, interrupt);
      if (child.pid !== undefined) removeFolderOf(workload, child.pid);
      if (process.exitCode === 130) process.exit();
      const isWell = code === 0 && sections !== undefined && ending === undefined;
      resolve(isWell && sections !== undefined ? sections : (ending ?? new Error(`ended with ${signal ?? `code ${code}`}`)));
    });
  });
}
