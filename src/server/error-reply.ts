/** Errors of the store in the words of Redis, where it has some. */

import { FlashVectorError } from '../index.js';
import { CommandError } from './protocol-error.js';
import { latin1 } from './values.js';

/** @returns the text of the error reply, code first, in one line, a character a byte */
export function errorReply(error: unknown): string {
  const text = error instanceof CommandError ? error.message : latin1(Buffer.from(describeError(error)));
  return text.replace(/[\r\n]+/g, ' ');
}

function describeError(error: unknown): string {
  if (!(error instanceof FlashVectorError)) return `ERR ${error instanceof Error ? error.message : String(error)}`;
  switch (error.code) {
    case 'FV_MEMORY_FULL':
      return "OOM command not allowed when used memory > 'maxmemory'.";
    case 'FV_IO':
    case 'FV_READONLY':
      return `MISCONF Errors writing to the log: ${error.message}. Commands that may modify the data set are disabled until the store is opened again.`;
    case 'FV_CLOSED':
      return 'ERR the server is shutting down';
    case 'FV_CONFLICT':
      return `TRYAGAIN ${error.message}`;
    default:
      return `ERR ${error.message}`;
  }
}
