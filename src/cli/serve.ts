/** `serve` and `config`: a node from its settings, and what these are. */

import { parseArgs } from 'node:util';
import { loadSettings, shown, nearest, type LoadedSettings } from '../config/load.js';
import { formatAddress, httpAddressBeside, parseAddress } from '../config/addresses.js';
import { SETTINGS, flagOf, variableOf, type NodeSettings } from '../config/settings.js';
import { createLog } from '../server/logging.js';
import { FlashVectorNode } from '../server/node.js';
import { say, sayJson } from './output.js';
import { EXIT_FAILED, EXIT_OK } from './usage.js';
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
  return `usage: flashvector serve [--config FILE] [settings]
       flashvector config [--config FILE] [settings] [--json]

Examples
  flashvector serve --listen-addr :8080 --data-dir ./data
  flashvector serve --config node.json --log-level debug
  DATA_DIR=/var/lib/flashvector flashvector config --json

Settings come from the file (--config FILE, or ./config.json if it is there), then the environment, then flags.\n\n${lines.join('\n')}`;
}

interface FlagToken {
  kind: 'option' | 'positional' | 'option-terminator';
  name?: string;
  value?: string;
}

type FlagOptions = NonNullable<NonNullable<Parameters<typeof parseArgs>[0]>['options']>;

/** What is wrong with the flags themselves, each said for itself. */
function flagProblems(tokens: readonly FlagToken[], options: FlagOptions): string[] {
  const problems: string[] = [];
  let isValueOfUnknown = false;
  for (const { kind, name = '', value } of tokens) {
    const follows = isValueOfUnknown;
    isValueOfUnknown = kind === 'option' && value === undefined && !Object.hasOwn(options, name);
    if (kind === 'positional' && follows) continue;
    if (kind === 'positional') problems.push(`${JSON.stringify(value)} is no flag; allowed are flags only`);
    else if (kind !== 'option') continue;
    else if (!Object.hasOwn(options, name))
      problems.push(`there is no flag --${name}; the nearest is --${nearest(name, Object.keys(options))}`);
    else if (options[name].type === 'string' && value === undefined) problems.push(`the flag --${name} takes a value`);
    else if (options[name].type === 'boolean' && value !== undefined) problems.push(`the flag --${name} takes no value`);
  }
  return problems;
}

/** @throws SettingsError */
function serveArguments(args: string[]): ServeArguments {
  const options: NonNullable<Parameters<typeof parseArgs>[0]>['options'] = {
    config: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  };
  // All take a value: a boolean may be said to be false.
  for (const rule of SETTINGS) options[flagOf(rule.name)] = { type: 'string' };
  // Not strict: what is wrong with flags is reported together with all else.
  const { values, tokens } = parseArgs({ args, options, strict: false, tokens: true }) as unknown as {
    values: Record<string, unknown>;
    tokens: readonly FlagToken[];
  };
  const problems = flagProblems(tokens, options);
  for (const name of Object.keys(options)) if (options[name].type === 'string' && typeof values[name] !== 'string') delete values[name];
  const flags = Object.fromEntries(SETTINGS.map((rule) => [rule.name, values[flagOf(rule.name)] as string | undefined]));
  const isHelp = values.help === true;
  const file = values.config as string | undefined;
  const loaded = isHelp
    ? loadSettings({ environment: {}, flags: {}, file: '/dev/null' })
    : loadSettings({ environment: process.env, flags, problems, ...(file === undefined ? {} : { file }) });
  return { ...loaded, isJson: values.json === true, isHelp };
}

export function runConfig(args: string[]): number {
  if (args.includes('--help') || args.includes('-h')) {
    say(settingsHelp());
    return EXIT_OK;
  }
  const { settings, origins, isJson } = serveArguments(args);
  const listening = parseAddress(settings.ListenAddr);
  // What is in effect, also where it follows from something else.
  const effective = {
    ...settings,
    HttpAddr: settings.HttpAddr ?? (listening === undefined ? undefined : formatAddress(httpAddressBeside(listening))),
  };
  const rows = SETTINGS.map((rule) => {
    const name = rule.name as keyof NodeSettings;
    return { name, value: shown(rule, effective[name]), origin: origins[name] };
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
