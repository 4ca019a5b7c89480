/**
 * Ordering on words of shared memory that is cheaper than sequential consistency.
 *
 * In V8 of Node 20 every `Atomics` operation is a call of a builtin, 8 to 20 ns each; a write that
 * used them wherever they could stand spent a fifth of its time there. Where the argument in
 * `docs/concurrency.md` needs release or acquire and no more, these helpers are used:
 *
 * - On x86-64 a plain store is a release and a plain load an acquire: the machine keeps loads in
 *   order with loads, stores with stores, and does not move a store before an earlier load. V8 keeps
 *   accesses to typed arrays in program order among themselves, and never takes what one load of a word has
 *   brought for the result of another: its compilers know that the memory may be shared.
 * - Elsewhere they are `Atomics` operations.
 *
 * What needs a store to be seen before a later load (Dekker's argument) uses `Atomics`, and so does
 * every loop that waits for a word to change.
 */

import { arch } from 'node:process';
import { CONTROL_FENCE } from './layout.js';

/** The machine keeps stores in order, and loads in order. */
const ORDERED = arch === 'x64' || arch === 'ia32';

/** Stores `value`; whoever sees it sees everything that was stored before. */
export function storeRelease(words: Int32Array, index: number, value: number): void {
  if (ORDERED) words[index] = value;
  else Atomics.store(words, index, value);
}

/** Loads a word; what is loaded afterwards is at least as new. Not for waiting in a loop. */
export function loadAcquire(words: Int32Array, index: number): number {
  return ORDERED ? words[index] : Atomics.load(words, index);
}

/**
 * The fence of the optimistic read protocol: what was loaded before comes before the version that is loaded next;
 * what is stored after comes after the version that was stored last. An ARM processor lets a plain load
 * pass a later acquire load, and a plain store pass an earlier release store; a read-modify-write between them
 * forbids both. Its target is a line of the control region that nobody reads.
 */
export function fence(words: Int32Array): void {
  if (!ORDERED) Atomics.exchange(words, CONTROL_FENCE, 0);
}
