/** Whether a password is right, in the same time whatever is wrong with it; and the delays of a host that has been wrong. */

import { createHash, timingSafeEqual } from 'node:crypto';

const DELAY_MS = 100;
const DELAY_MS_MAX = 5000;
/** Failures are forgotten after so long without another one. */
const FORGET_MS = 60_000;
const HOSTS_MAX = 10_000;
const WAITING_MAX = 64;

interface Failures {
  count: number;
  lastMs: number;
  /** Settles when the last one who waits for a turn has had it: after a failure the tries of a host come one after the other. */
  turns: Promise<void>;
  /** How many wait. */
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

  isRight(password: string | Uint8Array): boolean {
    // Digests are of one length, so the comparison says nothing about the password's.
    return this.#digest !== undefined && timingSafeEqual(digest(password), this.#digest);
  }

  /**
   * Before a try: resolves at once for a host that has not been wrong lately, else after a while, longer with every failure, one try after the other.
   * @returns false when so many of the host wait already that this one is not heard
   */
  async turn(address: string): Promise<boolean> {
    const failures = this.#failures.get(hostOf(address));
    if (failures === undefined || Date.now() - failures.lastMs > FORGET_MS) return true;
    if (failures.waiting >= WAITING_MAX) return false;
    failures.waiting++;
    const turn = failures.turns.then(() => this.#pause(delayOf(failures.count)));
    failures.turns = turn;
    await turn;
    failures.waiting--;
    return true;
  }

  /** After a wrong one. */
  async failed(address: string): Promise<void> {
    const host = hostOf(address);
    const now = Date.now();
    const before = this.#failures.get(host);
    const isFresh = before !== undefined && now - before.lastMs < FORGET_MS;
    const failures: Failures = before ?? { count: 0, lastMs: now, waiting: 0, turns: Promise.resolve() };
    failures.count = isFresh ? failures.count + 1 : 1;
    failures.lastMs = now;
    // The hosts that were wrong last are remembered.
    this.#failures.delete(host);
    this.#failures.set(host, failures);
    if (this.#failures.size > HOSTS_MAX) {
      const [oldest] = this.#failures.keys();
      this.#failures.delete(oldest);
    }
    await this.#pause(DELAY_MS);
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
