/** The HTTP server: whether the node lives and is ready, metrics, statistics, and `/kv`. */

import { once } from 'node:events';
import { createServer as createPlainServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import type { FlashVector } from '../index.js';
import { HANDSHAKE_TIMEOUT_MS, Handshakes } from './handshakes.js';
import { HttpError, httpErrorOf } from './http-error.js';
import { queryOf } from './http-query.js';
import { LIST_PARAMETERS, PUT_PARAMETERS, deleteKey, getKey, keyOfPath, listKeys, putKey } from './kv-routes.js';
import type { Log } from './log.js';
import { isLoopback } from './loopback.js';
import type { NodeMetrics } from './node-metrics.js';
import type { Passwords } from './passwords.js';
import { jsonReplacer } from './values.js';

export interface HttpServerOptions {
  host: string;
  port: number;
  tls: TlsOptions | undefined;
  bodyBytesMax: number;
  connectionsMax: number;
  isProtected: boolean;
  enableMetrics: boolean;
  /** Where writes are to go: set on a follower, empty when nobody knows. */
  leader: string | undefined;
}

/** How the node is. The store is there once it is open. */
export interface NodeState {
  db: () => FlashVector | undefined;
  /** Why it is not ready, if so. */
  unready: () => string | undefined;
  metrics: NodeMetrics;
}

const REQUEST_TIMEOUT_MS = 60_000;
const HEADERS_TIMEOUT_MS = 10_000;
const REST_TIMEOUT_MS = 2000;
const CLOSE_TIMEOUT_MS = 3000;
/** Of the request line and the headers: a key of 64 KiB, each byte percent-encoded, fits. */
const HEADER_BYTES_MAX = 256 * 1024;
/** A client that takes nothing of its answer for so long is cut off: what it reads is kept for it. */
const ANSWER_TIMEOUT_MS = 30_000;
const OPEN_PATHS = new Set(['/healthz', '/readyz']);

export class HttpServer {
  readonly #server: Server;
  readonly #handshakes: Handshakes | undefined;
  /** What is under way on each connection: requests that come together are answered one after the other. */
  readonly #turns = new WeakMap<Socket, Promise<void>>();
  /** Those on which something is under way. */
  readonly #pending = new WeakSet<Socket>();

  constructor(
    readonly options: HttpServerOptions,
    readonly state: NodeState,
    readonly passwords: Passwords,
    readonly log: Log,
  ) {
    const handle = (request: IncomingMessage, response: ServerResponse): void => this.#queue(request, response);
    const limits = {
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      maxHeaderSize: HEADER_BYTES_MAX,
      // It would be refused without a body; here it gets its error as all others do.
      requireHostHeader: false,
    };
    if (options.tls === undefined) this.#server = createPlainServer(limits, handle);
    else {
      const server = createTlsServer({ ...limits, handshakeTimeout: HANDSHAKE_TIMEOUT_MS, ...options.tls }, handle);
      this.#handshakes = new Handshakes(server, () => true);
      this.#server = server;
    }
    this.#server.maxConnections = options.connectionsMax;
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#refuse(error.code, socket as Socket));
    this.#server.on('connection', (socket: Socket) => {
      if (options.isProtected && !passwords.isSet && !isLoopback(socket.remoteAddress)) socket.destroy();
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? this.options.port;
  }

  async listen(): Promise<void> {
    this.#server.listen(this.options.port, this.options.host);
    await once(this.#server, 'listening');
  }

  /** What came makes no sense. What was asked before it is answered, and nothing is said in the middle of that. */
  #refuse(code: string | undefined, socket: Socket): void {
    const turn = this.#pending.has(socket) ? this.#turns.get(socket) : undefined;
    if (turn !== undefined) void turn.then(() => socket.end());
    else if (socket.writable) socket.end(answerToNoRequest(code));
    else socket.destroy();
  }

  /** A request sees what the one before it on its connection has done. */
  #queue(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const before = this.#pending.has(socket) ? this.#turns.get(socket) : undefined;
    // `#answer` never rejects.
    const turn = before === undefined ? this.#answer(request, response) : before.then(() => this.#answer(request, response));
    this.#turns.set(socket, turn);
    this.#pending.add(socket);
    void turn.then(() => {
      if (this.#turns.get(socket) === turn) this.#pending.delete(socket);
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => response.destroy());
    response.setTimeout(ANSWER_TIMEOUT_MS, () => response.destroy());
    try {
      await this.#route(request, response);
    } catch (error) {
      if (response.destroyed) {
        this.log.debug({ url: request.url }, 'an HTTP client went away');
        return;
      }
      const answer = httpErrorOf(error);
      if (answer.status === 500) this.log.error({ err: error, url: request.url }, 'an HTTP request failed');
      if (response.headersSent) {
        // The beginning is on its way: breaking off is all that is left to say.
        response.destroy();
        return;
      }
      const body = JSON.stringify({ error: { code: answer.code, message: answer.message } });
      response.writeHead(answer.status, {
        'Content-Type': 'application/json; charset=utf-8',
        ...answer.headers,
        'Content-Length': Buffer.byteLength(body),
      });
      response.end(request.method === 'HEAD' ? undefined : body);
      // What is left of a body that nobody wants is read away, for a while: a client that is still sending would not see the answer.
      if (request.complete) return;
      request.resume();
      const timer = setTimeout(() => request.socket.destroy(), REST_TIMEOUT_MS);
      request.once('close', () => clearTimeout(timer));
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path, search = ''] = splitOnce(request.url ?? '/', '?');
    if (request.httpVersion === '1.1' && request.headers.host === undefined)
      throw new HttpError(400, 'bad_request', 'a request says which host it is for');
    if (!OPEN_PATHS.has(path)) {
      this.#checkHost(request);
      await this.#authorize(request);
    }
    switch (path) {
      case '/healthz':
        allow(request, 'GET', 'HEAD');
        sendText(request, response, 200, 'ok\n');
        return;
      case '/readyz': {
        allow(request, 'GET', 'HEAD');
        const reason = this.state.unready();
        sendText(request, response, reason === undefined ? 200 : 503, `${reason ?? 'ready'}\n`);
        return;
      }
      case '/metrics':
        if (!this.options.enableMetrics) break;
        allow(request, 'GET', 'HEAD');
        response.setHeader('Content-Type', this.state.metrics.contentType);
        sendText(request, response, 200, await this.state.metrics.text());
        return;
      case '/stats':
        allow(request, 'GET', 'HEAD');
        response.setHeader('Content-Type', 'application/json; charset=utf-8');
        sendText(request, response, 200, `${JSON.stringify(this.#db().stats(), jsonReplacer)}\n`);
        return;
      case '/kv':
      case '/kv/':
        allow(request, 'GET', 'HEAD');
        await listKeys(this.#db(), request, response, queryOf(search, LIST_PARAMETERS));
        return;
      default:
        if (path.startsWith('/kv/')) {
          await this.#key(request, response, keyOfPath(path.slice(4)), search);
          return;
        }
    }
    throw new HttpError(404, 'not_found', 'there is nothing here; see /kv, /stats, /metrics, /healthz, /readyz');
  }

  async #key(request: IncomingMessage, response: ServerResponse, key: string | Buffer, search: string): Promise<void> {
    allow(request, 'GET', 'HEAD', 'PUT', 'DELETE');
    const db = this.#db();
    const query = queryOf(search, request.method === 'PUT' ? PUT_PARAMETERS : []);
    if (request.method === 'GET' || request.method === 'HEAD') {
      getKey(db, request, response, key);
      return;
    }
    const { leader } = this.options;
    if (leader !== undefined)
      throw new HttpError(
        421,
        'FV_NOT_LEADER',
        `this node is a follower and takes no writes${leader === '' ? '' : `; the leader is ${leader}`}`,
      );
    if (request.method === 'DELETE') await deleteKey(db, request, response, key);
    else await putKey(db, request, response, key, query, await this.#body(request));
  }

  #db(): FlashVector {
    const db = this.state.db();
    if (db === undefined) throw new HttpError(503, 'not_ready', this.state.unready() ?? 'the store is not open yet');
    return db;
  }

  /**
   * Without a password only names of this machine are answered: a page in a browser here could otherwise reach the node under a name of its own.
   * @throws HttpError
   */
  #checkHost(request: IncomingMessage): void {
    if (this.passwords.isSet || !this.options.isProtected) return;
    const host = (request.headers.host ?? '').replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
    if (host === '' || host === 'localhost' || host === this.options.host || isLoopback(host)) return;
    throw new HttpError(403, 'forbidden_host', 'without a password only requests to the name of this machine are answered');
  }

  /** @throws HttpError */
  async #authorize(request: IncomingMessage): Promise<void> {
    if (!this.passwords.isSet) return;
    const token = /^Bearer\s+(.+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const challenge = { 'WWW-Authenticate': 'Bearer realm="flashvector"' };
    if (token === undefined) throw new HttpError(401, 'FV_AUTH', 'a bearer token is needed: the password of the node', challenge);
    // Headers come a character a byte; the password is the bytes.
    const verdict = await this.passwords.check(`${request.socket.remoteAddress ?? ''}:0`, Buffer.from(token, 'latin1'));
    if (verdict === 'right') return;
    if (verdict === 'busy')
      throw new HttpError(429, 'FV_AUTH', 'too many wrong tokens came from this host; try again later', { 'Retry-After': '1' });
    throw new HttpError(401, 'FV_AUTH', 'the bearer token is wrong', challenge);
  }

  #body(request: IncomingMessage): Promise<Buffer> {
    const tooLong = (): HttpError =>
      new HttpError(413, 'too_large', `a body has at most ${this.options.bodyBytesMax} bytes`, { Connection: 'close' });
    if (Number(request.headers['content-length'] ?? 0) > this.options.bodyBytesMax) return Promise.reject(tooLong());
    const chunks: Buffer[] = [];
    let length = 0;
    // Not by iterating: leaving an iteration early would end the connection before the answer.
    return new Promise((resolve, reject) => {
      request.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > this.options.bodyBytesMax) reject(tooLong());
        else chunks.push(chunk);
      });
      request.once('end', () => resolve(Buffer.concat(chunks, length)));
      request.once('error', reject);
      request.once('close', () => reject(new HttpError(400, 'bad_request', 'the body came to no end')));
    });
  }

  /** Takes no more requests; resolves when those under way are answered, or after `graceMs`, and no later than after some seconds. */
  async close(graceMs = Infinity): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    this.#handshakes?.destroy();
    // Who has not even sent the whole request, or does not read the answer, must not hold up the end.
    const timer = setTimeout(() => this.#server.closeAllConnections(), Math.min(graceMs, CLOSE_TIMEOUT_MS));
    await closed;
    clearTimeout(timer);
  }

  destroy(): void {
    this.#server.close();
    this.#handshakes?.destroy();
    this.#server.closeAllConnections();
  }
}

