/** Whether a password is right, in the same time whatever is wrong with it; and the delay for who is wrong. */

import { createHash, timingSafeEqual } from 'node:crypto';

const DELAY_MS = 100;
const DELAY_MS_MAX = 5000;
/** Failures are forgotten after so long without another one. */
const FORGET_MS = 60_000;
const ADDRESSES_MAX = 10_000;

export class Passwords {
  readonly #digest: Buffer | undefined;
  /** Failures by host. */
  readonly #failures = new Map<string, { count: number; lastMs: number }>();

  /** @param password `undefined`: there is none, and nothing is right */
  constructor(password: string | undefined) {
    this.#digest = password === undefined ? undefined : digest(password);
  }

  get isSet(): boolean {
    return this.#digest !== undefined;
  }

  isRight(password: string | Uint8Array): boolean {
    // Digests are of one length, so the comparison says nothing about the password's.
    return this.#digest !== undefined && timingSafeEqual(digest(password), this.#digest);
  }

  /** Resolves after a while, longer with every failure from the same host. */
  async delay(address: string): Promise<void> {
    const host = address.replace(/:\d+$/, '');
    const now = Date.now();
    const before = this.#failures.get(host);
    const count = before !== undefined && now - before.lastMs < FORGET_MS ? before.count + 1 : 1;
    this.#failures.delete(host);
    this.#failures.set(host, { count, lastMs: now });
    if (this.#failures.size > ADDRESSES_MAX) {
      const [oldest] = this.#failures.keys();
      this.#failures.delete(oldest);
    }
    const ms = Math.min(DELAY_MS_MAX, DELAY_MS * 2 ** Math.min(10, count - 1));
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}

function digest(password: string | Uint8Array): Buffer {
  return createHash('sha256').update(password).digest();
}
