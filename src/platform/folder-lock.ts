/**
 * One process per folder, by a lock that the kernel drops with the process.
 *
 * Node offers no `flock`, so the lock is a listening Unix socket in the folder: the socket's file may
 * outlive the process, the listening does not, and connecting tells the two apart. Names are
 * `lock-<pid>-<random>.sock`. Taking the lock:
 *
 *   1. Listen on a name of one's own.
 *   2. Connect to every other lock name in the folder. If one answers, step back: stop listening.
 *   3. Check that one's own name is still there; if not, start again.
 *   4. Remove the names that did not answer.
 *
 * Of two that come at once, whoever listens last finds the other listening in step 2, so two never
 * both succeed; it may happen that both step back, and then they try again after random pauses. A
 * name that is bound but not yet listened on looks dead, and a holder may remove it in step 4: its
 * owner, listening then, either meets that holder in step 2 or misses its own name in step 3, since
 * removals precede the holder's return from here and so its later end.
 *
 * A path longer than a socket address holds is reached through /proc/self/fd. On Windows the lock
 * is a named pipe, which only one process can create.
 */

import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlashVectorError, ioError } from '../base/errors.js';

const NAME = /^lock-(\d+)-[0-9a-f]{8}\.sock$/;
const ATTEMPTS = 20;
const PAUSE_MS_MAX = 40;
/** Longest address of a Unix socket that all systems take. */
const ADDRESS_BYTES_MAX = 100;
const CONNECT_TIMEOUT_MS = 2000;

export interface FolderLock {
  release(): Promise<void>;
}

function isLockName(name: string): boolean {
  return NAME.test(name);
}

/** @throws FlashVectorError FV_LOCKED with the holder's pid, or FV_IO */
export async function lockFolder(directory: string): Promise<FolderLock> {
  if (process.platform === 'win32') return lockByPipe(directory);
  const folder = openFolder(directory);
  try {
    for (let attempt = 1; ; attempt++) {
      const lock = await attemptLock(directory, folder);
      if (typeof lock !== 'number') return lock;
      if (attempt === ATTEMPTS || lock === process.pid) throw lockedError(directory, lock);
      if (lock !== LOST_NAME && !(await stillContended(directory, folder))) throw lockedError(directory, lock);
      await sleep(Math.random() * PAUSE_MS_MAX);
    }
  } finally {
    fs.closeSync(folder);
  }
}

const LOST_NAME = 0;

function openFolder(directory: string): number {
  try {
    return fs.openSync(directory, 'r');
  } catch (error) {
    throw ioError('locking the folder', directory, error);
  }
}

/**
 * For a reader that takes no lock: refuses a folder that a process has open for writing. Changes nothing.
 * @throws FlashVectorError FV_LOCKED, FV_IO
 */
export async function refuseHeldFolder(directory: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = openFolder(directory);
  try {
    for (const name of fs.readdirSync(directory).filter(isLockName)) {
      if (await answersAt(address(directory, folder, name))) throw lockedError(directory, Number(NAME.exec(name)?.[1]));
    }
  } catch (error) {
    throw ioError("looking for the folder's lock", directory, error);
  } finally {
    fs.closeSync(folder);
  }
}

function lockedError(directory: string, pid: number): FlashVectorError {
  return new FlashVectorError('FV_LOCKED', `${directory} is in use by process ${pid}`, { file: directory, pid });
}

/** Whether more than one opener is at it: then the one that was met may step back as well. */
async function stillContended(directory: string, folder: number): Promise<boolean> {
  const names = fs.readdirSync(directory).filter(isLockName);
  const answers = await Promise.all(names.map((name) => answersAt(address(directory, folder, name))));
  return answers.filter(Boolean).length !== 1;
}

function address(directory: string, folder: number, name: string): string {
  const direct = path.join(directory, name);
  if (Buffer.byteLength(direct) <= ADDRESS_BYTES_MAX) return direct;
  return `/proc/self/fd/${folder}/${name}`;
}

/** @returns the lock, the pid of a process that has it, or LOST_NAME */
async function attemptLock(directory: string, folder: number): Promise<FolderLock | number> {
  const own = `lock-${process.pid}-${randomBytes(4).toString('hex')}.sock`;
  const ownPath = path.join(directory, own);
  const server = await listen(address(directory, folder, own), directory);
  const stepBack = async (): Promise<void> => {
    await new Promise<void>((resolve) => server.close(() => resolve()));
    fs.rmSync(ownPath, { force: true });
  };
  try {
    const dead: string[] = [];
    for (const name of fs.readdirSync(directory)) {
      if (name === own || !isLockName(name)) continue;
      if (await answersAt(address(directory, folder, name))) {
        await stepBack();
        return Number(NAME.exec(name)?.[1]);
      }
      dead.push(name);
    }
    if (!fs.existsSync(ownPath)) {
      await stepBack();
      return LOST_NAME;
    }
    for (const name of dead) fs.rmSync(path.join(directory, name), { force: true });
  } catch (error) {
    await stepBack();
    throw ioError('locking the folder', directory, error);
  }
  server.unref();
  return { release: stepBack };
}

async function listen(where: string, directory: string): Promise<net.Server> {
  const server = net.createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(ioError('locking the folder', directory, error)));
    // Exclusive: in a cluster worker the socket must be this process's own.
    server.listen({ path: where, exclusive: true }, () => resolve());
  });
  return server;
}

/** Whether a process listens there. Anything but a clear refusal counts as yes. */
async function answersAt(where: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(where);
    socket.setTimeout(CONNECT_TIMEOUT_MS);
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(true));
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
  });
}

async function lockByPipe(directory: string): Promise<FolderLock> {
  const name = createHash('sha256').update(fs.realpathSync(directory).toLowerCase()).digest('hex').slice(0, 32);
  const server = net.createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(error.code === 'EADDRINUSE' ? lockedError(directory, 0) : ioError('locking the folder', directory, error));
    });
    server.listen(`\\\\.\\pipe\\flashvector-${name}`, () => resolve());
  });
  server.unref();
  return { release: () => new Promise<void>((resolve) => server.close(() => resolve())) };
}
