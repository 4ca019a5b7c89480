/** What a command is, and the table in which it is looked up. */

import type { Session } from './session.js';

type CommandFlag =
  | 'write'
  | 'readonly'
  | 'denyoom'
  | 'admin'
  | 'pubsub'
  | 'fast'
  | 'loading'
  | 'stale'
  | 'noscript'
  | 'no_auth'
  /** Not between MULTI and EXEC. */
  | 'no_multi';

type CommandGroup = 'string' | 'bitmap' | 'generic' | 'transactions' | 'pubsub' | 'connection' | 'server' | 'flashvector';

export interface Command {
  /** In lower case. */
  name: string;
  /** Number of arguments with the name; negative: at least so many. */
  arity: number;
  flags: readonly CommandFlag[];
  /** Which arguments are keys: first, last (negative: from the end), step. 0 for none. */
  keys: readonly [first: number, last: number, step: number];
  group: CommandGroup;
  /** Where the first argument says what to do: the arity of each, with the command's name counted. */
  subcommands?: Readonly<Record<string, number>>;
  /** What it does, in a sentence. */
  summary: string;
  /**
   * @param args the command's name is the first
   * @returns a promise when the reply comes later; it is written by then
   * @throws CommandError: the reply
   */
  run: (session: Session, args: Buffer[]) => Promise<void> | undefined | void;
}

export const NO_KEYS = [0, 0, 0] as const;
export const ONE_KEY = [1, 1, 1] as const;
export const ALL_KEYS = [1, -1, 1] as const;

export class CommandTable {
  readonly #byName = new Map<string, Command>();

  add(commands: readonly Command[]): void {
    for (const command of commands) this.#byName.set(command.name, command);
  }

  /** @param name in any case */
  find(name: string): Command | undefined {
    return this.#byName.get(name) ?? this.#byName.get(name.toLowerCase());
  }

  get size(): number {
    return this.#byName.size;
  }

  all(): Iterable<Command> {
    return this.#byName.values();
  }

  /** Which of the arguments are keys. */
  static keysOf(command: Command, args: readonly Buffer[]): Buffer[] {
    const [first, last, step] = command.keys;
    if (first === 0) return [];
    const end = last < 0 ? args.length + last : last;
    const keys: Buffer[] = [];
    for (let i = first; i <= end; i += step) keys.push(args[i]);
    return keys;
  }
}

export function hasArity(arity: number, count: number): boolean {
  return arity >= 0 ? count === arity : count >= -arity;
}
