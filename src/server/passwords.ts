/**
 * Whether a password is right, in the same time whatever is wrong with it, and what guessing costs.
 *
 * A right password is never answered late because others were wrong, until a host has been wrong so often that its budget is used up; then all its tries take their
 * turn, for otherwise who guesses would not wait for the answers but ask again. The answer to a wrong one comes late, the later the more there were.
 */

import { createHash, timingSafeEqual } from 'node:crypto';

const DELAY_MS = 100;
const DELAY_MS_MAX = 5000;
/** Failures are forgotten after so long without another one. */
const FORGET_MS = 60_000;
const HOSTS_MAX = 10_000;
/** Wrong tries of a host that are looked at without waiting; one more every TURN_MS. */
const BUDGET = 20;
const TURN_MS = 100;
/** Tries of a host that may wait for their turn. */
const WAITING_MAX = 64;

/** `busy`: it was not looked at, because too many of the host wait. */
export type Verdict = 'right' | 'wrong' | 'busy';

interface Failures {
  count: number;
  lastMs: number;
  /** Wrong tries left before the host's tries wait, as of `budgetMs`. */
  budget: number;
  budgetMs: number;
  /** Settles when the last one who waits has had its turn. */
  turns: Promise<void>;
  waiting: number;
}

export class Passwords {
  readonly #digest: Buffer | undefined;
  readonly #failures = new Map<string, Failures>();
  readonly #pauses = new Set<() => void>();
  #isClosed = false;

  /** @param password `undefined`: there is none, and nothing is right */
  constructor(password: string | undefined) {
    this.#digest = password === undefined ? undefined : digest(password);
  }

  get isSet(): boolean {
    return this.#digest !== undefined;
  }

  /** Ends all waiting: the servers are about to end, and must not wait for who guesses. */
  close(): void {
    this.#isClosed = true;
    for (const end of this.#pauses) end();
  }

  /** @param address of the client, with its port */
  async check(address: string, password: string | Uint8Array): Promise<Verdict> {
    const host = hostOf(address);
    const failures = this.#failures.get(host);
    if (failures !== undefined && !this.#hasBudget(failures)) {
      if (failures.waiting >= WAITING_MAX) return 'busy';
      failures.waiting++;
      const turn = failures.turns.then(() => this.#pause(TURN_MS));
      failures.turns = turn;
      await turn;
      failures.waiting--;
    }
    if (this.#isRight(password)) return 'right';
    await this.#pause(delayOf(this.#failed(host)));
    return 'wrong';
  }

  #isRight(password: string | Uint8Array): boolean {
    // Digests are of one length, so the comparison says nothing about the password's.
    return this.#digest !== undefined && timingSafeEqual(digest(password), this.#digest);
  }

  #hasBudget(failures: Failures): boolean {
    const now = Date.now();
    failures.budget = Math.min(BUDGET, failures.budget + Math.max(0, now - failures.budgetMs) / TURN_MS);
    failures.budgetMs = now;
    return failures.budget >= 1;
  }

  /** @returns how often the host has been wrong of late */
  #failed(host: string): number {
    const now = Date.now();
    const before = this.#failures.get(host);
    const failures: Failures = before ?? { count: 0, lastMs: now, budget: BUDGET, budgetMs: now, turns: Promise.resolve(), waiting: 0 };
    failures.count = now - failures.lastMs < FORGET_MS ? failures.count + 1 : 1;
    failures.lastMs = now;
    failures.budget = Math.max(0, failures.budget - 1);
    // The hosts that were wrong last are remembered.
    this.#failures.delete(host);
    this.#failures.set(host, failures);
    if (this.#failures.size > HOSTS_MAX) {
      const [oldest] = this.#failures.keys();
      this.#failures.delete(oldest);
    }
    return failures.count;
  }

  #pause(ms: number): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#pauses.add(end);
    });
  }
}

function hostOf(address: string): string {
  return address.replace(/:\d+$/, '');
}

function delayOf(failures: number): number {
  return Math.min(DELAY_MS_MAX, DELAY_MS * 2 ** Math.min(10, failures - 1));
}

function digest(password: string | Uint8Array): Buffer {
  return createHash('sha256').update(password).digest();
}
