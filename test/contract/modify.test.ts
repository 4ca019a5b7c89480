/** `modify`, moments of expiry, entries inside transactions, being told that writes wait, metrics, signals. */

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { open } from '../../src/index.js';
import { Clock } from '../../src/memory/clock.js';
import { createControl } from '../../src/memory/control.js';
import { tempFolder } from '../support/temp.js';

const code = (expected: string): { code: string } => ({ code: expected });
const FAR_MS = 4_000_000_000_000;

void t.test('modify writes, removes, or leaves an entry', async (t) => {
  const folder = tempFolder(t);
  const db = await open(folder);
  const seen: unknown[] = [];
  const lsn = await db.modify('a', (entry) => {
    seen.push(entry);
    return { value: 1, expiresAt: FAR_MS };
  });
  t.ok(lsn > 0);
  t.match(db.getEntry('a'), { value: 1, lsn, expiresAt: FAR_MS });
  t.equal(await db.modify('a', () => undefined), 0);
  t.match(db.getEntry('a'), { value: 1, lsn });
  await db.modify<number>('a', (entry) => ({ value: (entry?.value ?? 0) + 1, ttl: 60_000 }));
  t.equal(db.get('a'), 2);
  t.ok(db.ttl('a') > 50_000);
  await db.modify('a', () => ({ value: 'for good' }));
  t.equal(db.ttl('a'), -1);
  t.equal(await db.modify('absent', () => null), 0);
  t.ok((await db.modify('a', () => null)) > 0);
  t.equal(db.has('a'), false);
  t.same(seen, [undefined]);
  await db.put('b', 1, { expiresAt: FAR_MS });
  await db.close();
  const again = await open(folder);
  t.equal(again.has('a'), false);
  t.equal(again.getEntry('b')?.expiresAt, FAR_MS);
  await again.close();
});

void t.test('regression: the moment at which a key with a ttl expires can be said again', async (t) => {
  const db = await open(tempFolder(t));
  for (let i = 0; i < 20; i++) {
    await db.put('a', 1, { ttl: 60_000 });
    const expiresAt = db.getEntry('a')?.expiresAt;
    t.ok(Number.isInteger(expiresAt));
    await db.put('b', 2, { expiresAt });
    await db.modify('a', (entry) => ({ value: 2, expiresAt: entry?.expiresAt }));
    t.equal(db.getEntry('a')?.expiresAt, expiresAt);
    t.equal(db.getEntry('b')?.expiresAt, expiresAt);
  }
  await db.close();
});

void t.test('a moment that follows from the clock is whole ms, and no sooner than asked for', (t) => {
  const { words } = createControl({ shards: 1, hashSeed: 1, durability: 0, maxMemoryBytes: 2 ** 30, indexed: false });
  const clock = new Clock(words.buffer as SharedArrayBuffer);
  clock.start(1_700_000_000_000.25);
  for (let i = 0; i < 50; i++) {
    const before = clock.now();
    const moment = clock.momentIn(10.5);
    if (!Number.isInteger(moment) || moment < before + 10.5) t.fail(`${moment} from ${before}`);
  }
  t.ok(Number.isInteger(clock.momentIn(0)));
  t.end();
});

