/** xxhash64 over buffers, shared memory included. Load once a thread; then synchronous. */

import xxhash, { type XXHash, type XXHashAPI } from 'xxhash-wasm';

/** Longer input is hashed in pieces, so that the hash's own memory stays small. */
const PIECE_BYTES = 256 * 1024;

export class Checksum {
  readonly #api: XXHashAPI;

  private constructor(api: XXHashAPI) {
    this.#api = api;
  }

  static async load(): Promise<Checksum> {
    return new Checksum(await xxhash());
  }

  of(bytes: Uint8Array, seed: bigint): bigint {
    if (bytes.length <= PIECE_BYTES) return this.#api.h64Raw(bytes, seed);
    return this.ofParts([bytes], seed);
  }

  /** Begins a checksum over pieces of at most PIECE_BYTES each. */
  start(seed: bigint): XXHash<bigint> {
    return this.#api.create64(seed);
  }

  /** Checksum of several buffers one behind the other. */
  ofParts(parts: readonly Uint8Array[], seed: bigint): bigint {
    const hash = this.#api.create64(seed);
    for (const part of parts) {
      for (let at = 0; at < part.length; at += PIECE_BYTES) hash.update(part.subarray(at, Math.min(at + PIECE_BYTES, part.length)));
    }
    return hash.digest();
  }
}
