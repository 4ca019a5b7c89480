/** The text of INFO, in sections, with the names that tools for Redis look for. */

import { DATABASES, countKeys, prefixOf } from './key-spaces.js';
import type { RespServer } from './resp-server.js';

type Facts = [name: string, value: string | number][];

const human = (bytes: number): string => {
  const units = ['B', 'K', 'M', 'G', 'T'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(2)}${units[unit]}`;
};

function serverFacts({ redisVersion, options, startedMs }: RespServer): Facts {
  const upSeconds = Math.floor((Date.now() - startedMs) / 1000);
  return [
    ['redis_version', redisVersion],
    ['redis_mode', 'standalone'],
    ['flashvector_version', options.version],
    ['node_id', options.nodeId],
    ['os', `${process.platform} ${process.arch}`],
    ['arch_bits', 64],
    ['process_id', process.pid],
    ['tcp_port', options.port],
    ['uptime_in_seconds', upSeconds],
    ['uptime_in_days', Math.floor(upSeconds / 86_400)],
  ];
}

function clientFacts(server: RespServer): Facts {
  return [
    ['connected_clients', server.sessions().length],
    ['maxclients', server.options.maxClients],
    ['blocked_clients', 0],
    ['pubsub_clients', server.sessions().filter((session) => session.isSubscribed).length],
  ];
}

function memoryFacts({ db }: RespServer): Facts {
  const { memory } = db.stats();
  const { rss, heapUsed } = process.memoryUsage();
  return [
    ['used_memory', memory.totalBytes],
    ['used_memory_human', human(memory.totalBytes)],
    ['used_memory_rss', rss],
    ['used_memory_rss_human', human(rss)],
    ['used_memory_dataset', memory.usedBytes],
    ['used_memory_heap', heapUsed],
    ['maxmemory', memory.maxBytes ?? 0],
    ['maxmemory_human', human(memory.maxBytes ?? 0)],
  ];
}

function persistenceFacts(server: RespServer): Facts {
  const { log, checkpoints } = server.db.stats();
  return [
    ['loading', 0],
    ['rdb_bgsave_in_progress', checkpoints?.running === true ? 1 : 0],
    ['rdb_last_save_time', Math.floor(server.lastCheckpointMs / 1000)],
    ['rdb_last_bgsave_status', server.lastCheckpointFailed ? 'err' : 'ok'],
    ['aof_enabled', 1],
    ['aof_last_write_status', server.db.status === 'readonly' ? 'err' : 'ok'],
    ['fv_last_lsn', log.lastLsn],
    ['fv_durable_lsn', log.durableLsn],
    ['fv_log_segments', log.segments],
    ['fv_syncs', log.syncs],
    ['fv_records_per_sync', log.recordsPerSync.toFixed(2)],
  ];
}

function statFacts(server: RespServer): Facts {
  const { operations } = server.db.stats();
  const { counts } = server;
  return [
    ['total_connections_received', counts.connections],
    ['total_commands_processed', counts.commands],
    ['total_net_input_bytes', counts.inputBytes],
    ['total_net_output_bytes', counts.outputBytes],
    ['rejected_connections', counts.refusedConnections],
    ['total_error_replies', counts.errors],
    ['expired_keys', operations.expired],
    ['evicted_keys', operations.evicted],
    ['keyspace_hits', operations.hits],
    ['keyspace_misses', operations.reads - operations.hits],
    ['pubsub_channels', server.channels.names().length],
    ['pubsub_patterns', server.channels.patternCount],
  ];
}

function replicationFacts({ leader, replicas, db }: RespServer): Facts {
  const facts: Facts = [
    ['role', leader === undefined ? 'master' : 'slave'],
    ['connected_slaves', replicas],
    ['master_repl_offset', db.stats().log.lastLsn],
  ];
  if (leader === undefined) return facts;
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(leader) ?? [];
  return [...facts, ['master_host', host], ['master_port', port]];
}

function cpuFacts(): Facts {
  const { user, system } = process.cpuUsage();
  return [
    ['used_cpu_user', (user / 1e6).toFixed(6)],
    ['used_cpu_sys', (system / 1e6).toFixed(6)],
  ];
}

function keyspaceFacts({ db }: RespServer): Facts {
  const facts: Facts = [];
  // The store knows how many of all its entries expire; those of numbered databases are looked at one by one, as their keys are counted.
  let expiring = db.stats().expiring;
  for (let n = DATABASES - 1; n >= 0; n--) {
    if (n > 0 && db.count({ prefix: prefixOf(n), limit: 1 }) === 0) continue;
    const keys = countKeys(db, n);
    let expires = n === 0 ? Math.min(expiring, keys) : 0;
    if (n > 0 && expiring > 0) for (const key of db.keys({ prefix: prefixOf(n) })) if (db.ttl(key) >= 0) expires++;
    expiring -= expires;
    if (keys > 0) facts.unshift([`db${n}`, `keys=${keys},expires=${expires},avg_ttl=0`]);
  }
  return facts;
}

const SECTIONS: Record<string, (server: RespServer) => Facts> = {
  Server: serverFacts,
  Clients: clientFacts,
  Memory: memoryFacts,
  Persistence: persistenceFacts,
  Stats: statFacts,
  Replication: replicationFacts,
  CPU: cpuFacts,
  Keyspace: keyspaceFacts,
};
const EVERYTHING = new Set(['all', 'default', 'everything']);

/** @param wanted names of sections in lower case; none: all */
export function infoText(server: RespServer, wanted: readonly string[]): string {
  const isAll = wanted.length === 0 || wanted.some((name) => EVERYTHING.has(name));
  const parts: string[] = [];
  for (const [title, facts] of Object.entries(SECTIONS)) {
    if (!isAll && !wanted.includes(title.toLowerCase())) continue;
    parts.push(
      `# ${title}\r\n${facts(server)
        .map(([name, value]) => `${name}:${value}\r\n`)
        .join('')}`,
    );
  }
  return parts.join('\r\n');
}
