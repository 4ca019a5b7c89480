/**
 * The fence of the optimistic read protocol.
 *
 * The protocol reads a version word, then plain words, then the version again, and the writer stores
 * the version, then plain words. x86-64 keeps loads in order with loads and stores with stores, so
 * the atomic operations on the version are enough. ARM lets a plain load pass a later acquire load,
 * and a plain store pass an earlier release store; a read-modify-write between them forbids both
 * (release orders what is before it, acquire what is after it). Its target is a line of the control
 * region that nobody reads, so it costs no traffic on words that matter.
 */

import { arch } from 'node:process';
import { CONTROL_FENCE } from './layout.js';

const NEEDED = arch !== 'x64' && arch !== 'ia32';

export function fence(words: Int32Array): void {
  if (NEEDED) Atomics.exchange(words, CONTROL_FENCE, 0);
}
