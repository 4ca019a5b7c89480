/** The RESP server over a store whose disk fails: replies of writes become errors, in their places; nothing acknowledged is lost; reads go on. */

import t from 'tap';
import { open } from '../../src/index.js';
import { openIn } from '../../src/engine/open.js';
import { RespServer } from '../../src/server/resp-server.js';
import { faultyFiles } from '../support/faulty-files.js';
import { RespClient } from '../support/resp-client.js';
import { tempFolder } from '../support/temp.js';

const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

void t.test('a sync that fails under a pipeline', async (t) => {
  const folder = tempFolder(t);
  const db = await openIn({ files: faultyFiles({ failSync: 12, code: 'EIO' }) }, folder, { snapshotIntervalSeconds: 0 });
  db.on('error', () => undefined);
  const server = new RespServer(
    db,
    {
      host: '127.0.0.1',
      port: 0,
      password: undefined,
      tls: undefined,
      maxClients: 10,
      timeoutSeconds: 0,
      bulkBytesMax: 2 ** 20,
      argumentsMax: 1000,
      outputBytesMax: 2 ** 20,
      isProtected: true,
      leader: undefined,
      nodeId: 'test',
      syncPolicy: 'always',
      evictionPolicy: 'noeviction',
      version: '0.0.0-test',
    },
    silent,
  );
  await server.listen();
  const client = await RespClient.connect(server.port);
  const acknowledged: string[] = [];
  let refusals = 0;
  for (let round = 0; round < 30; round++) {
    const commands = Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? ['SET', `k${round}:${i}`, `v${round}`] : ['PING', `p${i}`]));
    const replies = await client.pipeline(commands);
    replies.forEach((reply, i) => {
      if (i % 2 === 1) t.same(reply, { bulk: `p${i}` });
      else if (reply === '+OK') acknowledged.push(commands[i][1]);
      else if (typeof reply === 'string' && reply.startsWith('-MISCONF Errors writing to the log')) refusals++;
      else t.fail(`reply ${JSON.stringify(reply)}`);
    });
  }
  t.ok(acknowledged.length > 0 && refusals > 0, `${acknowledged.length} acknowledged, ${refusals} refused`);
  t.same(await client.call('GET', acknowledged[0]), { bulk: 'v0' });
  const [, , transaction] = await client.pipeline([['MULTI'], ['SET', 'x', 1], ['EXEC']]);
  t.match(transaction, /^-MISCONF/);
  t.match(await client.call('INCR', 'counter'), /^-MISCONF/);
  t.match(await client.call('FLUSHALL'), /^-MISCONF/);
  t.match(await client.call('SAVE'), /^-MISCONF/);
  await server.close();
  await t.rejects(db.close(), { code: 'FV_IO' });
  const again = await open(folder);
  t.same(
    acknowledged.filter((key) => again.get(key) === undefined),
    [],
  );
  await again.close();
});
