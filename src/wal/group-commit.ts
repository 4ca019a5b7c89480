/**
 * Group commit: the loop of the log thread.
 *
 * Takes whatever records have been published, writes them as one frame, syncs if one of them asked
 * for it, and says how far it got. While the disk works on one group the next one gathers, so groups
 * grow with the load. While nobody listens for acknowledgements it rests after each sync, and, where that goes on and much is written, after each write, so that groups grow further: nobody misses those between. Records that nobody waits for (durability `memory`) are left to gather; and where a commit delay is set, whoever waited for a group
 * of several is given that time to write again, so that one group follows the other instead of two halves.
 *
 * After the first failed write or sync nothing more is acknowledged and nothing more is written: the
 * loop reports the failure and ends. A failed sync is never tried again, because the kernel may
 * have dropped the pages that it could not write.
 */

import { FlashVectorError } from '../base/errors.js';
import type { SegmentWriter } from './segment-writer.js';

/** A run of records to be written as one frame. */
export interface RecordRun {
  bytes: Uint8Array;
  records: number;
  firstLsn: number;
  lastLsn: number;
  wantsSync: boolean;
  /** Somebody waits for one of them to be written. */
  wantsAck: boolean;
  /** More records are there to be taken at once: they belong to the same group. */
  more: boolean;
}

/** Where records come from and progress goes to; implemented over the ring. */
export interface RecordSource {
  take(bytesMax: number): RecordRun | undefined;
  /** What was taken is written. */
  release(): void;
  /** Sleeps for a moment so that records gather. Called when nobody waits. */
  gather(): void;
  /** Sleeps for a moment after a group of several was acknowledged, so that their writers can write again. */
  linger(ms: number): void;
  /** Sleeps until somebody listens for acknowledgements again, at most `ms`. Called after a group that somebody waits for, when nobody listened to its telling. */
  rest(ms: number): void;
  /** Sleeps until there is work or `timeoutMs` have passed. */
  wait(timeoutMs: number): void;
  /** Whether the loop is to end once everything is written. */
  readonly stopping: boolean;
  /** Whether everything that was reserved has been taken. */
  readonly drained: boolean;
  /** The loop goes round: says that it is alive. */
  beat(): void;
  /** Whether a new segment is asked for; `rotated` answers. */
  readonly rotationWanted: boolean;
  rotated(): void;
  /** Takes a pending request to sync what is written. */
  takeSyncRequest(): boolean;
  /** Says how far the log has got. @returns whether anybody listened */
  progress(writtenLsn: number, durableLsn: number): boolean;
}

export interface CommitObserver {
  frame(records: number, bytes: number): void;
  /** A sync took so many ns. */
  sync(ns: number): void;
  segments(made: number): void;
}

export interface CommitSettings {
  /** Longest time that written records stay unsynced. */
  syncIntervalMs: number;
  /** Pause after a group of several that somebody waited for. 0: none. */
  commitDelayMs: number;
  /** Largest frame, in bytes, but for a single record that is larger. */
  frameBytesMax: number;
  /**
   * Bytes written after which they are synced, although more is there to be taken, and although nobody wants it: a sync of all that a fast writer writes in
   * `syncIntervalMs` takes so long that the ring is full meanwhile.
   */
  groupBytesMax: number;
  /** Bytes of a group from which on the rest before the next one is shorter: what gathers has to find room. */
  restBytesMax: number;
  /** LSN of the last record in the log at the start. */
  lastLsn: number;
}

const IDLE_MS = 1000;
/** Records of a group from which on its writers are waited for: one at a time is never kept waiting. */
const LINGER_RECORDS = 8;
/** Longest and shortest rest while nobody listens. After 2 ms who waits at the end of a burst waits for more: a tenth of the rate of bursts of 500 KB. */
const REST_MS_MAX = 0.5;
const REST_MS_MIN = 0.125;
/**
 * Nobody has listened for so long: who writes has much to write. Only then does the log rest after a mere write, which takes 10 µs: who writes a few records is back
 * before a rest would be over, and would have to end it.
 */
const UNHEARD_MS = 1;
/**
 * And so many records have been written meanwhile. Where they are fewer a rest gathers one or two, and who waits at the end of a short burst has to end it first: with 50 writes among
 * 1,000 reads, then a wait for the last, and so on, such a wait took half as long again.
 */
const UNHEARD_RECORDS = 100;
/**
 * Longest that a record may stay reserved and not published. Its thread is dead then, and nobody saw it
 * die: nothing behind the record can be logged.
 */
const HOLE_MS = 10_000;
const HOLE_CHECK_MS = 100;

