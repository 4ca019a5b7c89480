import { FlashVectorError } from '../base/errors.js';

export function memoryFull(): FlashVectorError {
  return new FlashVectorError('FV_MEMORY_FULL', 'the store has no memory left for this: raise maxMemoryBytes, or delete something first');
}

export function isMemoryFull(error: unknown): boolean {
  return error instanceof FlashVectorError && error.code === 'FV_MEMORY_FULL';
}
