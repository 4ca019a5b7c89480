/** The HTTP server: keys, ranges, conditions, password, health, metrics, limits. */

import http from 'node:http';
import t from 'tap';
import { startNode, type RunningNode } from '../support/node-harness.js';

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

function ask(
  { httpPort }: RunningNode,
  method: string,
  path: string,
  body?: string | Buffer,
  headers: http.OutgoingHttpHeaders = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ port: httpPort, host: '127.0.0.1', method, path, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks).toString('latin1') }),
      );
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

const code = ({ body }: Answer): string => (JSON.parse(body) as { error: { code: string } }).error.code;

void t.test('a key is put, read, changed under a condition, and removed', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  const created = await ask(node, 'PUT', '/kv/user%3A1', JSON.stringify({ name: 'Ada' }));
  t.equal(created.status, 201);
  const read = await ask(node, 'GET', '/kv/user:1');
  t.equal(read.status, 200);
  t.same(JSON.parse(read.body), { name: 'Ada' });
  t.equal(read.headers.etag, created.headers.etag);
  t.equal((await ask(node, 'GET', '/kv/user:1', undefined, { 'If-None-Match': String(read.headers.etag) })).status, 304);
  t.equal((await ask(node, 'HEAD', '/kv/user:1')).headers['content-length'], '14');
  const changed = await ask(node, 'PUT', '/kv/user:1', '{"name":"Grace"}', { 'If-Match': String(read.headers.etag) });
  t.equal(changed.status, 204);
  const stale = await ask(node, 'PUT', '/kv/user:1', '1', { 'If-Match': String(read.headers.etag) });
  t.equal(stale.status, 412);
  t.equal(code(stale), 'precondition_failed');
  t.equal((await ask(node, 'PUT', '/kv/user:1', '1', { 'If-None-Match': '*' })).status, 412);
  t.equal((await ask(node, 'PUT', '/kv/user:2', '2', { 'If-None-Match': '*' })).status, 201);
  t.equal((await ask(node, 'DELETE', '/kv/user:1', undefined, { 'If-Match': '"1"' })).status, 412);
  t.equal((await ask(node, 'DELETE', '/kv/user:1', undefined, { 'If-Match': String(changed.headers.etag) })).status, 204);
  t.equal((await ask(node, 'DELETE', '/kv/user:1')).status, 404);
  t.equal(code(await ask(node, 'GET', '/kv/user:1')), 'not_found');
});

void t.test('strings, bytes, keys that are not UTF-8, expiry', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  await ask(node, 'PUT', '/kv/text', 'grüße', { 'Content-Type': 'text/plain; charset=utf-8' });
  t.equal(node.node.db?.get('text'), 'grüße');
  await ask(node, 'PUT', '/kv/bytes', Buffer.from([0xff, 0]), { 'Content-Type': 'application/octet-stream' });
  const bytes = await ask(node, 'GET', '/kv/bytes');
  t.equal(bytes.headers['content-type'], 'application/octet-stream');
  t.equal(bytes.body, '\xff\0');
  t.equal((await ask(node, 'PUT', '/kv/%FF%00?ttl=60000', 'true')).status, 201);
  t.equal(node.node.db?.get(new Uint8Array([0xff, 0])), true);
  t.match((await ask(node, 'GET', '/kv/%FF%00')).headers['x-expires-at'], /^20\d\d-/);
  const redis = await node.client();
  t.same(await redis.call('GET', 'text'), { bulk: Buffer.from('grüße').toString('latin1') });
});

void t.test('ranges are streamed in order', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0', Durability: 'memory' });
  for (let i = 0; i < 5000; i++) void node.node.db?.put(`k${String(i).padStart(4, '0')}`, { i });
  const list = async (query: string): Promise<{ key: string; value: { i: number } }[]> =>
    JSON.parse((await ask(node, 'GET', `/kv?${query}`)).body) as never;
  t.equal((await list('')).length, 5000);
  t.same(
    await list('gt=k0010&lt=k0013'),
    [11, 12].map((i) => ({ key: `k00${i}`, value: { i } })),
  );
  t.same(
    (await list('prefix=k49&limit=2&reverse=true')).map(({ key }) => key),
    ['k4999', 'k4998'],
  );
  t.same(await list('keys=1&limit=1'), ['k0000']);
  for (const query of ['limit=x', 'nope=1', 'reverse=maybe']) t.equal(code(await ask(node, 'GET', `/kv?${query}`)), 'bad_query');
});