/** Runs until told to stop. @throws FlashVectorError FV_IO when the log can no longer be written */
export function runGroupCommit(
  source: RecordSource,
  writer: SegmentWriter,
  observer: CommitObserver,
  settings: CommitSettings,
  now: () => number,
): void {
  let writtenLsn = settings.lastLsn;
  let durableLsn = settings.lastLsn;
  let unsyncedSince = 0;
  /** A record written since the last sync waits for one. */
  let syncWanted = false;
  let bytesUnsynced = 0;
  /** What is written has been told to those who wait. */
  let announced = true;
  let groupRecords = 0;
  let groupBytes = 0;
  /** Whether the last progress was listened to. */
  let heard = true;
  /** When somebody last heard of progress, or there last was nothing to tell. */
  let heardMs = now();
  /** Records that have been written since. */
  let unheardRecords = 0;
  let restMs = REST_MS_MAX;
  /** Since when a reserved record has kept the loop from going on; 0: none does. */
  let holeSince = 0;

  const noteHeard = (): void => {
    heardMs = now();
    unheardRecords = 0;
  };

  const tell = (): void => {
    heard = source.progress(writtenLsn, durableLsn);
    if (heard) noteHeard();
  };

  const sync = (): void => {
    const started = now();
    writer.sync();
    observer.sync((now() - started) * 1e6);
    durableLsn = writtenLsn;
    syncWanted = false;
    bytesUnsynced = 0;
    tell();
  };

  for (;;) {
    if (source.rotationWanted) {
      const made = writer.segmentsMade;
      writer.rotate(writtenLsn + 1);
      if (writer.segmentsMade !== made) {
        // What was written has been synced on the way.
        observer.segments(writer.segmentsMade - made);
        durableLsn = writtenLsn;
        syncWanted = false;
        bytesUnsynced = 0;
        tell();
      }
      source.rotated();
    }
    const run = source.take(settings.frameBytesMax);
    source.beat();
    if (run !== undefined) {
      holeSince = 0;
      if (writtenLsn === durableLsn) unsyncedSince = now();
      const made = writer.segmentsMade;
      const bytes = writer.writeFrame(run.bytes, run.records, run.firstLsn, run.lastLsn, durableLsn);
      if (writer.segmentsMade !== made) {
        // The segment before was synced on the way.
        durableLsn = writtenLsn;
        observer.segments(writer.segmentsMade - made);
      }
      observer.frame(run.records, bytes);
      writtenLsn = run.lastLsn;
      syncWanted ||= run.wantsSync;
      bytesUnsynced += bytes;
      groupRecords += run.records;
      unheardRecords += run.records;
      groupBytes += bytes;
      const groupGoesOn = run.more && bytesUnsynced < settings.groupBytesMax;
      source.release();
      announced = !groupGoesOn;
      if (groupGoesOn) continue;
      const isWaitedFor = syncWanted;
      const isSyncDue = bytesUnsynced >= settings.groupBytesMax || now() - unsyncedSince >= settings.syncIntervalMs;
      if (source.takeSyncRequest() || syncWanted || isSyncDue) sync();
      else tell();
      if (groupBytes > settings.restBytesMax) restMs = Math.max(REST_MS_MIN, restMs / 2);
      else if (groupBytes * 4 < settings.restBytesMax) restMs = Math.min(REST_MS_MAX, restMs * 2);
      if (!run.wantsAck && !run.more) source.gather();
      else if (!heard && !run.more && (isWaitedFor || (unheardRecords >= UNHEARD_RECORDS && now() - heardMs > UNHEARD_MS)))
        source.rest(restMs);
      else if (isWaitedFor && settings.commitDelayMs > 0 && groupRecords >= LINGER_RECORDS) source.linger(settings.commitDelayMs);
      groupRecords = 0;
      groupBytes = 0;
      continue;
    }
    if (!announced) {
      announced = true;
      groupRecords = 0;
      groupBytes = 0;
      if (syncWanted || source.takeSyncRequest()) sync();
      else tell();
      continue;
    }
    if (source.takeSyncRequest()) {
      if (writtenLsn !== durableLsn) sync();
      else tell();
      continue;
    }
    if (source.stopping && source.drained) {
      if (writtenLsn !== durableLsn) sync();
      writer.writeCleanEnd(writtenLsn);
      return;
    }
    let timeout = IDLE_MS;
    if (source.drained) {
      holeSince = 0;
    } else {
      timeout = HOLE_CHECK_MS;
      if (holeSince === 0) holeSince = now();
      else if (now() - holeSince > HOLE_MS) {
        throw new FlashVectorError('FV_IO', `record ${writtenLsn + 1} was begun and not finished for ${HOLE_MS} ms: its thread has ended`);
      }
    }
    if (writtenLsn !== durableLsn) {
      const untilSync = settings.syncIntervalMs - (now() - unsyncedSince);
      timeout = Math.min(timeout, untilSync);
      if (untilSync <= 0) {
        sync();
        continue;
      }
    }
    const idleSince = now();
    source.wait(timeout);
    // Nobody has been told anything because there was nothing to tell.
    if (now() - idleSince > UNHEARD_MS) noteHeard();
  }
}
