/** `/metrics`: the store's own text, and through prom-client what the servers and the process have. Counted where it happens, collected when asked. */

import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';
import type { FlashVector } from '../index.js';
import type { RespServer } from './resp-server.js';

export class NodeMetrics {
  readonly #registry = new Registry();
  db: FlashVector | undefined;
  server: RespServer | undefined;
  /** Failures to replicate. There is no replication yet, so there are none. */
  replicationFailures = 0;

  constructor(labels: { node: string; role: string }) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    new Gauge({ name: 'flashvector_node_info', help: 'Name and role of the node', labelNames: ['node', 'role'], registers }).set(labels, 1);
    const counter = (name: string, help: string, read: () => number): void => {
      const made: Counter = new Counter({
        name,
        help,
        registers,
        collect: () => {
          made.reset();
          made.inc(read());
        },
      });
    };
    const counts = (): Partial<RespServer['counts']> => this.server?.counts ?? {};
    counter('flashvector_replication_failures_total', 'Failures to replicate a change', () => this.replicationFailures);
    counter('flashvector_resp_connections_total', 'Redis clients that have connected', () => counts().connections ?? 0);
    counter('flashvector_resp_refused_connections_total', 'Redis clients that were refused', () => counts().refusedConnections ?? 0);
    counter('flashvector_resp_refused_passwords_total', 'Wrong passwords', () => counts().refusedPasswords ?? 0);
    counter('flashvector_resp_commands_total', 'Commands run', () => counts().commands ?? 0);
    counter('flashvector_resp_errors_total', 'Commands whose reply was an error', () => counts().errors ?? 0);
    counter('flashvector_resp_input_bytes_total', 'Bytes received from Redis clients', () => counts().inputBytes ?? 0);
    counter('flashvector_resp_output_bytes_total', 'Bytes sent to Redis clients', () => counts().outputBytes ?? 0);
    const connected = (): number => this.server?.connectionCount ?? 0;
    const connections: Gauge = new Gauge({
      name: 'flashvector_resp_connections',
      help: 'Redis clients that are connected',
      registers,
      collect: () => connections.set(connected()),
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    const own = await this.#registry.metrics();
    return this.db === undefined || this.db.status === 'closed' ? own : `${own}\n${this.db.metrics()}`;
  }
}
