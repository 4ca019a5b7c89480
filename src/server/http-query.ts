/** The query of a request. Its values are bytes, percent-encoded: a key need not be UTF-8. */

import { HttpError } from './http-error.js';
import { fromBytes, latin1 } from './values.js';

const ENCODED = /^(?:[^%]|%[0-9A-Fa-f]{2})*$/;

/** @returns `undefined` when a percent sign is not followed by two hexadecimal digits */
export function percentDecoded(encoded: string): Buffer | undefined {
  if (!ENCODED.test(encoded)) return undefined;
  return Buffer.from(
    encoded.replace(/%([0-9A-Fa-f]{2})|([^%]+)/g, (_, code: string | undefined, plain: string | undefined) =>
      code === undefined ? Buffer.from(plain ?? '').toString('latin1') : String.fromCharCode(Number.parseInt(code, 16)),
    ),
    'latin1',
  );
}

/**
 * @param search what stands behind the question mark
 * @param allowed names of parameters
 * @returns by name, each once: a string, or bytes where it is not UTF-8
 * @throws HttpError
 */
export function queryOf(search: string, allowed: readonly string[]): Map<string, string | Buffer> {
  const query = new Map<string, string | Buffer>();
  for (const pair of search.split('&')) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    const [name, value] = [at < 0 ? pair : pair.slice(0, at), at < 0 ? '' : pair.slice(at + 1)].map((part) =>
      percentDecoded(part.replaceAll('+', ' ')),
    );
    if (name === undefined || value === undefined)
      throw new HttpError(400, 'bad_query', `${JSON.stringify(pair)} is not percent-encoded properly`);
    const known = latin1(name);
    if (!allowed.includes(known)) {
      const choice = allowed.length === 0 ? 'none is allowed' : `allowed are ${allowed.join(', ')}`;
      throw new HttpError(400, 'bad_query', `there is no parameter ${JSON.stringify(name.toString())}; ${choice}`);
    }
    if (query.has(known)) throw new HttpError(400, 'bad_query', `the parameter ${known} is given twice`);
    query.set(known, fromBytes(value));
  }
  return query;
}
