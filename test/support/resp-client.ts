/** A plain client for tests: sends bytes or commands, gives back replies as they came. */

import { once } from 'node:events';
import net from 'node:net';

/** Statuses as `+OK`, errors as `-ERR …`, bulk strings in latin1, maps as `{ map }`, sets as `{ set }`, messages as `{ push }`. */
export type Reply =
  | string
  | number
  | bigint
  | boolean
  | null
  | Reply[]
  | { bulk: string }
  | { map: Reply[] }
  | { set: Reply[] }
  | { push: Reply[] }
  | { double: string };

export function encodeCommand(args: readonly (string | Buffer | number)[]): Buffer {
  const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)];
  for (const arg of args) {
    const bytes = Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg));
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n'));
  }
  return Buffer.concat(parts);
}

export class RespClient {
  #buffer: Buffer = Buffer.alloc(0);
  #replies: Reply[] = [];
  #waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void }[] = [];
  isClosed = false;

  constructor(readonly socket: net.Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#parse();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.isClosed = true;
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('the connection was closed'));
    });
  }

  static async connect(port: number): Promise<RespClient> {
    const socket = net.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new RespClient(socket);
  }

  send(...args: (string | Buffer | number)[]): void {
    this.socket.write(encodeCommand(args));
  }

  /** The next reply that has not been taken. */
  next(): Promise<Reply> {
    const reply = this.#replies.shift();
    if (reply !== undefined) return Promise.resolve(reply);
    if (this.isClosed) return Promise.reject(new Error('the connection was closed'));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  call(...args: (string | Buffer | number)[]): Promise<Reply> {
    this.send(...args);
    return this.next();
  }

  /** Sends commands in one piece and takes as many replies. */
  async pipeline(commands: readonly (readonly (string | Buffer | number)[])[]): Promise<Reply[]> {
    this.socket.write(Buffer.concat(commands.map(encodeCommand)));
    const replies: Reply[] = [];
    for (let i = 0; i < commands.length; i++) replies.push(await this.next());
    return replies;
  }

  close(): void {
    this.socket.destroy();
  }

  /** Resolves when the other side has closed. */
  async closed(): Promise<void> {
    if (!this.isClosed) await once(this.socket, 'close');
  }

  #parse(): void {
    let at = 0;
    for (;;) {
      const found = parseReply(this.#buffer, at);
      if (found === undefined) break;
      at = found.next;
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#replies.push(found.reply);
      else waiting.resolve(found.reply);
    }
    if (at > 0) this.#buffer = this.#buffer.subarray(at);
  }
}

function parseReply(buffer: Buffer, at: number): { reply: Reply; next: number } | undefined {
  const end = buffer.indexOf('\r\n', at);
  if (end < 0) return undefined;
  const type = String.fromCharCode(buffer[at]);
  const text = buffer.toString('latin1', at + 1, end);
  const next = end + 2;
  switch (type) {
    case '+':
    case '-':
      return { reply: `${type}${text}`, next };
    case ':':
      return { reply: Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text), next };
    case '_':
      return { reply: null, next };
    case '#':
      return { reply: text === 't', next };
    case ',':
      return { reply: { double: text }, next };
    case '$':
    case '=': {
      const length = Number(text);
      if (length < 0) return { reply: null, next };
      if (buffer.length < next + length + 2) return undefined;
      return { reply: { bulk: buffer.toString('latin1', next, next + length) }, next: next + length + 2 };
    }
    case '*':
    case '~':
    case '>':
    case '%': {
      const count = Number(text) * (type === '%' ? 2 : 1);
      if (count < 0) return { reply: null, next };
      const items: Reply[] = [];
      let from = next;
      for (let i = 0; i < count; i++) {
        const item = parseReply(buffer, from);
        if (item === undefined) return undefined;
        items.push(item.reply);
        from = item.next;
      }
      const reply: Reply = type === '*' ? items : type === '~' ? { set: items } : type === '>' ? { push: items } : { map: items };
      return { reply, next: from };
    }
    default:
      throw new Error(`not a reply: ${JSON.stringify(buffer.toString('latin1', at, end))}`);
  }
}

/** The text of a bulk string or status. */
export function textOf(reply: Reply): string {
  if (typeof reply === 'object' && reply !== null && 'bulk' in reply) return reply.bulk;
  if (typeof reply === 'string') return reply.slice(1);
  throw new Error(`no text: ${JSON.stringify(reply)}`);
}
