/**
 * Damage to a small log: every byte flipped in turn, every file missing, swapped or cut. It is always
 * detected, with file and offset, or concerns nothing that was ever durable; nothing acknowledged is
 * lost without a word.
 */

import t from 'tap';
import fs from 'node:fs';
import path from 'node:path';
import { FlashVectorError, open } from '../../src/index.js';
import { Checksum } from '../../src/platform/checksum.js';
import { FORMAT_VERSION, decodeIdentity } from '../../src/wal/format.js';
import { LogReader } from '../../src/wal/log-reader.js';
import { createFileSystem } from '../../src/platform/node-files.js';
import { visitRecords } from '../../src/wal/records.js';
import { tempFolder } from '../support/temp.js';

const checksum = await Checksum.load();
const SEGMENT = 65_536;

async function makeStore(folder: string, puts: number): Promise<void> {
  const db = await open(folder, { walSegmentBytes: SEGMENT });
  for (let i = 0; i < puts; i++) await db.put(`key${i}`, `value ${i}`);
  await db.batch([
    { type: 'put', key: 'a', value: { x: 1 } },
    { type: 'del', key: 'key0' },
  ]);
  await db.close();
}

/** Reads a folder's log as recovery does. @returns the LSN it reaches, or the error */
function recover(folder: string): number | FlashVectorError {
  const files = createFileSystem();
  try {
    const storeId = decodeIdentity(checksum, fs.readFileSync(path.join(folder, 'store.fv')), 'store.fv');
    const reader = new LogReader(files, checksum, folder, storeId, SEGMENT);
    const visitor = { operation: (): void => undefined, structure: (): void => undefined };
    const summary = reader.read({
      frame: (header, payload, file, offset) => visitRecords(payload, header.records, header.firstLsn, file, offset, visitor),
      progress: () => undefined,
    });
    return summary.end.lastLsn;
  } catch (error) {
    if (error instanceof FlashVectorError) return error;
    throw error;
  }
}

function endOfData(bytes: Buffer): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return end;
}

void t.test('every byte of a log that was closed in order', async (t) => {
  const folder = tempFolder(t);
  await makeStore(folder, 12);
  const file = path.join(folder, '000000000001.wal');
  const good = fs.readFileSync(file);
  t.equal(recover(folder), 13);
  const end = endOfData(good);
  let detected = 0;
  let reached = 0;
  const fd = fs.openSync(file, 'r+');
  for (let offset = 0; offset < end; offset++) {
    for (const flip of [0x01, 0x80, 0xff]) {
      fs.writeSync(fd, Buffer.from([good[offset] ^ flip]), 0, 1, offset);
      const found = recover(folder);
      if (found instanceof FlashVectorError) {
        detected++;
        if (found.code !== 'FV_CORRUPT' || found.file !== file || found.offset === undefined) t.fail(`offset ${offset}: ${found.message}`);
        else if (offset >= 4096 && (found.offset > offset || found.lsn === undefined))
          t.fail(`offset ${offset} is reported as ${found.offset}`);
      } else {
        // Only the closing frame itself may go unsaid: all before it is there.
        reached++;
        if (found !== 13) t.fail(`offset ${offset}: silently cut to LSN ${found}`);
      }
    }
    fs.writeSync(fd, good.subarray(offset, offset + 1), 0, 1, offset);
  }
  fs.closeSync(fd);
  t.ok(reached <= 64 * 3, `${reached} flips concern the closing frame only, ${detected} were detected`);
  t.equal(recover(folder), 13, 'and the file is as it was');
});

void t.test('every byte of the identity file', async (t) => {
  const folder = tempFolder(t);
  await makeStore(folder, 1);
  const file = path.join(folder, 'store.fv');
  const good = fs.readFileSync(file);
  for (let offset = 0; offset < good.length; offset++) {
    const bad = Buffer.from(good);
    bad[offset] ^= 0x10;
    fs.writeFileSync(file, bad);
    const found = recover(folder);
    if (!(found instanceof FlashVectorError) || found.code !== 'FV_CORRUPT') t.fail(`offset ${offset}`);
  }
  for (let length = 0; length < good.length; length++) {
    fs.writeFileSync(file, good.subarray(0, length));
    if (!(recover(folder) instanceof FlashVectorError)) t.fail(`cut to ${length}`);
  }
  fs.writeFileSync(file, Buffer.concat([good, Buffer.alloc(1)]));
  t.ok(recover(folder) instanceof FlashVectorError);
  fs.rmSync(file);
  await t.rejects(open(folder), { code: 'FV_CORRUPT' });
  fs.writeFileSync(file, good);
  t.equal(recover(folder), 2);
});

