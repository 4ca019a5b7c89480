/**
 * The one error type of the engine, and the form in which errors cross threads.
 *
 * Structured clone keeps an error's message but drops its `code` and positions, so a worker sends
 * `toErrorData(error)` and the receiving thread rebuilds it with `fromErrorData`.
 */

/** Stable error codes. A code's meaning never changes between versions. */
export type ErrorCode =
  | 'FV_OPTION'
  | 'FV_KEY'
  | 'FV_VALUE'
  | 'FV_LOCKED'
  | 'FV_CLOSED'
  | 'FV_READONLY'
  | 'FV_IO'
  | 'FV_CORRUPT'
  | 'FV_VERSION'
  | 'FV_CONFLICT'
  | 'FV_MEMORY_FULL'
  | 'FV_TIMEOUT'
  | 'FV_ABORTED';

/** Where something happened; only the fields that matter for the error are set. */
export interface ErrorPosition {
  /** Path of the file concerned. */
  file?: string;
  /** Offset in that file, in bytes. */
  offset?: number;
  /** Log sequence number of the record concerned, or the first of a range. */
  lsn?: number;
  /** Last LSN of a range, inclusive. */
  lsnLast?: number;
  /** Process that holds what was asked for (`FV_LOCKED`). */
  pid?: number;
}

/**
 * Every failure that the engine reports on purpose.
 *
 * @example
 * try { await open('./data') } catch (error) {
 *   if (error instanceof FlashVectorError && error.code === 'FV_LOCKED') console.error('in use by', error.pid)
 * }
 */
export class FlashVectorError extends Error implements ErrorPosition {
  readonly code: ErrorCode;
  readonly file?: string;
  readonly offset?: number;
  readonly lsn?: number;
  readonly lsnLast?: number;
  readonly pid?: number;

  constructor(code: ErrorCode, message: string, details: ErrorPosition & { cause?: unknown } = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (details.file !== undefined) this.file = details.file;
    if (details.offset !== undefined) this.offset = details.offset;
    if (details.lsn !== undefined) this.lsn = details.lsn;
    if (details.lsnLast !== undefined) this.lsnLast = details.lsnLast;
    if (details.pid !== undefined) this.pid = details.pid;
  }

  override get name(): string {
    return 'FlashVectorError';
  }
}

/** An error as plain data: what structured clone, JSON and shared memory can carry. */
export interface ErrorData extends ErrorPosition {
  name: string;
  message: string;
  code?: string;
  syscall?: string;
  stack?: string;
  cause?: ErrorData;
}

export function toErrorData(error: unknown): ErrorData {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const source = error as Error & Partial<ErrorData>;
  const data: ErrorData = { name: error.name, message: error.message };
  for (const field of ['code', 'syscall', 'stack', 'file'] as const) {
    if (typeof source[field] === 'string') data[field] = source[field];
  }
  for (const field of ['offset', 'lsn', 'lsnLast', 'pid'] as const) {
    if (typeof source[field] === 'number') data[field] = source[field];
  }
  if (error.cause !== undefined) data.cause = toErrorData(error.cause);
  return data;
}

export function fromErrorData(data: ErrorData): Error {
  const cause = data.cause === undefined ? undefined : fromErrorData(data.cause);
  if (data.name === 'FlashVectorError') {
    return new FlashVectorError(data.code as ErrorCode, data.message, { ...data, cause });
  }
  const error = new Error(data.message, cause === undefined ? undefined : { cause });
  error.name = data.name;
  if (data.stack !== undefined) error.stack = data.stack;
  for (const field of ['code', 'syscall', 'file', 'offset'] as const) {
    if (data[field] !== undefined) Object.assign(error, { [field]: data[field] });
  }
  return error;
}

/** Wraps what a system call threw. The system's own code (`EIO`, `ENOSPC`, …) stays in the message and in `cause`. */
export function ioError(action: string, file: string, cause: unknown, offset?: number): FlashVectorError {
  if (cause instanceof FlashVectorError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new FlashVectorError('FV_IO', `${action} failed on ${file}: ${reason}`, { file, offset, cause });
}

/** Shows a value in an error message: short, on one line, never throwing. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'symbol' || value === null || (typeof value !== 'object' && typeof value !== 'function')) return String(value);
  try {
    if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`;
    if (Array.isArray(value)) return `an array of ${value.length}`;
    const name: unknown = (Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null)?.constructor?.name;
    return typeof name === 'string' && name !== '' ? `an object of type ${name}` : 'an object';
  } catch {
    // A proxy whose traps throw, or that was revoked; a getter in the place of a name.
    return typeof value === 'function' ? 'a function' : 'an object';
  }
}

/** A broken invariant: the engine's own fault, never the user's. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`FlashVector invariant broken: ${message}`);
}
