/** Whether an address is the machine's own. A name that only looks like an address is not: `127.example.com`. */

import { isIPv4 } from 'node:net';

export function isLoopback(address: string | undefined): boolean {
  if (address === undefined) return false;
  const plain = address.startsWith('::ffff:') ? address.slice(7) : address;
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'));
}
