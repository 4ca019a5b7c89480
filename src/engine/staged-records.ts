/** Records that are too long for the ring, from this thread: where they are put together, and how they get their place in the ring. */

import * as R from '../base/record.js';
import { STAGED_RECORD_WORD } from '../memory/staging.js';
import { memoryFull } from '../table/memory-full.js';
import type { Core } from './core.js';

export class StagedRecords {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Takes staging room for a record. @returns its unit, or 0 to defer @throws FlashVectorError FV_MEMORY_FULL */
  take(bytes: number): number {
    const unit = this.#core.staging.take(bytes);
    if (unit === -1) throw memoryFull();
    return unit;
  }

  /** Completes a staged record's header, binds it to its place in the ring and publishes it. */
  publish(at: number, staged: number, bytes: number, durability: number): number {
    const { ring, staging } = this.#core;
    const record = staged * 2 + STAGED_RECORD_WORD;
    const words = staging.region.words;
    words[record + R.RECORD_LENGTH] = bytes;
    words[record + R.RECORD_STATE] = R.recordState(R.KIND_WRITE, durability, R.STATE_PUBLISHED);
    words[record + R.RECORD_LSN_LOW] = ring.words[at + R.RECORD_LSN_LOW];
    words[record + R.RECORD_LSN_HIGH] = ring.words[at + R.RECORD_LSN_HIGH];
    const body = ring.bodyAt(at);
    ring.words[body] = staged + STAGED_RECORD_WORD / 2;
    ring.words[body + 1] = bytes / 8;
    staging.bind(staged, ring.position, ring.words[at + R.RECORD_LSN_LOW], ring.words[at + R.RECORD_LSN_HIGH]);
    ring.publish(at, R.KIND_STAGED, durability);
    return ring.lsnAt(at);
  }
}
