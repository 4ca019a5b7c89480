/**
 * Byte arrays as they are, whatever a subclass, a field of their own, or a proxy says: to ask one of those runs code of the user's, and that may write, in the middle
 * of a write.
 */

const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as object;

function getterOf<T>(name: string | symbol): (this: unknown) => T {
  const descriptor = Object.getOwnPropertyDescriptor(typedArray, name) as { get: (this: unknown) => T };
  // oxlint-disable-next-line typescript/unbound-method -- it is called with the array as its `this`
  return descriptor.get;
}

const tagOf = getterOf<string | undefined>(Symbol.toStringTag);
const countOf = getterOf<number>('length');
const bufferOf = getterOf<ArrayBufferLike>('buffer');
const offsetOf = getterOf<number>('byteOffset');

/** Whether it is a Uint8Array, a Buffer among them. A proxy of one is not. */
export function isByteArray(value: unknown): value is Uint8Array {
  return tagOf.call(value) === 'Uint8Array';
}

/** Bytes of it at this moment: it may lie in memory that another thread makes grow. */
export function byteCount(bytes: Uint8Array): number {
  return countOf.call(bytes);
}

/** A view of its first `length` bytes that stays so long. */
export function plainView(bytes: Uint8Array, length: number): Uint8Array {
  return new Uint8Array(bufferOf.call(bytes), offsetOf.call(bytes), length);
}

/** A copy of it. */
export function copyOfBytes(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(byteCount(bytes));
  copy.set(plainView(bytes, copy.length));
  return copy;
}
