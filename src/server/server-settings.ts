/** The settings that CONFIG GET shows under the names of Redis, and which of them CONFIG SET changes. */

import type { RespServer } from './resp-server.js';
import { DATABASES } from './key-spaces.js';

export interface ServerSetting {
  get: () => string;
  /** @returns what makes the change, or why it is refused; absent where it cannot be changed */
  set?: (text: string) => (() => void) | string;
}

function integerSetting(get: () => number, set: (value: number) => void, least: number, most: number): ServerSetting {
  return {
    get: () => String(get()),
    set: (text) => {
      const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
      if (!(value >= least && value <= most)) return `argument must be between ${least} and ${most} inclusive`;
      return () => set(value);
    },
  };
}

export function serverSettings(server: RespServer): Map<string, ServerSetting> {
  const { options, limits } = server;
  const fixed = (get: () => string): ServerSetting => ({ get });
  return new Map<string, ServerSetting>([
    ['bind', fixed(() => options.host)],
    ['port', fixed(() => String(options.port))],
    ['databases', fixed(() => String(DATABASES))],
    [
      'maxclients',
      integerSetting(
        () => options.maxClients,
        (value) => (options.maxClients = value),
        1,
        1_000_000,
      ),
    ],
    [
      'timeout',
      integerSetting(
        () => options.timeoutSeconds,
        (value) => server.setTimeoutSeconds(value),
        0,
        2_000_000,
      ),
    ],
    [
      'proto-max-bulk-len',
      integerSetting(
        () => limits.bulkBytesMax,
        (value) => (limits.bulkBytesMax = value),
        1024 * 1024,
        1024 * 1024 * 1024,
      ),
    ],
    ['client-output-buffer-limit', fixed(() => `normal 0 0 0 slave 268435456 67108864 60 pubsub ${options.outputBytesMax} 0 0`)],
    [
      'protected-mode',
      {
        get: () => (options.isProtected ? 'yes' : 'no'),
        set: (text) =>
          text === 'yes' || text === 'no' ? () => void (options.isProtected = text === 'yes') : "argument must be 'yes' or 'no'",
      },
    ],
    // The password is never shown.
    ['requirepass', fixed(() => '')],
    ['maxmemory', fixed(() => String(server.db.stats().memory.maxBytes ?? 0))],
    ['maxmemory-policy', fixed(() => options.evictionPolicy)],
    ['appendonly', fixed(() => 'yes')],
    ['appendfsync', fixed(() => options.syncPolicy)],
    ['save', fixed(() => '')],
    ['tcp-keepalive', fixed(() => '300')],
    ['lua-time-limit', fixed(() => '5000')],
    ['slowlog-log-slower-than', fixed(() => '-1')],
    ['slowlog-max-len', fixed(() => '0')],
  ]);
}
