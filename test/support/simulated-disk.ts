/**
 * A disk in memory that loses power. What was not synced is, at the cut, lost, kept, reordered or torn,
 * block by block, names included; a seed decides. It can also fail single operations, or write short.
 *
 * One directory level; the same thread for everybody who uses it (see store-harness.ts).
 */

import path from 'node:path';
import type { FileSystem, FileSystemSource, OpenFile } from '../../src/platform/files.js';
import { randomFrom } from './random.js';

/** What becomes of unsynced data at a power cut. `torn` decides for each block by itself. */
export type Policy = 'lost' | 'kept' | 'torn 512' | 'torn 4096';

export interface Fault {
  /** Number of the operation, from 1: of those that change something, or of those that open, list and read. */
  at: number;
  kind: 'cut' | 'EIO' | 'ENOSPC' | 'short' | 'EIO for ever' | 'EIO reading';
}

interface Pending {
  offset: number;
  /** `undefined`: the file's size is set to `offset`. */
  bytes: Buffer | undefined;
}

class Inode {
  /** What reading gives. */
  live: Buffer = Buffer.alloc(0);
  /** What is on the medium, and what may or may not be. */
  durable: Buffer = Buffer.alloc(0);
  pending: Pending[] = [];
}

type NameChange = (names: Map<string, Inode>) => void;

class PowerCut extends Error {
  constructor() {
    super('the power is off');
  }
}

function applied(content: Buffer, change: Pending): Buffer {
  if (change.bytes === undefined) {
    const resized = Buffer.alloc(change.offset);
    content.copy(resized, 0, 0, Math.min(content.length, change.offset));
    return resized;
  }
  const end = change.offset + change.bytes.length;
  let result = content;
  if (end > content.length) {
    result = Buffer.alloc(end);
    content.copy(result);
  }
  change.bytes.copy(result, change.offset);
  return result;
}

export class SimulatedDisk {
  #live = new Map<string, Inode>();
  #durable = new Map<string, Inode>();
  #changes: NameChange[] = [];
  #off = false;
  fault: Fault | undefined;
  /** Changing operations so far, and what they were. */
  operations: string[] = [];
  /** Operations so far that only look. */
  reads: string[] = [];

  /** Counts an operation that changes nothing. */
  #look(what: string): void {
    if (this.#off) throw new PowerCut();
    this.reads.push(what);
    if (this.fault?.kind !== 'EIO reading' || this.reads.length !== this.fault.at) return;
    throw Object.assign(new Error(`EIO: injected, ${what}`), { code: 'EIO' });
  }

  /** Counts an operation. @returns 'short' when a write is to be cut short */
  #step(what: string): 'short' | undefined {
    if (this.#off) throw new PowerCut();
    this.operations.push(what);
    const fault = this.fault;
    if (fault === undefined || fault.kind === 'EIO reading') return undefined;
    const now = this.operations.length;
    if (now !== fault.at && !(fault.kind === 'EIO for ever' && now > fault.at)) return undefined;
    if (fault.kind === 'short') return what.startsWith('write') ? 'short' : undefined;
    if (fault.kind === 'cut') return undefined;
    const code = fault.kind === 'ENOSPC' ? 'ENOSPC' : 'EIO';
    throw Object.assign(new Error(`${code}: injected, ${what}`), { code });
  }

