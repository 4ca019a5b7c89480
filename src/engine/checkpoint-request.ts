/** How an attached thread has a checkpoint made: it asks the owner through the control region. */

import { FlashVectorError } from '../base/errors.js';
import type { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { LogSilence } from './log-silence.js';

/** How long a look at the state may be apart from the next although nobody announced a change. */
const RECHECK_MS = 1000;

/**
 * Resolves with the LSN of a checkpoint that begins from now on. Rejects with FV_IO, FV_ABORTED, FV_READONLY or FV_CLOSED; where the owner's thread has ended, and the log's
 * with it, once that has been silent for a minute.
 */
export async function askForCheckpoint(control: Control, silence = new LogSilence(control)): Promise<number> {
  const { words } = control;
  const request = Atomics.add(words, L.CONTROL_CHECKPOINT_REQUESTS, 1) + 1;
  const alive = setInterval(() => undefined, RECHECK_MS);
  try {
    for (;;) {
      const ends = Atomics.load(words, L.CONTROL_CHECKPOINT_ENDS);
      if (((Atomics.load(words, L.CONTROL_CHECKPOINT_SERVED) - request) | 0) >= 0) break;
      silence.look();
      if (control.status >= L.STATUS_CLOSING) throw control.closedError();
      if (control.status !== L.STATUS_OPEN) throw control.readonlyError();
      const wait = Atomics.waitAsync(words, L.CONTROL_CHECKPOINT_ENDS, ends, RECHECK_MS);
      if (wait.async) await wait.value;
    }
  } finally {
    clearInterval(alive);
  }
  const outcome = Atomics.load(words, L.CONTROL_CHECKPOINT_OUTCOME);
  if (outcome === L.CHECKPOINT_MADE) return control.readLsn(L.CONTROL_CHECKPOINT_LSN);
  if (control.status >= L.STATUS_CLOSING) throw control.closedError();
  const code = outcome === L.CHECKPOINT_ABORTED ? 'FV_ABORTED' : 'FV_IO';
  throw new FlashVectorError(code, "the checkpoint failed; the owner's checkpoint event says why");
}
