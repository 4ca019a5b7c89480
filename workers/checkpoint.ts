/** Pool tasks of checkpoints and backups: writing a part, and what comes before and after. */

import { FlashVectorError, toErrorData, type ErrorData } from '../src/base/errors.js';
import { removeCheckpoints } from '../src/checkpoint/catalog.js';
import { completeCopy, discardCopy, prepareTarget } from '../src/checkpoint/copy.js';
import type { Manifest, PartSummary } from '../src/checkpoint/format.js';
import { PartWriter, SYNC_OFTEN_BYTES } from '../src/checkpoint/part-writer.js';
import { publishCheckpoint, type Publication } from '../src/checkpoint/publish.js';
import { Clock } from '../src/memory/clock.js';
import { Control } from '../src/memory/control.js';
import * as L from '../src/memory/layout.js';
import { Region } from '../src/memory/region.js';
import { freeSlot, takeSlot } from '../src/memory/registry.js';
import { Checksum } from '../src/platform/checksum.js';
import type { FileSystem, FileSystemSource } from '../src/platform/files.js';
import { loadFileSystem } from '../src/platform/load-files.js';
import { giveWay } from '../src/platform/niceness.js';
import { Capture } from '../src/table/capture.js';
import { Scratch } from '../src/table/scratch.js';
import { Shard } from '../src/table/shard.js';
import { Dictionary } from '../src/table/structures.js';
import { ValueCodec } from '../src/table/value-codec.js';
import { systemThreadId } from '../src/platform/thread-life.js';

interface Common {
  directory: string;
  files: FileSystemSource;
  storeId: Uint8Array;
  checkpoint: number;
  /** Whether the thread is to give way to others, from now on. */
  givesWay: boolean;
}

/** Writes the entries of every `parts`-th shard, beginning with shard `part`. */
export interface WritePartTask extends Common {
  kind: 'write';
  control: SharedArrayBuffer;
  shards: SharedArrayBuffer[];
  part: number;
  parts: number;
  /** How long to rest after every stretch of work, in ms; where it rests it syncs every SYNC_OFTEN_BYTES, too. 0: it does neither. */
  restMs: number;
}

export interface PublishTask extends Common {
  kind: 'publish';
  control: SharedArrayBuffer;
  manifest: Manifest;
  /** How long to rest between the blocks that are read back, in ms. 0: not at all. */
  restMs: number;
}

/** Removes what a failed checkpoint has left, one that was published and not read back whole included. */
export interface SweepTask extends Common {
  kind: 'sweep';
}

/** Makes the folder of a backup. */
export interface PrepareTask extends Common {
  kind: 'prepare';
}

/** Completes a backup, whose parts are written, from the store in `source`. */
export interface CompleteTask extends Common {
  kind: 'complete';
  manifest: Manifest;
  source: { directory: string; storeId: Uint8Array; segmentBytes: number };
}

/** Removes what a backup that failed has left. */
export interface DiscardTask extends Common {
  kind: 'discard';
}

export type CheckpointTask = WritePartTask | PublishTask | SweepTask | PrepareTask | CompleteTask | DiscardTask;
export interface CheckpointDone {
  part?: PartSummary;
  retired?: number;
  /** See Publication. */
  leftover?: ErrorData;
  error?: undefined;
}
export type CheckpointResult = CheckpointDone | { error: ErrorData };

/** Niceness of this thread when it gives way to the threads that serve. With 10 the slowest hundredth of a server's replies took 2.4 times as long beside a checkpoint, with 19 1.8 times. */
const NICENESS = 19;
/** Work between two rests where blocks are read back; where they are written see PartWriter. */
const STRETCH_MS = 0.1;
/** A word that nobody wakes anybody at. */
const NOBODY = new Int32Array(new SharedArrayBuffer(4));