void t.test('modify refuses what is wrong, and writes nothing then', async (t) => {
  const db = await open(tempFolder(t));
  await db.put('a', 1);
  const failure = new Error('no');
  await t.rejects(
    db.modify('a', () => {
      throw failure;
    }),
    failure,
  );
  await t.rejects(
    db.modify('a', () => ({ value: undefined })),
    code('FV_VALUE'),
  );
  await t.rejects(
    db.modify('a', () => ({ value: 1, ttl: 1, expiresAt: FAR_MS })),
    code('FV_OPTION'),
  );
  await t.rejects(
    db.modify('a', () => ({ value: 1, expiresAt: 0.5 })),
    code('FV_OPTION'),
  );
  await t.rejects(
    db.modify('a', () => ({ value: 1, nope: 1 }) as never),
    code('FV_OPTION'),
  );
  await t.rejects(db.modify('a', 1 as never), TypeError);
  await t.rejects(
    db.modify('', () => null),
    code('FV_KEY'),
  );
  await t.rejects(db.put('a', 1, { ttl: 1, expiresAt: FAR_MS }), code('FV_OPTION'));
  await t.rejects(db.put('a', 1, { expiresAt: -1 }), code('FV_OPTION'));
  t.equal(db.get('a'), 1);
  await db.close();
  await t.rejects(
    db.modify('a', () => null),
    code('FV_CLOSED'),
  );
});

void t.test('modify is atomic, also while writes wait', async (t) => {
  const db = await open(tempFolder(t), { ringBytes: 65_536 });
  const value = 'x'.repeat(1000);
  const promises: Promise<unknown>[] = [];
  let wasBackedUp = false;
  for (let i = 0; i < 2000; i++) {
    promises.push(db.modify<{ n: number }>('counter', (entry) => ({ value: { n: (entry?.value.n ?? 0) + 1, value } })));
    wasBackedUp ||= db.isBackedUp;
  }
  t.ok(wasBackedUp, 'a ring of 64 KiB does not take two megabytes at once');
  await db.drained();
  t.equal(db.isBackedUp, false);
  t.equal((db.get('counter') as { n: number }).n, 2000);
  await Promise.all(promises);
  await db.close();
});

void t.test('a transaction sees entries, its own among them', async (t) => {
  const db = await open(tempFolder(t));
  const lsn = await db.put('a', 1, { expiresAt: FAR_MS });
  await db.transaction((tx) => {
    t.same(tx.getEntry('a'), { value: 1, lsn, expiresAt: FAR_MS });
    t.equal(tx.getEntry('b'), undefined);
    tx.put('b', 2, { expiresAt: FAR_MS });
    t.same(tx.getEntry('b'), { value: 2, lsn: 0, expiresAt: FAR_MS });
    tx.del('a');
    t.equal(tx.getEntry('a'), undefined);
  });
  t.match(db.getEntry('b'), { value: 2, expiresAt: FAR_MS });
  // What it has looked at counts as read.
  let runs = 0;
  await db.transaction(async (tx) => {
    runs++;
    const seen = tx.getEntry('b')?.value as number;
    if (runs === 1) await db.put('b', 10);
    tx.put('c', seen);
  });
  t.equal(runs, 2);
  t.equal(db.get('c'), 10);
  await db.close();
});

void t.test('metrics are text for Prometheus', async (t) => {
  const db = await open(tempFolder(t));
  await db.put('a', 1);
  db.get('a');
  const text = db.metrics();
  t.match(text, /^# HELP flashvector_up .*\n# TYPE flashvector_up gauge\nflashvector_up 1\n/);
  t.match(text, /\nflashvector_writes_total 1\n/);
  t.match(text, /\nflashvector_put_durable_seconds_count 1\n/);
  const bounds = [...text.matchAll(/flashvector_sync_seconds_bucket\{le="([^"]+)"\} (\d+)/g)];
  t.ok(bounds.length > 10);
  for (let i = 1; i < bounds.length - 1; i++)
    t.ok(Number(bounds[i][1]) > Number(bounds[i - 1][1]) && Number(bounds[i][2]) >= Number(bounds[i - 1][2]));
  await db.close();
});

void t.test('handleSignals: the store is closed before the signal ends the process', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const folder = tempFolder(t);
    const child = fork(fileURLToPath(new URL('../fixture/handle-signals.js', import.meta.url)), [folder]);
    await once(child, 'message');
    child.kill(signal);
    t.same(await once(child, 'exit'), [null, signal]);
    const db = await open(folder);
    t.equal(db.size, 1000);
    await db.close();
  }
});
