/** The node's log: pino, JSON lines, or readable ones on a terminal. Secrets never reach it: no settings and no commands are logged. */

import { pino, type Logger } from 'pino';
import pretty from 'pino-pretty';

export function createLog(level: string, format: 'auto' | 'json' | 'pretty', node: string): Logger {
  const isPretty = format === 'pretty' || (format === 'auto' && process.stdout.isTTY);
  const base = { node, pid: process.pid };
  // Written at once, in this thread: what is said last before an exit is there.
  if (isPretty) return pino({ level, base }, pretty({ sync: true, ignore: 'pid,node', translateTime: 'SYS:HH:MM:ss.l' }));
  return pino({ level, base, timestamp: () => `,"time":"${new Date().toISOString()}"` }, pino.destination({ fd: 1, sync: true }));
}
