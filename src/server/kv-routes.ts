/**
 * `/kv`: single keys and ranges as JSON.
 *
 *     GET    /kv/{key}       the value; `ETag` is its version, `X-Expires-At` the moment it expires
 *     PUT    /kv/{key}       sets it; `?ttl=` in ms; `If-Match: "version"`, `If-None-Match: *`
 *     DELETE /kv/{key}       removes it; `If-Match`, `If-None-Match`
 *     GET    /kv?prefix=&gt=&gte=&lt=&lte=&limit=&reverse=&keys=    entries in order, streamed
 *
 * Keys are percent-encoded. Values are JSON; bytes come and go as they are, with `Content-Type: application/octet-stream`, strings with `text/plain`, too.
 */

import { isUtf8 } from 'node:buffer';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { FlashVectorError, type Entry, type FlashVector, type PutOptions } from '../index.js';
import { HttpError } from './http-error.js';
import { percentDecoded } from './http-query.js';
import { fromBytes, jsonReplacer, latin1 } from './values.js';

const KEY_BYTES_MAX = 65_535;
/** Tries of a PUT against other writers of the same key. */
const ATTEMPTS_MAX = 100;
const CHUNK_CHARACTERS = 64 * 1024;
const BYTES_TYPE = 'application/octet-stream';
const BOUNDS = ['gt', 'gte', 'lt', 'lte', 'prefix'] as const;
export const LIST_PARAMETERS = [...BOUNDS, 'limit', 'reverse', 'keys'];
export const PUT_PARAMETERS = ['ttl'];

/** The store's key from a part of a path. @throws HttpError */
export function keyOfPath(encoded: string): string | Buffer {
  const bytes = percentDecoded(encoded);
  if (bytes === undefined) throw new HttpError(400, 'bad_key', 'the key is not percent-encoded properly');
  if (bytes.length === 0 || bytes.length > KEY_BYTES_MAX) throw new HttpError(400, 'bad_key', `a key has 1 to ${KEY_BYTES_MAX} bytes`);
  // It would be a key without a name in a numbered database.
  if (/^!db\d+!$/.test(latin1(bytes))) throw new HttpError(400, 'bad_key', 'this is the beginning of the keys of another database');
  return fromBytes(bytes);
}

type Query = ReadonlyMap<string, string | Buffer>;

function etag(entry: Entry): string {
  return `"${entry.lsn}"`;
}

/** The versions that a condition names; `*`: any. Tags that are none of this server's name no version. @throws HttpError when it is no list of tags */
function versionsOf(header: string, name: 'If-Match' | 'If-None-Match'): '*' | number[] {
  if (header.trim() === '*') return '*';
  const versions: number[] = [];
  for (const tag of header.split(',')) {
    const match = /^\s*(W\/)?"([^"]*)"\s*$/.exec(tag);
    if (match === null)
      throw new HttpError(400, 'bad_condition', `${name} is ${JSON.stringify(header)}; allowed are versions such as "42", and *`);
    // A weak tag never matches where a write depends on it.
    if ((match[1] === undefined || name === 'If-None-Match') && /^\d{1,16}$/.test(match[2])) versions.push(Number(match[2]));
  }
  return versions;
}

/** Whether the conditions of a request hold for what is there. @throws HttpError when they make no sense */
function conditionOf(request: IncomingMessage): (entry: Entry | undefined) => boolean {
  const match = request.headers['if-match'];
  const noneMatch = request.headers['if-none-match'];
  const wanted = match === undefined ? undefined : versionsOf(match, 'If-Match');
  const unwanted = noneMatch === undefined ? undefined : versionsOf(noneMatch, 'If-None-Match');
  const isNamed = (entry: Entry | undefined, versions: '*' | number[]): boolean =>
    entry !== undefined && (versions === '*' || versions.includes(entry.lsn));
  return (entry) => (wanted === undefined || isNamed(entry, wanted)) && (unwanted === undefined || !isNamed(entry, unwanted));
}

const stale = (): HttpError => new HttpError(412, 'precondition_failed', 'the version of the entry is another one; nothing was written');

export function getKey(db: FlashVector, request: IncomingMessage, response: ServerResponse, key: string | Buffer): void {
  const entry = db.getEntry(key);
  if (entry === undefined) throw new HttpError(404, 'not_found', 'there is no such key');
  const tag = etag(entry);
  response.setHeader('ETag', tag);
  response.setHeader('Cache-Control', 'no-cache');
  if (entry.expiresAt !== undefined) response.setHeader('X-Expires-At', new Date(entry.expiresAt).toISOString());
  const match = request.headers['if-match'];
  if (match !== undefined) {
    const versions = versionsOf(match, 'If-Match');
    if (versions !== '*' && !versions.includes(entry.lsn)) throw stale();
  }
  const noneMatch = request.headers['if-none-match'];
  if (noneMatch !== undefined) {
    const versions = versionsOf(noneMatch, 'If-None-Match');
    if (versions === '*' || versions.includes(entry.lsn)) {
      response.writeHead(304).end();
      return;
    }
  }
  const { value } = entry;
  if (value instanceof Uint8Array) {
    response.writeHead(200, { 'Content-Type': BYTES_TYPE, 'Content-Length': value.byteLength });
    response.end(request.method === 'HEAD' ? undefined : value);
    return;
  }
  const body = Buffer.from(JSON.stringify(value, jsonReplacer) ?? 'null');
  response.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': body.length });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** The body of a PUT as the value to be stored. @throws HttpError */
function valueOf(request: IncomingMessage, body: Buffer): unknown {
  const type = (request.headers['content-type'] ?? 'application/json').split(';')[0].trim().toLowerCase();
  if (type === BYTES_TYPE) return body;
  if (!isUtf8(body)) throw new HttpError(400, 'bad_encoding', `the body is not UTF-8; bytes are sent as ${BYTES_TYPE}`);
  if (type === 'text/plain') return fromBytes(body);
  if (type !== 'application/json' && !type.endsWith('+json'))
    throw new HttpError(
      415,
      'unsupported_type',
      `Content-Type is ${JSON.stringify(type)}; allowed are application/json, text/plain and ${BYTES_TYPE}`,
    );
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new HttpError(400, 'bad_json', `the body is no JSON: ${(error as Error).message}`);
  }
}

