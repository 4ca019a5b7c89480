/** A process that is killed by `kill -9` once it has said that it does what it is to be killed in. That it was this kill which ended it, and nothing of its own, is made sure of. */

import { spawn, type ChildProcess } from 'node:child_process';

/** Longest that a child may take to say what is waited for. */
const SILENCE_MS = 60_000;

export class KilledChild {
  readonly #child: ChildProcess;
  readonly #ended: Promise<string>;
  readonly #said = new Set<string>();
  #onLine: () => void = () => undefined;

  constructor(script: string, args: readonly string[]) {
    const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('close', (code, signal) => resolve(signal ?? `exit code ${code}`)));
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#said.add(line);
      this.#onLine();
    });
  }

  /** Resolves when it has said each of these lines. @throws Error when it ends instead, or says nothing for a minute */
  async hasSaid(...lines: readonly string[]): Promise<void> {
    const isDone = (): boolean => lines.every((line) => this.#said.has(line));
    const said = new Promise<'said'>((resolve) => {
      this.#onLine = () => {
        if (isDone()) resolve('said');
      };
      this.#onLine();
    });
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('a minute of silence'), SILENCE_MS);
    });
    const how = await Promise.race([said, this.#ended, silent]);
    clearTimeout(timer);
    if (how === 'said') return;
    this.#child.kill('SIGKILL');
    throw new Error(`the child has said ${[...this.#said].join() || 'nothing'}; waited for ${lines.join()}, and met ${how}`);
  }

  /** @throws Error when it has ended before, or by anything else */
  async kill(): Promise<void> {
    const isAlive = this.#child.exitCode === null && this.#child.signalCode === null;
    this.#child.kill('SIGKILL');
    const how = await this.#ended;
    if (!isAlive || how !== 'SIGKILL') throw new Error(`the child ended by itself: ${how}; it says above why`);
  }
}
