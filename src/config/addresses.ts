/** Addresses in settings: `:8080`, `host:port`, `[::1]:port`. Without a host it is the machine's own loopback. */

export interface Address {
  host: string;
  port: number;
}

const LOOPBACK = '127.0.0.1';
const PORT_MAX = 65_535;
const HTTP_PORT_OFFSET = 1000;

/** @returns `undefined` for what is no address */
export function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+(?:%[\w.]+)?)\]|([^\s:[\]/]*)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  if (port > PORT_MAX) return undefined;
  return { host: match[1] ?? (match[2] === '' ? LOOPBACK : match[2]), port };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Where HTTP is served unless it is said otherwise. */
export function httpAddressBeside({ host, port }: Address): Address {
  return { host, port: port === 0 ? 0 : port + HTTP_PORT_OFFSET <= PORT_MAX ? port + HTTP_PORT_OFFSET : port - HTTP_PORT_OFFSET };
}
