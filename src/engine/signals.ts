/** `handleSignals`: SIGINT and SIGTERM close the store before they end the process. */

import { isMainThread } from 'node:worker_threads';
import type { FlashVector } from './database.js';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * The first signal closes the store, which finishes and syncs what is in flight, and then ends the process as if nobody had caught it. A second
 * one ends it at once; what was acknowledged is on disk. Workers get no signals.
 */
export function closeOnSignals(db: FlashVector): void {
  if (!isMainThread) return;
  const forget = (): void => {
    for (const signal of SIGNALS) process.off(signal, handle);
  };
  const handle = (signal: NodeJS.Signals): void => {
    forget();
    const end = (): void => void process.kill(process.pid, signal);
    // Whatever comes of it: the process is asked to end.
    db.close().then(end, end);
  };
  for (const signal of SIGNALS) process.on(signal, handle);
  db.once('close', forget);
}
