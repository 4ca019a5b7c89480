/** Offline inspection: what lies in the files of a closed store, line by line, for people. */

import path from 'node:path';
import { FlashVectorError } from '../base/errors.js';
import {
  ENTRY_FLAGS_MASK,
  ENTRY_FLAGS_SHIFT,
  ENTRY_FLAG_BINARY_KEY,
  OPERATION_PUT,
  VALUE_TYPE_MASK,
  VALUE_TYPE_SHIFT,
} from '../base/record.js';
import { checkpointNumbers, readManifest } from '../checkpoint/catalog.js';
import { manifestName, partName } from '../checkpoint/format.js';
import { scanPart } from '../checkpoint/part-reader.js';
import { Checksum } from '../platform/checksum.js';
import { refuseHeldFolder } from '../platform/folder-lock.js';
import { loadFileSystem } from '../platform/load-files.js';
import { NODE_FILES } from '../platform/node-files.js';
import { FRAME_CLEAN, FRAME_HEADER_BYTES, segmentNumber } from '../wal/format.js';
import { readIdentity } from '../wal/identity.js';
import { visitRecords } from '../wal/records.js';
import { scanSegment } from '../wal/scan.js';

const TYPE_NAMES = [
  'msgpack',
  'string',
  'string',
  'string',
  'Uint8Array',
  'Buffer',
  'int32',
  'float64',
  'null',
  'false',
  'true',
  'msgpack',
];
const KEY_SHOWN = 60;

function showKey(bytes: Buffer, meta: number): string {
  const isBinary = ((meta >>> ENTRY_FLAGS_SHIFT) & ENTRY_FLAGS_MASK & ENTRY_FLAG_BINARY_KEY) !== 0;
  const text = isBinary
    ? `<${bytes.subarray(0, KEY_SHOWN).toString('hex')}>`
    : JSON.stringify(bytes.subarray(0, KEY_SHOWN).toString('utf8'));
  return bytes.length > KEY_SHOWN ? `${text}... (${bytes.length} bytes)` : text;
}

function showValue(meta: number, length: number): string {
  const name = TYPE_NAMES[(meta >>> VALUE_TYPE_SHIFT) & VALUE_TYPE_MASK] ?? 'unknown type';
  return length === 0 ? name : `${name}, ${length} bytes`;
}

/**
 * Says what is in the closed store in `directory`, one line at a time.
 * Rejects with `FV_LOCKED` while a process has it open, `FV_IO`.
 * @param print is given each line; lines of records and entries are indented
 */
export async function inspect(directory: string, print: (line: string) => void): Promise<void> {
  const files = await loadFileSystem(NODE_FILES);
  const checksum = await Checksum.load();
  const absolute = path.resolve(directory);
  if (!files.exists(absolute)) throw new FlashVectorError('FV_IO', `there is no folder ${absolute}`, { file: absolute });
  await refuseHeldFolder(absolute);
  let storeId: Buffer | undefined;
  try {
    storeId = readIdentity(files, checksum, absolute);
    print(storeId === undefined ? `no store in ${absolute}` : `store ${storeId.toString('hex')} in ${absolute}`);
  } catch (error) {
    print(String(error));
  }
  for (const number of storeId === undefined ? [] : checkpointNumbers(files, absolute).reverse()) {
    try {
      const manifest = readManifest(files, checksum, absolute, storeId as Buffer, number);
      print(
        `${manifestName(number)}: LSN ${manifest.startLsn} to ${manifest.endLsn}, ${manifest.entries} entries, made ${new Date(manifest.createdMs).toISOString()}`,
      );
      manifest.structures.forEach((text, i) => print(`  structure ${i}: ${text.toString('utf8')}`));
      for (const { part } of manifest.parts) {
        print(partName(number, part));
        const scan = scanPart(
          files,
          checksum,
          absolute,
          { storeId: manifest.storeId, checkpoint: number, part },
          {
            block: (header, offset) =>
              print(`  block ${header.index} at ${offset}: ${header.entries} entries, ${header.payloadBytes} bytes`),
            entry: (entry, payload) => {
              const key = payload.subarray(entry.keyStart, entry.keyStart + entry.keyLength);
              const lsn = (entry.lsnLow >>> 0) + entry.lsnHigh * 2 ** 32;
              print(`    ${lsn} ${showKey(key, entry.meta)}: ${showValue(entry.meta, entry.valueLength)}`);
            },
          },
        );
        for (const bad of scan.bad) print(`  BAD at ${bad.offset}, ${bad.bytes} bytes: ${bad.what}`);
      }
    } catch (error) {
      print(String(error));
    }
  }
  for (const name of files.list(absolute)) {
    const number = segmentNumber(name);
    if (number !== undefined) inspectSegment(number, name);
  }

  function inspectSegment(number: number, name: string): void {
    const lines: string[] = [];
    const scan = scanSegment(files, checksum, absolute, storeId, number, (header, payload, offset) => {
      const clean = (header.flags & FRAME_CLEAN) === 0 ? '' : ', closed in order';
      const lsns = header.records === 0 ? 'no records' : `LSN ${header.firstLsn} to ${header.lastLsn}`;
      lines.push(`  frame at ${offset}: ${lsns}, ${header.payloadBytes} bytes, durable before it ${header.durableLsn}${clean}`);
      visitRecords(payload, header.records, header.firstLsn, name, offset + FRAME_HEADER_BYTES, {
        operation: (operation, bytes, lsn) => {
          const key = showKey(bytes.subarray(operation.keyStart, operation.keyStart + operation.keyLength), operation.meta);
          lines.push(
            operation.type === OPERATION_PUT
              ? `    ${lsn} put ${key}: ${showValue(operation.meta, operation.valueLength)}`
              : `    ${lsn} del ${key}`,
          );
        },
        structure: (structure, names, lsn) => lines.push(`    ${lsn} structure ${structure}: ${names.toString('utf8')}`),
      });
    });
    print(
      `${name}: ${scan.size} bytes, from LSN ${scan.header?.firstLsn ?? '?'}, ${scan.frames} frames, ${scan.records} records, used to ${scan.end}`,
    );
    for (const line of lines) print(line);
    for (const bad of scan.bad) print(`  BAD at ${bad.offset}, ${bad.bytes} bytes: ${bad.what}`);
  }
}
