/** What commands with subcommands have in common. */

import { CommandError } from './protocol-error.js';
import type { Session } from './session.js';
import { latin1 } from './values.js';

export function replyHelp(session: Session, lines: readonly string[]): void {
  session.reply.array(lines.length);
  for (const line of lines) session.reply.status(line);
}

export function unknownSubcommand(args: readonly Buffer[]): CommandError {
  return new CommandError(`ERR unknown subcommand '${args[1].toString('latin1', 0, 128)}'. Try ${latin1(args[0]).toUpperCase()} HELP.`);
}