void t.test('a long range to a slow reader, and to one that goes away, leaves nothing behind', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0', Durability: 'memory' });
  for (let i = 0; i < 20_000; i++) void node.node.db?.put(`k${i}`, 'v'.repeat(500));
  const warnings: Error[] = [];
  const warn = (warning: Error): void => void warnings.push(warning);
  process.on('warning', warn);
  t.teardown(() => process.off('warning', warn));
  t.equal((JSON.parse((await ask(node, 'GET', '/kv')).body) as unknown[]).length, 20_000);
  await new Promise<void>((resolve) => {
    const request = http.get({ port: node.httpPort, host: '127.0.0.1', path: '/kv' }, (response) => {
      response.once('data', () => {
        response.destroy();
        resolve();
      });
    });
    request.on('error', () => undefined);
  });
  for (let i = 0; i < 200 && node.node.db?.stats().snapshots.open !== 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  t.equal(node.node.db?.stats().snapshots.open, 0);
  t.same(warnings, []);
});

void t.test('what is wrong gets its status and says what is allowed', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0', MaxHttpBodyBytes: 1024 });
  const cases: [method: string, path: string, body: string | undefined, headers: http.OutgoingHttpHeaders, status: number, code: string][] =
    [
      ['GET', '/nope', undefined, {}, 404, 'not_found'],
      ['POST', '/kv/a', '1', {}, 405, 'method_not_allowed'],
      ['DELETE', '/kv', undefined, {}, 405, 'method_not_allowed'],
      ['PUT', '/kv/a', '{', {}, 400, 'bad_json'],
      ['PUT', '/kv/a', '1', { 'Content-Type': 'text/html' }, 415, 'unsupported_type'],
      ['PUT', '/kv/a?ttl=-1', '1', {}, 400, 'bad_query'],
      ['PUT', '/kv/a', '1', { 'If-Match': 'nonsense' }, 400, 'bad_condition'],
      ['PUT', '/kv/a', 'x'.repeat(2000), {}, 413, 'too_large'],
      ['PUT', '/kv/a', 'x'.repeat(2000), { 'Transfer-Encoding': 'chunked' }, 413, 'too_large'],
      ['GET', '/kv/%zz', undefined, {}, 400, 'bad_key'],
      ['GET', `/kv/${'k'.repeat(10_000)}${'%20'.repeat(10)}`, undefined, {}, 404, 'not_found'],
    ];
  for (const [method, path, body, headers, status, expected] of cases) {
    const answer = await ask(node, method, path, body, headers);
    t.equal(answer.status, status, `${method} ${path.slice(0, 30)}`);
    t.equal(code(answer), expected);
  }
  t.equal(node.node.db?.size, 0);
  // No path leads to a file.
  for (const path of ['/kv/../../etc/passwd', '/kv/..%2F..%2Fetc%2Fpasswd', '/../etc/passwd'])
    t.equal((await ask(node, 'GET', path)).status, 404);
});

void t.test('the password is needed for everything but health', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0', RequirePass: 'secret' });
  for (const path of ['/kv/a', '/kv', '/stats', '/metrics']) {
    const answer = await ask(node, 'GET', path);
    t.equal(answer.status, 401);
    t.match(answer.headers['www-authenticate'], /Bearer/);
  }
  t.equal((await ask(node, 'GET', '/stats', undefined, { Authorization: 'Bearer wrong' })).status, 401);
  t.equal((await ask(node, 'GET', '/stats', undefined, { Authorization: 'Bearer secret' })).status, 200);
  t.equal((await ask(node, 'GET', '/healthz')).body, 'ok\n');
  t.equal((await ask(node, 'GET', '/readyz')).body, 'ready\n');
});

void t.test('metrics have what the store counts, in the form that Prometheus reads', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  const redis = await node.client();
  await redis.pipeline([['SET', 'a', 1], ['GET', 'a'], ['GET', 'b'], ['DEL', 'a'], ['NOPE']]);
  const { body, headers } = await ask(node, 'GET', '/metrics');
  t.match(headers['content-type'], /text\/plain; version=0\.0\.4/);
  const samples = new Map<string, number>();
  const types = new Map<string, string>();
  for (const line of body.split('\n')) {
    if (line === '') continue;
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type !== null) types.set(type[1], type[2]);
    if (line.startsWith('#')) continue;
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^}]*\})?) (\S+)(?: \d+)?$/.exec(line);
    if (sample === null) t.fail(`no sample: ${line}`);
    else samples.set(sample[1], Number(sample[2]));
  }
  t.equal(samples.get('flashvector_writes_total'), 1);
  t.equal(samples.get('flashvector_deletes_total'), 1);
  t.equal(samples.get('flashvector_replication_failures_total'), 0);
  t.equal(samples.get('flashvector_resp_commands_total'), 5);
  t.equal(samples.get('flashvector_resp_errors_total'), 1);
  t.equal(samples.get('flashvector_entries'), 0);
  t.ok((samples.get('flashvector_sync_seconds_count') ?? 0) >= 1);
  t.equal(samples.get('flashvector_sync_seconds_bucket{le="+Inf"}'), samples.get('flashvector_sync_seconds_count'));
  t.ok(samples.has('process_cpu_seconds_total'));
  t.equal(types.get('flashvector_put_durable_seconds'), 'histogram');
  for (const [name, type] of types) if (name.startsWith('flashvector_') && type === 'counter') t.match(name, /_total$/);
  t.equal((await ask(node, 'GET', '/stats')).status, 200);
  const off = await startNode(t, { HttpAddr: ':0', EnableMetrics: false });
  t.equal((await ask(off, 'GET', '/metrics')).status, 404);
});

