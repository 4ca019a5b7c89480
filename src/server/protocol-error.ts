/** Errors whose text is the reply: of a command, and of a stream that is no RESP and is cut off after the reply. */

export class CommandError extends Error {
  override readonly name: string = 'CommandError';

  /** @param message the error reply with its code, as Redis words it: `ERR syntax error` */
  // oxlint-disable-next-line no-useless-constructor
  constructor(message: string) {
    super(message);
  }
}

export class ProtocolError extends CommandError {
  override readonly name = 'ProtocolError';

  constructor(what: string) {
    super(`ERR Protocol error: ${what}`);
  }
}

export const SYNTAX_ERROR = 'ERR syntax error';
export const NOT_AN_INTEGER = 'ERR value is not an integer or out of range';
export const NOT_A_FLOAT = 'ERR value is not a valid float';
