/** How an attached thread has a checkpoint made: it asks the owner through the control region. */

import { FlashVectorError } from '../base/errors.js';
import type { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';

/** How long a look at the state may be apart from the next although nobody announced a change. */
const RECHECK_MS = 1000;

/** Resolves with the LSN of a checkpoint that begins from now on. Rejects with FV_IO or FV_CLOSED. */
export async function askForCheckpoint(control: Control): Promise<number> {
  const { words } = control;
  const request = Atomics.add(words, L.CONTROL_CHECKPOINT_REQUESTS, 1) + 1;
  const alive = setInterval(() => undefined, RECHECK_MS);
  try {
    for (;;) {
      const ends = Atomics.load(words, L.CONTROL_CHECKPOINT_ENDS);
      if (((Atomics.load(words, L.CONTROL_CHECKPOINT_SERVED) - request) | 0) >= 0) break;
      if (control.status >= L.STATUS_CLOSING) throw control.closedError();
      if (control.status !== L.STATUS_OPEN) throw control.readonlyError();
      const wait = Atomics.waitAsync(words, L.CONTROL_CHECKPOINT_ENDS, ends, RECHECK_MS);
      if (wait.async) await wait.value;
    }
  } finally {
    clearInterval(alive);
  }
  if (Atomics.load(words, L.CONTROL_CHECKPOINT_FAILED) !== 0 && control.status >= L.STATUS_CLOSING) throw control.closedError();
  if (Atomics.load(words, L.CONTROL_CHECKPOINT_FAILED) !== 0)
    throw new FlashVectorError('FV_IO', "the checkpoint failed; the owner's checkpoint event says why");
  return control.readLsn(L.CONTROL_CHECKPOINT_LSN);
}