void t.test('a follower takes no writes; a node that stops is not ready', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0', Role: 'follower', LeaderAddr: ':9999' });
  const refused = await ask(node, 'PUT', '/kv/a', '1');
  t.equal(refused.status, 421);
  t.equal(code(refused), 'FV_NOT_LEADER');
  t.match(refused.body, /127\.0\.0\.1:9999/);
  const stopping = node.node.stop('test');
  await ask(node, 'GET', '/readyz').then(
    ({ status }) => t.equal(status, 503),
    // It may have stopped listening by then, which is as good as saying that it is not ready.
    (error: NodeJS.ErrnoException) => t.match(error.code, /^ECONN(?:REFUSED|RESET)$/),
  );
  await stopping;
});

void t.test('conditions hold for every method, and tags of others match nothing', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  const { headers } = await ask(node, 'PUT', '/kv/a', '1');
  const tag = String(headers.etag);
  t.equal((await ask(node, 'DELETE', '/kv/a', undefined, { 'If-None-Match': tag })).status, 412);
  t.equal((await ask(node, 'DELETE', '/kv/a', undefined, { 'If-Match': '"someone-elses"' })).status, 412);
  t.equal((await ask(node, 'GET', '/kv/a', undefined, { 'If-None-Match': '"someone-elses"' })).status, 200);
  t.equal((await ask(node, 'GET', '/kv/a', undefined, { 'If-None-Match': `"x", W/${tag}` })).status, 304, 'a weak tag is good for reading');
  t.equal((await ask(node, 'PUT', '/kv/a', '2', { 'If-Match': `W/${tag}` })).status, 412, 'and not for writing');
  t.equal((await ask(node, 'PUT', '/kv/a', '2', { 'If-Match': tag, 'If-None-Match': '"1000"' })).status, 204, 'both may be said');
  t.equal((await ask(node, 'DELETE', '/kv/a', undefined, { 'If-Match': 'none' })).status, 400, 'what is no list of tags');
  t.equal((await ask(node, 'DELETE', '/kv/a', undefined, { 'If-None-Match': '"1000"' })).status, 204);
  t.equal((await ask(node, 'DELETE', '/kv/a', undefined, { 'If-None-Match': '*' })).status, 404);
});

void t.test('bounds need not be UTF-8; parameters are known, and said once; bodies are what they say', async (t) => {
  const node = await startNode(t, { HttpAddr: ':0' });
  await ask(node, 'PUT', '/kv/%FF%01', '1');
  await ask(node, 'PUT', '/kv/a+b', '2');
  t.same(JSON.parse((await ask(node, 'GET', '/kv?prefix=%FF')).body), [{ key: { base64: '/wE=' }, value: 1 }]);
  t.same(JSON.parse((await ask(node, 'GET', '/kv?prefix=a%2Bb&keys')).body), ['a+b']);
  for (const [method, path] of [
    ['GET', '/kv/a?foo=1'],
    ['DELETE', '/kv/a?foo=1'],
    ['PUT', '/kv/a?ttl=5&ttl=6000'],
    ['GET', '/kv?limit=1&limit=2'],
    ['GET', '/kv?prefix=%zz'],
    ['GET', '/kv?limit=%FF'],
  ]) {
    const answer = await ask(node, method, path, method === 'PUT' ? '1' : undefined);
    t.equal(answer.status, 400, `${method} ${path}`);
    t.equal(code(answer), 'bad_query');
  }
  const torn = Buffer.from([0x22, 0xff, 0x22]);
  t.equal(code(await ask(node, 'PUT', '/kv/torn', torn)), 'bad_encoding');
  t.equal(code(await ask(node, 'PUT', '/kv/torn', torn, { 'Content-Type': 'text/plain' })), 'bad_encoding');
  t.equal((await ask(node, 'PUT', '/kv/torn', torn, { 'Content-Type': 'application/octet-stream' })).status, 201);
  const long = `/kv/${'%FF'.repeat(65_535)}`;
  t.equal((await ask(node, 'PUT', long, '3')).status, 201, 'the longest key');
  t.equal((await ask(node, 'GET', long)).body, '3');
  const tooLong = await ask(node, 'GET', `/kv/${'x'.repeat(300_000)}`);
  t.equal(tooLong.status, 431);
  t.equal(code(tooLong), 'too_large');
});
