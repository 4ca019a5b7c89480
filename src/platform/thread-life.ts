/**
 * Whether a thread of this process lives, as the operating system sees it. A thread that has ended is seen here
 * before its `exit` event is delivered, and without an event loop. Linux only; elsewhere nobody is ever known to be dead.
 */

import fs from 'node:fs';

/** The system's number of the calling thread, or 0 where it cannot be told. */
export function systemThreadId(): number {
  if (process.platform !== 'linux') return 0;
  try {
    return Number(/\/task\/(\d+)$/.exec(fs.readlinkSync('/proc/thread-self'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Whether the thread with this number is known to have ended. The calling thread must be visible itself: without /proc nobody is dead. */
export function hasEnded(systemId: number): boolean {
  if (systemId === 0 || fs.existsSync(`/proc/self/task/${systemId}`)) return false;
  const own = systemThreadId();
  return own !== 0 && fs.existsSync(`/proc/self/task/${own}`);
}