  /** Whether the operation just counted is the one in which the power goes. */
  get #cutNow(): boolean {
    return this.fault?.kind === 'cut' && this.operations.length === this.fault.at;
  }

  #cut(): never {
    this.#off = true;
    throw new PowerCut();
  }

  /** What is found when the power is back. Everything in it is durable. */
  restarted(policy: Policy, seed: number): SimulatedDisk {
    const random = randomFrom(seed);
    const keeps = (): boolean => (policy === 'lost' ? false : policy === 'kept' ? true : random() < 0.5);
    const names = new Map(this.#durable);
    for (const change of this.#changes) if (keeps()) change(names);
    const block = policy === 'torn 512' ? 512 : 4096;
    const found = new SimulatedDisk();
    const copies = new Map<Inode, Inode>();
    for (const [name, inode] of names) {
      let copy = copies.get(inode);
      if (copy === undefined) {
        copy = new Inode();
        let content: Buffer = Buffer.from(inode.durable);
        for (const change of inode.pending) {
          const { bytes, offset } = change;
          if (bytes === undefined || policy === 'kept' || policy === 'lost') {
            if (keeps()) content = applied(content, change);
            continue;
          }
          for (let at = 0; at < bytes.length;) {
            const end = Math.min(bytes.length, at + block - ((offset + at) % block));
            if (keeps()) content = applied(content, { offset: offset + at, bytes: bytes.subarray(at, end) });
            at = end;
          }
        }
        copy.live = content;
        copy.durable = Buffer.from(content);
        copies.set(inode, copy);
      }
      found.#live.set(name, copy);
      found.#durable.set(name, copy);
    }
    return found;
  }

  get isOff(): boolean {
    return this.#off;
  }

  /** Contents of a file, to be damaged at will. */
  content(name: string): Buffer {
    const inode = this.#live.get(name);
    if (inode === undefined) throw new Error(`no ${name}`);
    return inode.live;
  }

  /** Replaces a file, or removes it. */
  place(name: string, content: Buffer | undefined): void {
    const inode = new Inode();
    if (content === undefined) {
      this.#live.delete(name);
      return;
    }
    inode.live = content;
    this.#live.set(name, inode);
  }

  get names(): string[] {
    return [...this.#live.keys()].sort();
  }

  get bytes(): number {
    return [...this.#live.values()].reduce((sum, inode) => sum + inode.live.length, 0);
  }

  /** A file system over this disk. */
  files(): FileSystem {
    const find = (file: string): Inode => {
      const inode = this.#live.get(path.basename(file));
      if (inode === undefined) throw Object.assign(new Error(`ENOENT: ${file}`), { code: 'ENOENT' });
      return inode;
    };
    const change = (apply: NameChange): void => {
      apply(this.#live);
      this.#changes.push(apply);
    };
    const alive = (): void => {
      if (this.#off) throw new PowerCut();
    };
    return {
      open: (file, mode) => {
        const name = path.basename(file);
        if (mode !== 'create') {
          this.#look(`open ${name}`);
          return this.#open(find(file), name);
        }
        this.#step(`create ${name}`);
        const inode = new Inode();
        change((names) => names.set(name, inode));
        if (this.#cutNow) this.#cut();
        return this.#open(inode, name);
      },
      list: () => {
        this.#look('list');
        return this.names;
      },
      makeDirectory: () => undefined,
      rename: (from, to) => {
        this.#step(`rename ${path.basename(from)} ${path.basename(to)}`);
        const inode = find(from);
        change((names) => {
          if (names.get(path.basename(from)) === inode) names.delete(path.basename(from));
          names.set(path.basename(to), inode);
        });
        if (this.#cutNow) this.#cut();
      },
      remove: (file) => {
        this.#step(`remove ${path.basename(file)}`);
        find(file);
        change((names) => names.delete(path.basename(file)));
        if (this.#cutNow) this.#cut();
      },
      syncDirectory: () => {
        this.#step('sync directory');
        if (this.#cutNow) this.#cut();
        for (const apply of this.#changes.splice(0)) apply(this.#durable);
      },
      exists: (file) => {
        alive();
        return this.#live.has(path.basename(file));
      },
    };
  }

  #open(inode: Inode, name: string): OpenFile {
    return {
      read: (into, offset, length, position) => {
        this.#look(`read ${name}`);
        const part = inode.live.subarray(position, position + length);
        into.set(part, offset);
        return part.length;
      },
      write: (from, offset, length, position) => {
        const short = this.#step(`write ${name} ${position}+${length}`) === 'short';
        const take = short ? Math.max(1, length >>> 1) : length;
        const bytes = Buffer.from(from.subarray(offset, offset + take));
        inode.live = applied(inode.live, { offset: position, bytes });
        inode.pending.push({ offset: position, bytes });
        if (this.#cutNow) this.#cut();
        return take;
      },
      sync: () => {
        this.#step(`sync ${name}`);
        if (this.#cutNow) this.#cut();
        inode.durable = Buffer.from(inode.live);
        inode.pending = [];
      },
      truncate: (bytes) => {
        this.#step(`truncate ${name} ${bytes}`);
        inode.live = applied(inode.live, { offset: bytes, bytes: undefined });
        inode.pending.push({ offset: bytes, bytes: undefined });
        if (this.#cutNow) this.#cut();
      },
      size: () => inode.live.length,
      close: () => undefined,
    };
  }
}

const disks = new Map<number, SimulatedDisk>();
let lastId = 0;
/** Disks that can be found: the last so many that were asked for. */
const DISKS_MAX = 16;

/** How tasks that run in this thread find a disk. */
export function diskSource(disk: SimulatedDisk): FileSystemSource {
  disks.set(++lastId, disk);
  disks.delete(lastId - DISKS_MAX);
  return { module: import.meta.url, config: lastId };
}

export function createFileSystem(config: unknown): FileSystem {
  const disk = disks.get(config as number);
  if (disk === undefined) throw new Error('that disk is gone');
  return disk.files();
}