export async function putKey(
  db: FlashVector,
  request: IncomingMessage,
  response: ServerResponse,
  key: string | Buffer,
  query: Query,
  body: Buffer,
): Promise<void> {
  const options: PutOptions = {};
  const ttl = textOf(query, 'ttl');
  if (ttl !== undefined) {
    if (!/^\d{1,15}$/.test(ttl) || Number(ttl) === 0)
      throw new HttpError(400, 'bad_query', `ttl is ${JSON.stringify(ttl)}; allowed is a number of milliseconds above 0`);
    options.ttl = Number(ttl);
  }
  const value = valueOf(request, body);
  const holds = conditionOf(request);
  for (let attempt = 0; ; attempt++) {
    const entry = db.getEntry(key);
    if (!holds(entry)) throw stale();
    try {
      // With a condition of its own the write tells its own version, which is what the client may build on.
      const lsn = await db.put(key, value, { ...options, ...(entry === undefined ? { ifAbsent: true } : { ifVersion: entry.lsn }) });
      response.writeHead(entry === undefined ? 201 : 204, { ETag: `"${lsn}"` });
      response.end();
      return;
    } catch (error) {
      const isLate = error instanceof FlashVectorError && error.code === 'FV_CONFLICT';
      if (!isLate || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

export async function deleteKey(db: FlashVector, request: IncomingMessage, response: ServerResponse, key: string | Buffer): Promise<void> {
  const holds = conditionOf(request);
  let outcome: 'gone' | 'absent' | 'stale' = 'absent';
  await db.modify(key, (entry) => {
    outcome = !holds(entry) ? 'stale' : entry === undefined ? 'absent' : 'gone';
    return outcome === 'gone' ? null : undefined;
  });
  if ((outcome as string) === 'stale') throw stale();
  if ((outcome as string) === 'absent') throw new HttpError(404, 'not_found', 'there is no such key');
  response.writeHead(204).end();
}

export async function listKeys(db: FlashVector, request: IncomingMessage, response: ServerResponse, query: Query): Promise<void> {
  const range: Record<string, string | Buffer | boolean | number> = {};
  for (const name of BOUNDS) {
    const bound = query.get(name);
    if (bound !== undefined && bound.length > 0) range[name] = bound;
  }
  const limit = textOf(query, 'limit');
  if (limit !== undefined) {
    if (!/^\d{1,15}$/.test(limit))
      throw new HttpError(400, 'bad_query', `limit is ${JSON.stringify(limit)}; allowed is a number of entries`);
    range.limit = Number(limit);
  }
  range.reverse = isTrue(query, 'reverse');
  const wantsKeysOnly = isTrue(query, 'keys');
  const source: AsyncIterable<unknown> = wantsKeysOnly ? db.keys(range) : db.entries(range);
  response.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8' });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  // A client that goes away ends the reading, too.
  await pipeline(Readable.from(chunksOf(source, wantsKeysOnly), { objectMode: false }), response).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  });
}

/** A JSON array in pieces, an entry a line. */
async function* chunksOf(source: AsyncIterable<unknown>, keysOnly: boolean): AsyncGenerator<string> {
  let text = '[';
  let isFirst = true;
  for await (const item of source) {
    const line = keysOnly ? JSON.stringify(keyText(item as string | Uint8Array)) : entryText(item as [string | Uint8Array, unknown]);
    text += `${isFirst ? '' : ',\n'}${line}`;
    isFirst = false;
    if (text.length < CHUNK_CHARACTERS) continue;
    yield text;
    text = '';
  }
  yield `${text}]\n`;
}

function entryText([key, value]: [string | Uint8Array, unknown]): string {
  return JSON.stringify({ key: keyText(key), value }, jsonReplacer);
}

/** A key that is not UTF-8 is shown in base64. */
function keyText(key: string | Uint8Array): string | { base64: string } {
  return typeof key === 'string' ? key : { base64: Buffer.from(key).toString('base64') };
}

/** A parameter that is no key. What is not UTF-8 is shown as it can be, and refused by who asks. */
function textOf(query: Query, name: string): string | undefined {
  return query.get(name)?.toString();
}

function isTrue(query: Query, name: string): boolean {
  const value = textOf(query, name);
  if (value === undefined || value === 'false' || value === '0') return false;
  if (value === '' || value === 'true' || value === '1') return true;
  throw new HttpError(400, 'bad_query', `${name} is ${JSON.stringify(value)}; allowed is true or false`);
}
