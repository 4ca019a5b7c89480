/**
 * Walks over the records of a frame's payload and the operations of a record, checking every length.
 * A frame that passed its checksum was written by the engine, so what is refused here is a defect
 * or a deliberate forgery; either way it is reported with its position and never followed.
 */

import { FlashVectorError } from '../base/errors.js';
import { lsnFrom } from '../base/lsn.js';
import * as R from '../base/record.js';

interface Operation {
  type: number;
  /** Word 0 of the operation without its type: key length, value type, entry flags. */
  meta: number;
  keyLength: number;
  valueLength: number;
  /** Where key and value start, in bytes of the payload. */
  keyStart: number;
  valueStart: number;
}

export interface RecordVisitor {
  /** A `WRITE` record's operation; the object is reused. */
  operation(operation: Operation, payload: Buffer, lsn: number): void;
  structure(number: number, names: Buffer, lsn: number): void;
}

/** @throws FlashVectorError FV_CORRUPT with the position of the record */
export function visitRecords(
  payload: Buffer,
  records: number,
  firstLsn: number,
  file: string,
  fileOffset: number,
  visitor: RecordVisitor,
): void {
  const operation: Operation = { type: 0, meta: 0, keyLength: 0, valueLength: 0, keyStart: 0, valueStart: 0 };
  let at = 0;
  for (let i = 0; i < records; i++) {
    const lsn = firstLsn + i;
    const check = (good: boolean, what: string): void => {
      if (!good) throw new FlashVectorError('FV_CORRUPT', `${file}: record ${lsn} ${what}`, { file, offset: fileOffset + at, lsn });
    };
    check(at + R.RECORD_HEADER_BYTES <= payload.length, 'lies past the end of its frame');
    const length = payload.readUInt32LE(at);
    const state = payload.readUInt32LE(at + 4);
    const kind = (state >>> R.KIND_SHIFT) & R.KIND_MASK;
    const end = at + length;
    check(length >= R.RECORD_HEADER_BYTES && (length & 7) === 0 && end <= payload.length, 'has a wrong length');
    check(lsnFrom(payload.readInt32LE(at + 8), payload.readInt32LE(at + 12)) === lsn, 'has another number');
    const body = at + R.RECORD_HEADER_BYTES;
    if (kind === R.KIND_WRITE) {
      let op = body;
      // Padding to 8 leaves at most one word, less than the shortest operation.
      while (op + R.OPERATION_HEADER_WORDS * 4 <= end) {
        const word = payload.readUInt32LE(op);
        operation.type = word >>> R.OPERATION_SHIFT;
        operation.meta = word & 0x00ff_ffff;
        operation.keyLength = word & R.KEY_LENGTH_MASK;
        operation.valueLength = payload.readUInt32LE(op + 4);
        operation.keyStart = op + R.OPERATION_HEADER_WORDS * 4;
        operation.valueStart = operation.keyStart + R.wordsOf(operation.keyLength) * 4;
        const next = operation.valueStart + R.wordsOf(operation.valueLength) * 4;
        check(operation.keyLength > 0 && next <= end, 'has an operation with wrong lengths');
        check(
          operation.type === R.OPERATION_PUT || operation.type === R.OPERATION_DELETE,
          `has an operation of unknown type ${operation.type}`,
        );
        const flags = (word >>> R.ENTRY_FLAGS_SHIFT) & R.ENTRY_FLAGS_MASK;
        const expires = (flags & R.ENTRY_FLAG_EXPIRES) !== 0;
        check(flags <= R.ENTRY_FLAGS_KNOWN && (!expires || operation.valueLength >= R.EXPIRY_BYTES), 'has an operation with unknown flags');
        visitor.operation(operation, payload, lsn);
        op = next;
      }
    } else if (kind === R.KIND_STRUCTURE) {
      const textLength = payload.readUInt32LE(body + 4);
      check(body + 8 + textLength <= end, 'has a structure with a wrong length');
      visitor.structure(payload.readUInt32LE(body), payload.subarray(body + 8, body + 8 + textLength), lsn);
    } else {
      check(kind === R.KIND_SKIP, `is of unknown kind ${kind}`);
    }
    at = end;
  }
  if (at !== payload.length) {
    throw new FlashVectorError('FV_CORRUPT', `${file}: the frame has ${payload.length - at} bytes behind its last record`, {
      file,
      offset: fileOffset + at,
      lsn: firstLsn,
    });
  }
}
