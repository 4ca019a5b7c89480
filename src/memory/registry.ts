/**
 * The thread registry: which threads use the store, one slot each.
 *
 * A slot is taken by compare-and-swap of 0 to threadId + 1 and freed by storing 0. Only the thread
 * itself writes the rest of its slot, but for THREAD_ENDED. The owner alone buries dead threads.
 */

import { threadId } from 'node:worker_threads';
import { FlashVectorError } from '../base/errors.js';
import type { Control } from './control.js';
import * as L from './layout.js';

export function threadWord(control: Control, slot: number): number {
  return control.shape.threadAreaWord + slot * L.THREAD_WORDS;
}

/** Says that slots up to this one may be in use: before it is, so that who goes over the slots does not miss it. */
function raiseSlots(control: Control, slot: number): void {
  for (let known = Atomics.load(control.words, L.CONTROL_THREAD_SLOTS); known <= slot;) {
    const found = Atomics.compareExchange(control.words, L.CONTROL_THREAD_SLOTS, known, slot + 1);
    if (found === known) return;
    known = found;
  }
}

/** Takes a given slot: the owner's and the log thread's are fixed. @param systemId see THREAD_SYSTEM_ID */
export function claimSlot(control: Control, slot: number, systemId: number): number {
  raiseSlots(control, slot);
  const word = threadWord(control, slot);
  Atomics.store(control.words, word + L.THREAD_BUSY, 0);
  Atomics.store(control.words, word + L.THREAD_SYSTEM_ID, systemId);
  Atomics.store(control.words, word + L.THREAD_ID, threadId + 1);
  Atomics.add(control.words, L.CONTROL_REGISTRY_EPOCH, 1);
  return slot;
}

/** Takes a free slot for an attached thread. @param systemId see THREAD_SYSTEM_ID @throws FlashVectorError FV_MEMORY_FULL when all are taken */
export function takeSlot(control: Control, systemId: number): number {
  for (let slot = L.FIRST_FREE_SLOT; slot < L.THREADS_MAX; slot++) {
    const word = threadWord(control, slot);
    if (Atomics.load(control.words, word + L.THREAD_ID) !== 0) continue;
    raiseSlots(control, slot);
    if (Atomics.compareExchange(control.words, word + L.THREAD_ID, 0, threadId + 1) === 0) {
      Atomics.store(control.words, word + L.THREAD_SYSTEM_ID, systemId);
      Atomics.add(control.words, L.CONTROL_REGISTRY_EPOCH, 1);
      return slot;
    }
  }
  throw new FlashVectorError(
    'FV_MEMORY_FULL',
    `all ${L.THREADS_MAX} thread slots of the store are taken; close attached stores that are no longer used`,
  );
}

/** Says that this thread holds a block of a shard that nothing leads to yet, or, with unit 0, that it does not. Under the shard's lock. */
export function noteBlock(control: Control, slot: number, shard: number, unit: number): void {
  const word = threadWord(control, slot);
  Atomics.store(control.words, word + L.THREAD_BLOCK_UNIT, unit);
  Atomics.store(control.words, word + L.THREAD_BLOCK_SHARD, unit === 0 ? 0 : shard + 1);
}

/** Blocks of a shard that threads hold and nothing leads to yet. Under the shard's lock. @param except a slot that does not count */
export function notedBlocks(control: Control, shard: number, except: number): number[] {
  const units: number[] = [];
  for (let slot = 0; slot < L.THREADS_MAX; slot++) {
    const word = threadWord(control, slot);
    if (slot !== except && Atomics.load(control.words, word + L.THREAD_BLOCK_SHARD) === shard + 1)
      units.push(Atomics.load(control.words, word + L.THREAD_BLOCK_UNIT));
  }
  return units;
}

/** Whether a thread is still applying the record at this ring position. */
export function isApplying(control: Control, position: number): boolean {
  for (let slot = 0; slot < L.THREADS_MAX; slot++) {
    const word = threadWord(control, slot);
    if (Atomics.load(control.words, word + L.THREAD_BUSY) !== 0 && Atomics.load(control.words, word + L.THREAD_APPLYING) === position)
      return true;
  }
  return false;
}

export function freeSlot(control: Control, slot: number): void {
  const word = threadWord(control, slot);
  Atomics.store(control.words, word + L.THREAD_BUSY, 0);
  Atomics.store(control.words, word + L.THREAD_SYSTEM_ID, 0);
  Atomics.store(control.words, word + L.THREAD_ENDED, 0);
  Atomics.store(control.words, word + L.THREAD_BLOCK_SHARD, 0);
  Atomics.store(control.words, word + L.THREAD_ID, 0);
  Atomics.add(control.words, L.CONTROL_REGISTRY_EPOCH, 1);
}
