/** Attaching a further thread to an open store. */

import { threadId } from 'node:worker_threads';
import { FlashVectorError, describe } from '../base/errors.js';
import { checkAttachOptions, type AttachOptions } from '../base/options.js';
import { Control } from '../memory/control.js';
import * as L from '../memory/layout.js';
import { freeSlot, takeSlot, threadWord } from '../memory/registry.js';
import { askForCheckpoint } from './checkpoint-request.js';
import { keepCode } from './code-keeper.js';
import { Core } from './core.js';
import { FlashVector, type Lifecycle } from './database.js';
import { isStoreHandle, type StoreHandle } from './handle.js';
import { ThreadWatch } from './threads.js';
import { Writer } from './writer.js';
import { systemThreadId } from '../platform/thread-life.js';

/**
 * Attaches this thread to a store that another thread has opened. The result has the same reads and
 * writes, over the same memory; closing it detaches this thread only.
 *
 * Rejects with `FV_OPTION`, `FV_CLOSED` when the store is closed, `FV_MEMORY_FULL` when all 128 thread slots are taken, or a
 * TypeError when `handle` is not a handle.
 * @example const db = await attach(workerData.handle)
 */
export async function attach(handle: StoreHandle, options: AttachOptions = {}): Promise<FlashVector> {
  if (!isStoreHandle(handle)) throw new TypeError(`attach takes db.handle, not ${describe(handle)}`);
  checkAttachOptions(options);
  const control = new Control(handle.control);
  const shards = control.words[L.CONTROL_SHARDS];
  if (handle.shards.length !== shards)
    throw new TypeError(`attach takes db.handle as it is: of ${shards} shards this one has ${handle.shards.length}`);
  if (control.status >= L.STATUS_CLOSING) throw control.closedError();
  const slot = takeSlot(control, systemThreadId());
  const core = new Core(handle, slot);
  const writer = new Writer(core);
  // Workers that this thread creates may use the store too, and only this thread hears of their end.
  const watch = new ThreadWatch(core, () => undefined);
  const lifecycle: Lifecycle = {
    checkpoint: () => askForCheckpoint(core.control),
    backup: () => Promise.reject(new FlashVectorError('FV_OPTION', "a backup is made by the store's owner, not by an attached thread")),
    checkpoints: undefined,
    close: async () => {
      await writer.idle();
      watch.dispose();
      // The slot may have been freed for us when the store was closed and this thread taken for dead.
      if (Atomics.load(core.words, threadWord(control, slot) + L.THREAD_ID) === threadId + 1) freeSlot(control, slot);
      keepCode(core, options.cache === true);
    },
  };
  return new FlashVector(core, writer, lifecycle, options.cache === true);
}
