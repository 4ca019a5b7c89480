/**
 * Lone surrogates inside values. UTF-8 has no bytes for them, and msgpackr would store another character
 * in their place without a word; so a value that holds one is refused.
 */

/** First bytes of what msgpackr makes of a lone surrogate: three bytes of its own, or U+FFFD. */
const SURROGATE_LEAD = 0xed;
const REPLACEMENT_LEAD = 0xef;

/** Whether packed bytes may come from a lone surrogate: a quick look, which nearly all values pass. */
export function maybeIllFormed(packed: Uint8Array): boolean {
  return packed.includes(SURROGATE_LEAD) || packed.includes(REPLACEMENT_LEAD);
}

/**
 * The first string with a lone surrogate in a value that has been packed just now, so that it holds no
 * cycle; field names and Map keys included.
 */
export function findIllFormed(value: unknown): string | undefined {
  if (typeof value === 'string') return (value as string & { isWellFormed(): boolean }).isWellFormed() ? undefined : value;
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return undefined;
  const parts: Iterable<unknown> =
    value instanceof Map
      ? [...value].flat()
      : Array.isArray(value) || value instanceof Set
        ? (value as Iterable<unknown>)
        : Object.entries(value).flat();
  for (const part of parts) {
    const found = findIllFormed(part);
    if (found !== undefined) return found;
  }
  return undefined;
}
