/** Settings: file, environment, flags, and all that can be wrong with them. */

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { formatAddress, parseAddress } from '../../src/config/addresses.js';
import { loadSettings, SettingsError } from '../../src/config/load.js';
import { DURABILITY_INTERVAL } from '../../src/base/record.js';
import type { FlashVector } from '../../src/index.js';
import * as L from '../../src/memory/layout.js';
import { CLI, startNode } from '../support/node-harness.js';
import { tempFolder } from '../support/temp.js';

function problemsOf(work: () => unknown): readonly string[] {
  try {
    work();
  } catch (error) {
    if (error instanceof SettingsError) return error.problems;
    throw error;
  }
  return [];
}

function fileWith(t: Tap.Test, content: unknown): string {
  const file = path.join(tempFolder(t), 'config.json');
  fs.writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

void t.test('addresses', async (t) => {
  t.same(parseAddress(':8080'), { host: '127.0.0.1', port: 8080 });
  t.same(parseAddress('0.0.0.0:1'), { host: '0.0.0.0', port: 1 });
  t.same(parseAddress('example.org:65535'), { host: 'example.org', port: 65_535 });
  t.same(parseAddress('[::1]:8080'), { host: '::1', port: 8080 });
  for (const bad of ['', '8080', ':', ':x', ':65536', '::1:8080', 'a b:1', 'host', '[::1]', 'http://x:1', ':-1'])
    t.equal(parseAddress(bad), undefined, bad);
  t.equal(formatAddress({ host: '::1', port: 1 }), '[::1]:1');
});

void t.test('the example of the documentation, and who wins', async (t) => {
  const file = fileWith(t, {
    NodeID: 'node-1',
    DataDir: './data/node1',
    Role: 'leader',
    ListenAddr: ':8080',
    Peers: [':8081', ':8082'],
    EnableMetrics: true,
    SnapshotIntervalSeconds: 60,
  });
  const { settings, origins } = loadSettings({
    file,
    environment: {
      NODE_ID: 'from-environment',
      PEERS: ':1, :2',
      ENABLE_METRICS: 'false',
      DATA_DIR: './env',
      SNAPSHOT_INTERVAL_SECONDS: '',
    },
    flags: { DataDir: './flag' },
  });
  t.match(settings, {
    NodeID: 'from-environment',
    Peers: [':1', ':2'],
    EnableMetrics: false,
    DataDir: './flag',
    SnapshotIntervalSeconds: 60,
    Durability: 'sync',
  });
  t.equal(origins.NodeID, 'environment NODE_ID');
  t.equal(origins.DataDir, 'flag --data-dir');
  t.match(origins.SnapshotIntervalSeconds, /^file .*config\.json$/);
  t.equal(origins.Durability, 'default');
});

void t.test('every problem is told at once, with key, source and what is allowed', async (t) => {
  const file = fileWith(t, { NodeId: 'x', Role: 'boss', Peers: 'none', MaxClients: 0, Shards: 3, RequirePass: '' });
  const problems = problemsOf(() =>
    loadSettings({ file, environment: { LISTEN_ADDR: 'nowhere', SYNC_INTERVAL_MS: '1.5' }, flags: { Durability: 'never' } }),
  );
  t.equal(problems.length, 9);
  t.ok(problems.some((problem) => /^NodeId from file .* is no setting; the nearest is NodeID$/.test(problem)));
  t.ok(problems.some((problem) => /^Role from file .* is "boss"; allowed is "leader" or "follower"$/.test(problem)));
  t.ok(
    problems.includes(
      'ListenAddr from environment LISTEN_ADDR is "nowhere"; allowed is an address such as ":8080", "host:8080" or "[::1]:8080"',
    ),
  );
  t.ok(problems.includes('Durability from flag --durability is "never"; allowed is "sync", "interval" or "memory"'));
  t.ok(problems.includes('SyncIntervalMs from environment SYNC_INTERVAL_MS is "1.5"; allowed is an integer from 1 to 60000'));
});

void t.test('combinations that cannot be', async (t) => {
  const impossible: Record<string, string>[] = [
    { LeaderAddr: ':1' },
    { Eviction: 'lru' },
    { TlsCertFile: 'x' },
    { TlsClientAuth: 'required' },
    { HttpAddr: ':8080', ListenAddr: ':8080' },
  ];
  for (const flags of impossible)
    t.equal(problemsOf(() => loadSettings({ file: fileWith(t, {}), environment: {}, flags })).length, 1, JSON.stringify(flags));
  t.match(
    problemsOf(() => loadSettings({ file: fileWith(t, '{'), environment: {}, flags: {} })),
    [/is no JSON/],
  );
  t.match(
    problemsOf(() => loadSettings({ file: fileWith(t, '[]'), environment: {}, flags: {} })),
    [/allowed is an object/],
  );
  t.match(
    problemsOf(() => loadSettings({ file: '/nowhere/config.json', environment: {}, flags: {} })),
    [/cannot be read/],
  );
});

void t.test('regression: a file that is no settings file is not shown, for it may hold a password', async (t) => {
  for (const content of [
    '[{"RequirePass":"hunter2"}]',
    '"hunter2"',
    '{"RequirePass":"hunter2" "x":1}',
    '{"RequirePass":"hunter2"',
    'hunter2',
  ]) {
    const problems = problemsOf(() => loadSettings({ file: fileWith(t, content), environment: {}, flags: {} }));
    t.equal(problems.length, 1);
    t.notMatch(problems.join(), /hunter2/);
  }
  const { settings } = loadSettings({ file: fileWith(t, '\uFEFF{"NodeID":"bom"}'), environment: {}, flags: {} });
  t.equal(settings.NodeID, 'bom');
});

void t.test('`flashvector config` shows where each came from, and no secret', async (t) => {
  const cwd = tempFolder(t);
  fs.writeFileSync(path.join(cwd, 'config.json'), JSON.stringify({ RequirePass: 'very secret', MaxClients: 5 }));
  const run = (...args: string[]): ReturnType<typeof spawnSync> & { stdout: string; stderr: string } =>
    spawnSync(process.execPath, [CLI, ...args], { cwd, encoding: 'utf8', env: { PATH: process.env['PATH'], NODE_ID: 'me' } });
  const shown = run('config', '--role', 'follower');
  t.equal(shown.status, 0);
  t.match(shown.stdout, /NodeID +"me" +environment NODE_ID/);
  t.match(shown.stdout, /Role +"follower" +flag --role/);
  t.match(shown.stdout, /MaxClients +5 +file config\.json/);
  t.match(shown.stdout, /RequirePass +"\*\*\*"/);
  t.notMatch(shown.stdout, /very secret/);
  t.equal((JSON.parse(run('config', '--json').stdout) as Record<string, { value: unknown }>)['RequirePass'].value, '***');
  t.match(run('config', '--rol', 'x').stderr, /no flag --rol; the nearest is --role/);
  t.equal(run('serve', '--listen-addr', 'x').status, 2);
  t.match(run('config', '--help').stdout, /--max-memory-bytes/);
});

void t.test('what concerns the store reaches it', async (t) => {
  const { node } = await startNode(t, { AckPollUs: 7, Durability: 'interval', Shards: 4 });
  const words = new Int32Array((node.db as FlashVector).handle.control);
  t.equal(words[L.CONTROL_ACK_POLL_US], 7);
  t.equal(words[L.CONTROL_DURABILITY], DURABILITY_INTERVAL);
  t.equal(words[L.CONTROL_SHARDS], 4);
});
