/** Pool tasks that build the ordered index after recovery: sorting the keys of some shards, writing the leaves of a range of all keys, and the tree above them. */

import { FlashVectorError, toErrorData, type ErrorData } from '../src/base/errors.js';
import { Clock } from '../src/memory/clock.js';
import { Control } from '../src/memory/control.js';
import { CONTROL_HASH_SEED } from '../src/memory/layout.js';
import { Region } from '../src/memory/region.js';
import { buildLeaves, buildTree, type Leaves } from '../src/table/index-build.js';
import { rangeOfAll, type KeyRange } from '../src/table/index-merge.js';
import { sortRun, type SortedRun } from '../src/table/index-sort.js';
import { Scratch } from '../src/table/scratch.js';
import { Shard } from '../src/table/shard.js';
import { Dictionary } from '../src/table/structures.js';
import { ValueCodec } from '../src/table/value-codec.js';

interface Common {
  control: SharedArrayBuffer;
  shards: SharedArrayBuffer[];
}

/** Sorts the keys of every `count`-th shard, beginning with shard `index`. */
export interface SortTask extends Common {
  kind: 'sort';
  index: number;
  count: number;
  /** Bytes that all keys are thought to share. */
  shared: number;
}

/** Writes the leaves of a range. */
export interface LeavesTask extends Common {
  kind: 'leaves';
  region: SharedArrayBuffer;
  runs: SortedRun[];
  range: KeyRange;
  /** Which of the tasks that run at once it is. */
  index: number;
}

/** Writes the tree above all leaves. */
export interface TreeTask extends Common {
  kind: 'tree';
  region: SharedArrayBuffer;
  leaves: Leaves[];
}

/** All of it in one. */
export interface BuildTask extends Common {
  kind: 'build';
  region: SharedArrayBuffer;
  runs: SortedRun[];
}

export type IndexTask = SortTask | LeavesTask | TreeTask | BuildTask;
export interface IndexDone {
  run?: SortedRun;
  shared?: number;
  leaves?: Leaves;
  error?: undefined;
}
export type IndexResult = IndexDone | { error: ErrorData };

export default function index(task: IndexTask): IndexResult {
  try {
    const control = new Control(task.control);
    const scratch = new Scratch(control.words[CONTROL_HASH_SEED]);
    const codec = new ValueCodec(scratch, new Dictionary(control, 0, undefined));
    const context = { scratch, codec, clock: new Clock(task.control), slot: 0, index: undefined };
    const shards = task.shards.map((buffer, i) => new Shard(new Region(buffer, control.words), i, context));
    if (task.kind === 'sort') {
      const own = shards.filter((_, i) => i % task.count === task.index);
      const run = sortRun(shards, own, task.shared);
      return typeof run === 'number' ? { shared: run } : { run };
    }
    const region = new Region(task.region, control.words, true, true);
    if (task.kind === 'tree') return ended(buildTree(region, shards, task.leaves));
    if (task.kind === 'leaves') return { leaves: made(buildLeaves(region, shards, task.runs, task.range, task.index + 1)) };
    const leaves = made(buildLeaves(region, shards, task.runs, rangeOfAll(task.runs), 1));
    return ended(buildTree(region, shards, [leaves]));
  } catch (error) {
    return { error: toErrorData(error) };
  }
}

function made(leaves: Leaves | undefined): Leaves {
  if (leaves === undefined) throw memoryFull();
  return leaves;
}

function ended(isBuilt: boolean): IndexDone {
  if (!isBuilt) throw memoryFull();
  return {};
}

function memoryFull(): FlashVectorError {
  return new FlashVectorError('FV_MEMORY_FULL', 'there is no memory for the ordered index');
}
