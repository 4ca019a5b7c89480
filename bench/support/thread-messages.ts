/** What the threads workload and its workers say to each other. */

import type { StoreHandle } from '../../src/index.js';

export type ThreadWork = 'read' | 'write' | 'write durably';

/** A worker's `workerData`. */
export interface ThreadData {
  /** Which store to use: one of this process by its handle, or lmdb-js by its path. */
  store: { engine: 'flashvector'; handle: StoreHandle } | { engine: 'lmdb'; path: string; noSync: boolean };
  /** The worker's number, from 0: each starts at a place of its own among the keys. */
  index: number;
  keyCount: number;
}

export type ThreadRequest = { type: 'run'; work: ThreadWork; timeMs: number } | { type: 'close' };

export type ThreadReply = { type: 'ready' } | { type: 'done'; operations: number; elapsedMs: number };
