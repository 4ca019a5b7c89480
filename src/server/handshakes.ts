/**
 * Connections that are still to prove that they speak TLS. The servers see a connection only when its handshake is done; until then it must count and be ended
 * like any other.
 */

import type { Socket } from 'node:net';
import type { Server, TLSSocket } from 'node:tls';

/** A handshake takes no longer. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

export class Handshakes {
  /** By the client's address and port, which the secured socket has, too. */
  readonly #sockets = new Map<string, Socket>();

  /** @param hasRoom asked before each handshake with the number of those under way; without room the connection is ended at once */
  constructor(server: Server, hasRoom: (count: number) => boolean) {
    server.on('connection', (socket: Socket) => {
      if (!hasRoom(this.#sockets.size)) {
        socket.destroy();
        return;
      }
      const client = clientOf(socket);
      this.#sockets.set(client, socket);
      socket.once('close', () => {
        if (this.#sockets.get(client) === socket) this.#sockets.delete(client);
      });
    });
    server.on('secureConnection', (socket: TLSSocket) => this.#sockets.delete(clientOf(socket)));
  }

  /** Ends all that are not done: nothing has been asked on them yet. */
  destroy(): void {
    for (const socket of this.#sockets.values()) socket.destroy();
  }
}

function clientOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
