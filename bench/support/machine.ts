/** What the figures were measured on: they mean little without it. */

import { execFileSync } from 'node:child_process';
import os from 'node:os';

export interface Machine {
  cpu: string;
  cores: number;
  memoryGib: number;
  /** Processes that wanted a processor over the last minute: what else the machine was doing. */
  load: number;
  platform: string;
  node: string;
  /** Short hash, with `+` when sources differ from it; `undefined` outside of a repository. */
  commit: string | undefined;
  date: string;
}

function git(...parameters: string[]): string | undefined {
  try {
    // Without optional locks: a benchmark must not get in the way of who works in the repository.
    return execFileSync('git', ['--no-optional-locks', ...parameters], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

function commit(): string | undefined {
  const hash = git('rev-parse', '--short', 'HEAD');
  if (hash === undefined || hash === '') return undefined;
  const changes = git('status', '--porcelain', '--', 'src', 'workers', 'bench');
  return changes === undefined || changes === '' ? hash : `${hash}+`;
}

export function describeMachine(): Machine {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? 'unknown processor',
    cores: cpus.length,
    memoryGib: Math.round(os.totalmem() / 2 ** 30),
    load: os.loadavg()[0],
    platform: `${os.platform()} ${os.release()}`,
    node: process.version,
    commit: commit(),
    date: new Date().toISOString(),
  };
}