export default async function checkpoint(task: CheckpointTask): Promise<CheckpointResult> {
  try {
    if (task.givesWay) giveWay(NICENESS);
    const files = await loadFileSystem(task.files);
    const checksum = await Checksum.load();
    const storeId = Buffer.from(task.storeId);
    if (task.kind === 'write') return { part: writePart(files, checksum, storeId, task) };
    if (task.kind === 'publish') {
      const control = new Control(task.control);
      const onBlock = task.restMs > 0 ? restNowAndThen(control, task.restMs) : (): void => undefined;
      const onVerified = (): void => void Atomics.store(control.words, L.CONTROL_CHECKPOINT_VERIFIED, task.checkpoint);
      return published(publishCheckpoint(files, checksum, task.directory, reviveManifest(task.manifest), onBlock, onVerified));
    }
    if (task.kind === 'sweep') removeCheckpoints(files, task.directory, (other) => other !== task.checkpoint);
    else if (task.kind === 'prepare') prepareTarget(files, task.directory);
    else if (task.kind === 'discard') discardCopy(files, task.directory);
    else complete(files, checksum, task);
    return {};
  } catch (error) {
    return { error: toErrorData(error) };
  }
}

/**
 * Leaves the processor to whoever wants it. Niceness alone is not enough: the kernel lets whoever runs have its slice of some ms to the end,
 * and a thread that is woken meanwhile waits for that.
 */
function rest(ms: number): void {
  Atomics.wait(NOBODY, 0, 0, ms);
}

/** Rests where the last rest is a stretch of work ago, unless the store closes and waits for this. */
function restNowAndThen({ words }: Control, restMs: number): () => void {
  let restedMs = performance.now();
  return () => {
    if (performance.now() - restedMs < STRETCH_MS || Atomics.load(words, L.CONTROL_CHECKPOINT_ABORT) !== 0) return;
    rest(restMs);
    restedMs = performance.now();
  };
}

function complete(files: FileSystem, checksum: Checksum, { source, directory, manifest }: CompleteTask): void {
  const from = { ...source, storeId: Buffer.from(source.storeId) };
  completeCopy(files, checksum, from, directory, reviveManifest(manifest), source.segmentBytes);
}

function published({ retired, leftover }: Publication): CheckpointDone {
  return leftover === undefined ? { retired } : { retired, leftover: toErrorData(leftover) };
}

/** Structured clone makes a Buffer a Uint8Array. */
function reviveManifest(manifest: Manifest): Manifest {
  return { ...manifest, storeId: Buffer.from(manifest.storeId), structures: manifest.structures.map((text) => Buffer.from(text)) };
}

function writePart(files: FileSystem, checksum: Checksum, storeId: Buffer, task: WritePartTask): PartSummary {
  const control = new Control(task.control);
  const { words } = control;
  const slot = takeSlot(control, systemThreadId());
  try {
    const scratch = new Scratch(words[L.CONTROL_HASH_SEED]);
    const codec = new ValueCodec(scratch, new Dictionary(control, slot + 1, undefined));
    const identity = { storeId, checkpoint: task.checkpoint, part: task.part };
    const writer = new PartWriter(files, checksum, task.directory, identity, task.restMs > 0 ? SYNC_OFTEN_BYTES : undefined);
    try {
      let told = 0;
      const onStretch = (): void => {
        Atomics.add(words, L.CONTROL_CHECKPOINT_ENTRIES, writer.entries - told);
        told = writer.entries;
        if (Atomics.load(words, L.CONTROL_CHECKPOINT_ABORT) !== 0)
          throw new FlashVectorError('FV_ABORTED', 'the checkpoint was stopped because the store closes');
        if (task.restMs > 0) rest(task.restMs);
      };
      const context = { scratch, codec, clock: new Clock(task.control), slot, index: undefined };
      for (let i = task.part; i < task.shards.length; i += task.parts) {
        const shard = new Shard(new Region(task.shards[i], words), i, context);
        writer.add(new Capture(shard, slot), onStretch);
        // Small shards come to no stretch by themselves.
        onStretch();
      }
      return writer.finish();
    } catch (error) {
      writer.abandon();
      throw error;
    }
  } finally {
    freeSlot(control, slot);
  }
}
