/**
 * The settings of a node from file, environment and flags, the later winning; every problem is reported, not only the first.
 */

import { readFileSync } from 'node:fs';
import path from 'node:path';
import env from 'env-var';
import { FlashVectorError } from '../index.js';
import { SETTINGS, flagOf, variableOf, type NodeSettings, type SettingRule, type SettingValue } from './settings.js';

const DEFAULT_FILE = './config.json';

/** Where a value came from. */
type Origin = 'default' | `file ${string}` | `environment ${string}` | `flag --${string}`;

export interface LoadedSettings {
  settings: NodeSettings;
  origins: Record<keyof NodeSettings, Origin>;
}

/** What is wrong with the settings, all of it. */
export class SettingsError extends FlashVectorError {
  constructor(readonly problems: readonly string[]) {
    super(
      'FV_OPTION',
      `${problems.length === 1 ? 'a setting is' : `${problems.length} settings are`} wrong:\n${problems.map((problem) => `  ${problem}`).join('\n')}`,
    );
  }
}

export interface SettingSources {
  /** The file that was named; without one `./config.json` is read if it is there. */
  file?: string;
  environment: NodeJS.ProcessEnv;
  /** By the name of the setting. */
  flags: Readonly<Record<string, string | boolean | undefined>>;
  /** What is known to be wrong already. */
  problems?: readonly string[];
}

/** @throws SettingsError */
export function loadSettings(sources: SettingSources): LoadedSettings {
  const problems = [...(sources.problems ?? [])];
  const values = new Map<string, SettingValue>();
  const origins = new Map<string, Origin>();
  for (const rule of SETTINGS) {
    values.set(rule.name, rule.default);
    origins.set(rule.name, 'default');
  }
  const wrong: string[] = [];
  const take = (rule: SettingRule, value: SettingValue, origin: Origin): void => {
    if (!rule.check(value)) {
      wrong.push(rule.name);
      problems.push(
        `${rule.name} from ${origin} is ${rule.isSecret === true ? 'not allowed' : JSON.stringify(value)}; allowed is ${rule.allowed}`,
      );
      return;
    }
    values.set(rule.name, value);
    origins.set(rule.name, origin);
  };
  fromFile(sources.file, take, problems);
  const reader = env.from(sources.environment);
  for (const rule of SETTINGS) {
    const variable = variableOf(rule.name);
    const said = reader.get(variable).asString();
    if (said !== undefined && said !== '') take(rule, parsed(rule, said), `environment ${variable}`);
  }
  for (const rule of SETTINGS) {
    const said = sources.flags[rule.name];
    if (said !== undefined) take(rule, typeof said === 'boolean' ? said : parsed(rule, said), `flag --${flagOf(rule.name)}`);
  }
  const settings = Object.fromEntries(values) as unknown as NodeSettings;
  // A setting that is wrong by itself has its default here, and contradicts nothing.
  problems.push(...contradictions(settings).filter((problem) => !wrong.some((name) => problem.includes(name))));
  if (problems.length > 0) throw new SettingsError(problems);
  return { settings, origins: Object.fromEntries(origins) as LoadedSettings['origins'] };
}

function fromFile(
  file: string | undefined,
  take: (rule: SettingRule, value: SettingValue, origin: Origin) => void,
  problems: string[],
): void {
  const name = file ?? DEFAULT_FILE;
  let text: string;
  try {
    text = readFileSync(name, 'utf8').replace(/^\uFEFF/, '');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (file === undefined && code === 'ENOENT') return;
    problems.push(`the file ${name} cannot be read: ${message}`);
    return;
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    // Not the message: it cites the file, and there may be a password in it.
    const position = /position (\d+)/.exec((error as Error).message)?.[1];
    problems.push(`the file ${name} is no JSON${position === undefined ? '' : `: see character ${position}`}`);
    return;
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    problems.push(
      `the file ${name} holds ${Array.isArray(content) ? 'a list' : content === null ? 'null' : `a ${typeof content}`}; allowed is an object with settings`,
    );
    return;
  }
  for (const [key, value] of Object.entries(content)) {
    const rule = SETTINGS.find((each) => each.name === key);
    if (rule === undefined) problems.push(`${key} from file ${name} is no setting; the nearest is ${nearest(key)}`);
    else take(rule, value as SettingValue, `file ${path.normalize(name)}`);
  }
}

/** A value written as text. What does not parse stays text, and is refused. */
function parsed(rule: SettingRule, said: string): SettingValue {
  switch (rule.kind) {
    case 'integer':
      return /^-?\d{1,16}$/.test(said) ? Number(said) : said;
    case 'boolean':
      return ['true', '1', 'yes', 'on'].includes(said.toLowerCase())
        ? true
        : ['false', '0', 'no', 'off'].includes(said.toLowerCase())
          ? false
          : said;
    case 'list':
      return said
        .split(',')
        .map((item) => item.trim())
        .filter((item) => item !== '');
    default:
      return said;
  }
}

function contradictions(settings: NodeSettings): string[] {
  const problems: string[] = [];
  if (settings.Role === 'leader' && settings.LeaderAddr !== undefined)
    problems.push('LeaderAddr is set, but Role is "leader"; allowed with Role "follower" only');
  if (settings.Eviction !== 'none' && settings.MaxMemoryBytes === undefined)
    problems.push(`Eviction is "${settings.Eviction}", but without MaxMemoryBytes nothing is ever evicted; set MaxMemoryBytes`);
  if ((settings.TlsCertFile === undefined) !== (settings.TlsKeyFile === undefined))
    problems.push('TlsCertFile and TlsKeyFile belong together; set both or none');
  if (settings.TlsClientAuth !== 'none' && (settings.TlsCertFile === undefined || settings.TlsCaFile === undefined))
    problems.push(`TlsClientAuth is "${settings.TlsClientAuth}"; it needs TlsCertFile, TlsKeyFile and TlsCaFile`);
  if (settings.HttpAddr !== undefined && settings.HttpAddr === settings.ListenAddr && !settings.HttpAddr.endsWith(':0'))
    problems.push('HttpAddr and ListenAddr are the same; each server needs an address of its own');
  return problems;
}

/** The name that looks most like one that is none. */
export function nearest(name: string, names: readonly string[] = SETTINGS.map((rule) => rule.name)): string {
  const plain = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  let best = names[0];
  let least = Infinity;
  for (const candidate of names) {
    const distance = editDistance(plain(name), plain(candidate));
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Levenshtein's distance, row by row. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length];
}

/** A value as it may be shown. */
export function shown(rule: SettingRule, value: SettingValue): SettingValue {
  return rule.isSecret === true && value !== undefined ? '***' : value;
}
