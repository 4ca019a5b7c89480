/** Values that commands make. */

/** Longest value that commands make: as `proto-max-bulk-len` of Redis. */
export const VALUE_BYTES_MAX = 512 * 1024 * 1024;

/** What `modify` is to write: nothing where it would have expired already. */
export function replacement(
  value: string | Uint8Array,
  expiresAt: number | undefined,
): { value: string | Uint8Array; expiresAt?: number } | null {
  if (expiresAt === undefined || expiresAt === 0) return { value };
  return expiresAt <= Date.now() ? null : { value, expiresAt };
}
