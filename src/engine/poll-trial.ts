/**
 * Whether keeping the event loop turning for acknowledgements pays (ack-poll.ts): found out by trying, all the time.
 *
 * Of every so many rounds of waiting and writing the first TRIAL_ROUNDS are slept through and polled in turn, and the rest are polled where trials have been won.
 * What counts is how fast the log comes forward, by all threads' records, so that nobody gains at the others' cost.
 */

/** Rounds that are tried both ways, in stretches of STRETCH, a power of two, that are slept through and polled in turn. */
const TRIAL_ROUNDS = 64;
const STRETCH = 8;
/** Rounds between two trials that are polled. */
const POLLED_ROUNDS = 448;
/**
 * Rounds between two trials that are not, twice as many for each point of the score below 0. Soon again at first: while code is new it is compiled, for which
 * processors are wanted.
 */
const SLEPT_ROUNDS = 56;
const SCORE_MIN = -7;
/** A round counts for no more: the disk, or the kernel, was busy with something else. */
export const ROUND_MS_MAX = 2;
/** The log has to come forward so much quicker. */
const WORTH = 1.05;

export class PollTrial {
  /** Since the last trial began. */
  #rounds = 0;
  #sleptMs = 0;
  #sleptRecords = 0;
  #polledMs = 0;
  #polledRecords = 0;
  /** Trials won against trials lost, from SCORE_MIN to 1; at 1 rounds are polled. */
  #score = 0;

  /** Whether the next round is to be polled. */
  get isDue(): boolean {
    return this.#rounds < TRIAL_ROUNDS ? (this.#rounds & STRETCH) !== 0 : this.#score === 1;
  }

  /** @param records how far the log came in this round */
  count(isPolled: boolean, ms: number, records: number): void {
    const counted = Math.min(ROUND_MS_MAX, ms);
    if (isPolled) {
      this.#polledMs += counted;
      this.#polledRecords += records;
    } else {
      this.#sleptMs += counted;
      this.#sleptRecords += records;
    }
    this.#rounds++;
    if (this.#rounds === TRIAL_ROUNDS) this.#judge();
    else if (this.#rounds >= TRIAL_ROUNDS + (this.#score === 1 ? POLLED_ROUNDS : SLEPT_ROUNDS << -this.#score)) this.#begin();
  }

  #judge(): void {
    const isWon = this.#polledRecords * this.#sleptMs > this.#sleptRecords * this.#polledMs * WORTH;
    this.#score = isWon ? Math.min(1, this.#score + 1) : Math.max(SCORE_MIN, this.#score - 1);
  }

  #begin(): void {
    this.#rounds = 0;
    this.#sleptMs = 0;
    this.#sleptRecords = 0;
    this.#polledMs = 0;
    this.#polledRecords = 0;
  }
}
