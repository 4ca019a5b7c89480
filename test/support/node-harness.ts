/** Nodes and Redis servers that tests start, and end again. */

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { loadSettings } from '../../src/config/load.js';
import type { NodeSettings } from '../../src/config/settings.js';
import type { Log } from '../../src/server/log.js';
import { FlashVectorNode } from '../../src/server/node.js';
import { RespClient } from './resp-client.js';
import { tempFolder } from './temp.js';

export const CLI = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** Keeps what is logged. */
export class MemoryLog implements Log {
  readonly lines: { level: string; message: string; facts: object }[] = [];
  #keep(level: string) {
    return (facts: object, message: string): void => void this.lines.push({ level, message, facts });
  }
  readonly debug = this.#keep('debug');
  readonly info = this.#keep('info');
  readonly warn = this.#keep('warn');
  readonly error = this.#keep('error');
}

export function settingsWith(changes: Partial<NodeSettings>): NodeSettings {
  const { settings } = loadSettings({ environment: {}, flags: {}, file: emptyFile });
  return { ...settings, ListenAddr: ':0', HttpAddr: 'off', SnapshotIntervalSeconds: 0, ...changes };
}

const emptyFile = fileURLToPath(new URL('../../../test/fixture/empty-config.json', import.meta.url));

export interface RunningNode {
  node: FlashVectorNode;
  log: MemoryLog;
  port: number;
  httpPort: number;
  folder: string;
  client: () => Promise<RespClient>;
}

/** A node in this process, stopped when the test ends. */
export async function startNode(t: Tap.Test, changes: Partial<NodeSettings> = {}): Promise<RunningNode> {
  const folder = changes.DataDir ?? path.join(tempFolder(t), 'data');
  const log = new MemoryLog();
  const node = new FlashVectorNode(settingsWith({ ...changes, DataDir: folder }), log, '0.0.0-test');
  await node.start();
  const clients: RespClient[] = [];
  t.teardown(async () => {
    for (const client of clients) client.close();
    await node.stop('the test has ended');
  });
  const { port } = node.respAddress;
  return {
    node,
    log,
    port,
    httpPort: node.httpAddress?.port ?? 0,
    folder,
    client: async () => {
      const client = await RespClient.connect(port);
      clients.push(client);
      return client;
    },
  };
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export async function untilListening(port: number, child: ChildProcess): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    const socket = net.connect(port, '127.0.0.1');
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await sleep(25);
  }
  throw new Error(`nothing listens on port ${port}`);
}

/** A real redis-server, or `undefined` where none is installed. */
export async function startRedis(t: Tap.Test, ...options: string[]): Promise<number | undefined> {
  const port = await freePort();
  const child = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', tempFolder(t), ...options],
    {
      stdio: 'ignore',
    },
  );
  const isMissing = await new Promise<boolean>((resolve) => {
    child.once('error', () => resolve(true));
    child.once('spawn', () => resolve(false));
  });
  if (isMissing) return undefined;
  t.teardown(async () => {
    if (child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  await untilListening(port, child);
  return port;
}

export const NO_REDIS = 'redis-server and redis-tools are not installed (Debian: apt-get install redis-server redis-tools)';
