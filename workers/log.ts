/** The log task: one for each open store, for as long as it is open. */

import { FlashVectorError } from '../src/base/errors.js';
import { Control } from '../src/memory/control.js';
import * as L from '../src/memory/layout.js';
import * as M from '../src/memory/metrics.js';
import { Region } from '../src/memory/region.js';
import { claimSlot } from '../src/memory/registry.js';
import { RingReader } from '../src/memory/ring-reader.js';
import type { FileSystemSource } from '../src/platform/files.js';
import { loadFileSystem } from '../src/platform/load-files.js';
import { Checksum } from '../src/platform/checksum.js';
import { runGroupCommit, type RecordSource } from '../src/wal/group-commit.js';
import { SegmentWriter, type LogEnd } from '../src/wal/segment-writer.js';
import { systemThreadId } from '../src/platform/thread-life.js';

export interface LogTask {
  directory: string;
  files: FileSystemSource;
  storeId: Uint8Array;
  segmentBytes: number;
  syncIntervalMs: number;
  commitDelayMs: number;
  end: LogEnd;
  control: SharedArrayBuffer;
  ring: SharedArrayBuffer;
  staging: SharedArrayBuffer;
}

/** Larger groups only delay their first records: a sync costs less than writing a megabyte. */
const FRAME_BYTES_MAX = 1024 * 1024;
const GROUP_BYTES_MAX = 2 * FRAME_BYTES_MAX;

function ringSource(control: Control, reader: RingReader): RecordSource {
  const words = control.words;
  return {
    take: (bytesMax) => reader.take(bytesMax),
    release: () => reader.release(),
    gather: () => void reader.gather(),
    linger: (ms) => reader.linger(ms),
    rest: (ms) => reader.rest(ms),
    beat: () => {
      Atomics.add(words, L.CONTROL_LOG_HEARTBEAT, 1);
    },
    wait: (timeoutMs) => reader.wait(timeoutMs),
    get stopping() {
      return Atomics.load(words, L.CONTROL_LOG_STOP) !== 0;
    },
    get drained() {
      return reader.drained;
    },
    get rotationWanted() {
      return Atomics.load(words, L.CONTROL_LOG_ROTATE) !== 0;
    },
    rotated: () => {
      Atomics.store(words, L.CONTROL_LOG_ROTATE, 0);
      Atomics.notify(words, L.CONTROL_LOG_ROTATE);
    },
    takeSyncRequest: () => Atomics.exchange(words, L.CONTROL_SYNC_REQUESTED, 0) !== 0,
    progress: (writtenLsn, durableLsn) => reader.announce(writtenLsn, durableLsn),
  };
}

function enter(control: Control, state: number): void {
  Atomics.store(control.words, L.CONTROL_LOG_STATE, state);
  Atomics.notify(control.words, L.CONTROL_LOG_STATE);
  control.bump(L.CONTROL_ACK_EPOCH);
  control.bump(L.CONTROL_ROOM_EPOCH);
}

/** Prepares the log; the loop itself starts once this has returned, and ends by LOG_ENDED or LOG_FAILED. */
export default async function log(task: LogTask): Promise<void> {
  const control = new Control(task.control);
  try {
    claimSlot(control, L.LOG_SLOT, systemThreadId());
    const files = await loadFileSystem(task.files);
    const checksum = await Checksum.load();
    const metrics = new M.ThreadMetrics(control, L.LOG_SLOT);
    const reader = new RingReader(task.ring, control, new Region(task.staging, control.words, false));
    const storeId = Buffer.from(task.storeId);
    const writer = new SegmentWriter(files, checksum, { directory: task.directory, storeId, segmentBytes: task.segmentBytes }, task.end);
    metrics.add(M.COUNTER_SEGMENTS, writer.segmentsMade);
    const observer = {
      frame: (records: number, bytes: number): void => {
        metrics.add(M.COUNTER_FRAMES, 1);
        metrics.add(M.COUNTER_RECORDS, records);
        metrics.add(M.COUNTER_LOG_BYTES, bytes);
      },
      sync: (ns: number): void => {
        metrics.add(M.COUNTER_SYNCS, 1);
        metrics.record(M.HISTOGRAM_SYNC, ns);
      },
      segments: (made: number): void => metrics.add(M.COUNTER_SEGMENTS, made),
    };
    const settings = {
      syncIntervalMs: task.syncIntervalMs,
      commitDelayMs: task.commitDelayMs,
      frameBytesMax: FRAME_BYTES_MAX,
      groupBytesMax: GROUP_BYTES_MAX,
      restBytesMax: task.ring.byteLength >>> 2,
      lastLsn: task.end.lastLsn,
    };
    setImmediate(() => {
      try {
        enter(control, L.LOG_RUNNING);
        runGroupCommit(ringSource(control, reader), writer, observer, settings, () => performance.now());
        writer.close();
        enter(control, L.LOG_ENDED);
      } catch (error) {
        fail(control, error);
      }
    });
  } catch (error) {
    fail(control, error);
  }
}

/** Whatever ended the log, nothing can be acknowledged any more. */
function fail(control: Control, error: unknown): void {
  control.fail(
    error instanceof FlashVectorError ? error : new FlashVectorError('FV_IO', `the log thread failed: ${String(error)}`, { cause: error }),
  );
  enter(control, L.LOG_FAILED);
}
