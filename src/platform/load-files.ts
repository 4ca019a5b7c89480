/** Makes the file system that a task's data names. Runs in workers. */

import type { FileSystem, FileSystemModule, FileSystemSource } from './files.js';

export async function loadFileSystem(source: FileSystemSource): Promise<FileSystem> {
  const module = (await import(source.module)) as FileSystemModule;
  return module.createFileSystem(source.config);
}
