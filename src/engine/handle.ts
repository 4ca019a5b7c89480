/** The handle of an open store: what another thread needs to attach. Plain, structured-cloneable data. */

/** Made by `db.handle`; pass it to a worker in `workerData` or a message and give it to `attach`. */
export interface StoreHandle {
  readonly kind: 'flashvector';
  readonly control: SharedArrayBuffer;
  readonly ring: SharedArrayBuffer;
  readonly staging: SharedArrayBuffer;
  readonly shards: readonly SharedArrayBuffer[];
  /** The ordered index. */
  readonly index: SharedArrayBuffer;
  /** When keys were last used; empty unless the least recently used are evicted. */
  readonly marks: SharedArrayBuffer;
  /** Wakes the thread that puts waiting keys into the index. */
  readonly bell: SharedArrayBuffer;
}

export function isStoreHandle(value: unknown): value is StoreHandle {
  if (typeof value !== 'object' || value === null) return false;
  const handle = value as Partial<Record<keyof StoreHandle, unknown>>;
  return (
    handle.kind === 'flashvector' &&
    handle.control instanceof SharedArrayBuffer &&
    handle.ring instanceof SharedArrayBuffer &&
    handle.staging instanceof SharedArrayBuffer &&
    handle.index instanceof SharedArrayBuffer &&
    handle.marks instanceof SharedArrayBuffer &&
    handle.bell instanceof SharedArrayBuffer &&
    Array.isArray(handle.shards) &&
    handle.shards.every((shard) => shard instanceof SharedArrayBuffer)
  );
}