void t.test('a log cut at every length is refused', async (t) => {
  const folder = tempFolder(t);
  await makeStore(folder, 5);
  const file = path.join(folder, '000000000001.wal');
  const good = fs.readFileSync(file);
  for (let length = 0; length < good.length; length += length < 6000 ? 1 : 997) {
    fs.truncateSync(file, length);
    const found = recover(folder);
    if (!(found instanceof FlashVectorError) || found.code !== 'FV_CORRUPT' || found.file !== file) t.fail(`cut to ${length}`);
    fs.writeFileSync(file, good);
  }
  t.equal(recover(folder), 6);
});

void t.test('segments missing, swapped, from another store, or of a newer format', async (t) => {
  const folder = tempFolder(t);
  const other = tempFolder(t);
  for (const store of [folder, other]) {
    const db = await open(store, { walSegmentBytes: SEGMENT });
    for (let i = 0; i < 8; i++) await db.put('k', 'x'.repeat(40_000));
    await db.close();
  }
  const names = fs.readdirSync(folder).filter((name) => name.endsWith('.wal'));
  t.ok(names.length > 3);
  const last = recover(folder);
  t.equal(last, 8);
  for (const name of names) {
    const file = path.join(folder, name);
    const good = fs.readFileSync(file);
    fs.rmSync(file);
    const isLast = name === names[names.length - 1];
    if (!isLast) t.match(recover(folder), { code: 'FV_CORRUPT', file }, `${name} is missing`);
    fs.copyFileSync(path.join(other, name), file);
    t.match(recover(folder), { code: 'FV_CORRUPT', file }, `${name} is from another store`);
    fs.copyFileSync(path.join(folder, name === names[0] ? names[1] : names[0]), file);
    t.match(recover(folder), { code: 'FV_CORRUPT', file }, `${name} is swapped`);
    const newer = Buffer.from(good);
    newer.writeUInt32LE(FORMAT_VERSION + 1, 16);
    newer.writeBigUInt64LE(checksum.of(newer.subarray(8, 4096), 0n), 0);
    fs.writeFileSync(file, newer);
    t.match(recover(folder), { code: 'FV_VERSION', file }, `${name} is of a newer format`);
    fs.writeFileSync(file, good);
  }
  t.equal(recover(folder), 8);
  const identity = path.join(folder, 'store.fv');
  const page = fs.readFileSync(identity);
  page.writeUInt32LE(9, 16);
  page.writeBigUInt64LE(checksum.of(page.subarray(8), 0n), 0);
  fs.writeFileSync(identity, page);
  await t.rejects(open(folder), { code: 'FV_VERSION', file: identity });
});

void t.test('a torn tail is cut off, writing goes on, and the cut never comes back', async (t) => {
  const folder = tempFolder(t);
  await makeStore(folder, 5);
  const file = path.join(folder, '000000000001.wal');
  const good = fs.readFileSync(file);
  const end = endOfData(good);
  // Without its closing frame the log ends as after a crash; half of the last group is torn off too.
  const torn = Buffer.from(good);
  torn.fill(0, end - 64 - 20);
  fs.writeFileSync(file, torn);
  const db = await open(folder, { walSegmentBytes: SEGMENT });
  t.equal(db.get('key4'), 'value 4');
  t.equal(db.get('a'), undefined, 'the batch that was not whole is gone as a whole');
  t.equal(db.get('key0'), 'value 0');
  await db.put('after', 'the cut');
  await db.close();
  const again = await open(folder);
  t.same(again.getMany(['key4', 'after', 'a']), ['value 4', 'the cut', undefined]);
  await again.close();
  // The lost group returns behind the cut: its segment no longer reaches that far.
  fs.writeFileSync(file, good);
  const found = recover(folder);
  t.ok(found instanceof FlashVectorError && found.code === 'FV_CORRUPT');
});