/** What came was no request. */
function answerToNoRequest(code: string | undefined): string {
  const [status, name, message] =
    code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'too_large', `a request and its headers have at most ${HEADER_BYTES_MAX} bytes`]
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'timeout', 'the request did not come in time']
        : ['400 Bad Request', 'bad_request', 'this is no HTTP request'];
  const body = JSON.stringify({ error: { code: name, message } });
  const head = ['Connection: close', 'Content-Type: application/json; charset=utf-8', `Content-Length: ${body.length}`];
  return `HTTP/1.1 ${status}\r\n${head.join('\r\n')}\r\n\r\n${body}`;
}

function splitOnce(text: string, at: string): [string, string?] {
  const place = text.indexOf(at);
  return place < 0 ? [text] : [text.slice(0, place), text.slice(place + 1)];
}

/** @throws HttpError */
function allow(request: IncomingMessage, ...methods: string[]): void {
  if (!methods.includes(request.method ?? ''))
    throw new HttpError(405, 'method_not_allowed', `allowed are ${methods.join(', ')}`, { Allow: methods.join(', ') });
}

function sendText(request: IncomingMessage, response: ServerResponse, status: number, text: string): void {
  if (!response.hasHeader('Content-Type')) response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.writeHead(status, { 'Content-Length': Buffer.byteLength(text), 'Cache-Control': 'no-store' });
  response.end(request.method === 'HEAD' ? undefined : text);
}
