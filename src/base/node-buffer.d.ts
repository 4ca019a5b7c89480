/**
 * Methods that every Buffer of Node has and its types leave out. They encode and decode without
 * looking up the encoding by name, and check no more than their bounds.
 */
interface Buffer {
  utf8Write(text: string, offset: number, length: number): number;
  utf8Slice(start: number, end: number): string;
  latin1Write(text: string, offset: number, length: number): number;
  latin1Slice(start: number, end: number): string;
  ucs2Slice(start: number, end: number): string;
}
