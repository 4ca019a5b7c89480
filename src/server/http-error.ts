/** Errors whose text and status are the answer of the HTTP server. */

import { FlashVectorError } from '../index.js';

export class HttpError extends Error {
  override readonly name = 'HttpError';

  constructor(
    readonly status: number,
    /** A word for programs, such as `not_found`. */
    readonly code: string,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}

const STATUS: Partial<Record<string, number>> = {
  FV_CONFLICT: 412,
  FV_KEY: 400,
  FV_VALUE: 400,
  FV_OPTION: 400,
  FV_MEMORY_FULL: 507,
  FV_READONLY: 503,
  FV_CLOSED: 503,
  FV_IO: 503,
  FV_TIMEOUT: 503,
};

/** What the store or the parser threw, as an answer. */
export function httpErrorOf(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof FlashVectorError) return new HttpError(STATUS[error.code] ?? 500, error.code, error.message);
  if (error instanceof TypeError) return new HttpError(400, 'bad_request', error.message);
  return new HttpError(500, 'internal', 'the server could not answer; its log says why');
}
