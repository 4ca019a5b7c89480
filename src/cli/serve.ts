/** `serve` and `config`: a node from its settings, and what these are. */

import { parseArgs } from 'node:util';
import { loadSettings, shown, nearest, type LoadedSettings } from '../config/load.js';
import { SETTINGS, flagOf, variableOf, type NodeSettings } from '../config/settings.js';
import { createLog } from '../server/logging.js';
import { FlashVectorNode } from '../server/node.js';
import { say, sayJson } from './output.js';
import { EXIT_FAILED, EXIT_OK, UsageError } from './usage.js';
import { version } from './version.js';

/** How the process ends when it has to end at once. With `sync` what was acknowledged is on disk; otherwise it is synced, if that is quick. */
const EXIT_FORCED = 1;
const RESCUE_MS = 1000;

interface ServeArguments extends LoadedSettings {
  isJson: boolean;
  isHelp: boolean;
}

function settingsHelp(): string {
  const lines = SETTINGS.map((rule) => {
    const fallback = rule.default === undefined || rule.isSecret === true ? '' : ` Default: ${JSON.stringify(rule.default)}.`;
    return `  --${flagOf(rule.name).padEnd(26)} ${rule.help}${fallback}\n${' '.repeat(31)}${rule.name} in the file, ${variableOf(rule.name)}; ${rule.allowed}`;
  });
  return `Settings come from the file (--config FILE, or ./config.json if it is there), then the environment, then flags.\n\n${lines.join('\n')}`;
}

/** @throws UsageError, SettingsError */
function serveArguments(args: string[]): ServeArguments {
  const options: NonNullable<Parameters<typeof parseArgs>[0]>['options'] = {
    config: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  };
  // All take a value: a boolean may be said to be false.
  for (const rule of SETTINGS) options[flagOf(rule.name)] = { type: 'string' };
  let values: Record<string, unknown>;
  try {
    ({ values } = parseArgs({ args, options, strict: true }));
  } catch (error) {
    const { message } = error as Error;
    const unknown = /Unknown option '--([^']+)'/.exec(message)?.[1];
    if (unknown === undefined) throw new UsageError(message);
    throw new UsageError(
      `there is no flag --${unknown}; the nearest is --${nearest(
        unknown,
        SETTINGS.map((rule) => flagOf(rule.name)),
      )}`,
    );
  }
  const flags = Object.fromEntries(SETTINGS.map((rule) => [rule.name, values[flagOf(rule.name)] as string | undefined]));
  const isHelp = values.help === true;
  const file = values.config as string | undefined;
  const loaded = isHelp
    ? loadSettings({ environment: {}, flags: {}, file: '/dev/null' })
    : loadSettings({ environment: process.env, flags, ...(file === undefined ? {} : { file }) });
  return { ...loaded, isJson: values.json === true, isHelp };
}

export function runConfig(args: string[]): number {
  if (args.includes('--help') || args.includes('-h')) {
    say(settingsHelp());
    return EXIT_OK;
  }
  const { settings, origins, isJson } = serveArguments(args);
  const rows = SETTINGS.map((rule) => {
    const name = rule.name as keyof NodeSettings;
    return { name, value: shown(rule, settings[name]), origin: origins[name] };
  });
  if (isJson) {
    sayJson(Object.fromEntries(rows.map(({ name, value, origin }) => [name, { value: value ?? null, origin }])));
  } else {
    for (const { name, value, origin } of rows) say(`${name.padEnd(26)} ${(JSON.stringify(value) ?? '(not set)').padEnd(26)} ${origin}`);
  }
  return EXIT_OK;
}

/** Runs a node until it is told to stop. @returns the exit code */
export async function runServe(args: string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    say(settingsHelp());
    return EXIT_OK;
  }
  const { settings } = serveArguments(args);
  const log = createLog(settings.LogLevel, settings.LogFormat, settings.NodeID);
  const node = new FlashVectorNode(settings, log, version());
  return new Promise<number>((resolve) => {
    let stops = 0;
    const force = (why: string): void => {
      log.error({ why }, 'ending at once');
      void node.rescue(RESCUE_MS).finally(() => process.exit(EXIT_FORCED));
    };
    const stop = (reason: string): void => {
      stops++;
      // A client's second SHUTDOWN is no haste.
      if (stops > 1 && reason === 'SHUTDOWN') return;
      if (stops > 1) {
        force(`a second ${reason}`);
        return;
      }
      const timer = setTimeout(
        () => force(`the shutdown took longer than ${settings.ShutdownTimeoutSeconds} s`),
        settings.ShutdownTimeoutSeconds * 1000,
      );
      timer.unref();
      const finished = (code: number): void => {
        clearTimeout(timer);
        resolve(code);
      };
      node.stop(reason).then(
        () => finished(EXIT_OK),
        (error: unknown) => {
          log.error({ err: error }, 'the shutdown failed');
          finished(EXIT_FORCED);
        },
      );
    };
    process.on('SIGINT', () => stop('SIGINT'));
    process.on('SIGTERM', () => stop('SIGTERM'));
    node.onShutdown = () => stop('SHUTDOWN');
    node.start().catch((error: unknown) => {
      // A signal while it starts is no failure of its own.
      if (stops > 0) return;
      log.error({ err: error }, 'the node could not start');
      process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
      resolve(EXIT_FAILED);
    });
  });
}
