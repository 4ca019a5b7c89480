/** The way of an operation from the scratch to the log's memory. */

import * as R from '../base/record.js';
import { copyIn } from '../memory/copy.js';
import { WORD_COPY_MAX } from './entry-reader.js';
import type { Scratch } from './scratch.js';

/**
 * Copies the operation in the scratch to a record's body, and pads it to 8 bytes.
 * @param words where the record is, and `bytes` the same; the body begins at word `to`
 */
export function copyOperation(scratch: Scratch, type: number, words: Int32Array, bytes: Buffer, to: number): void {
  const from = scratch.words;
  from[0] =
    scratch.keyLength | (scratch.valueType << R.VALUE_TYPE_SHIFT) | (scratch.keyFlags << R.ENTRY_FLAGS_SHIFT) | (type << R.OPERATION_SHIFT);
  from[1] = scratch.valueLength;
  const external = scratch.valueBytes;
  const total = R.operationWords(scratch.keyLength, scratch.valueLength);
  const count = external === null ? total : total - R.wordsOf(scratch.valueLength);
  if (count <= WORD_COPY_MAX) {
    for (let i = 0; i < count; i++) words[to + i] = from[i];
  } else {
    copyIn(scratch.bytes, 0, bytes, to * 4, count * 4);
  }
  if (external !== null) {
    words[to + total - 1] = 0;
    copyIn(external, 0, bytes, (to + count) * 4, external.length);
  }
  if ((total & 1) !== 0) words[to + total] = 0;
}
