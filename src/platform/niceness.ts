/** How much a thread gives way to the others of the machine. */

import { setPriority } from 'node:os';

/** Sets the niceness of the calling thread, from 0 to 19. Only on Linux: elsewhere it would concern the process. A courtesy: where it is not allowed nothing happens. */
export function giveWay(niceness: number): void {
  if (process.platform !== 'linux') return;
  try {
    setPriority(0, niceness);
  } catch {
    // Not allowed here.
  }
}
