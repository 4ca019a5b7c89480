/** Pool tasks that build the ordered index after recovery: sorting the keys of some shards, and writing the tree. */

import { FlashVectorError, toErrorData, type ErrorData } from '../src/base/errors.js';
import { Clock } from '../src/memory/clock.js';
import { Control } from '../src/memory/control.js';
import { CONTROL_HASH_SEED } from '../src/memory/layout.js';
import { Region } from '../src/memory/region.js';
import { buildIndex, sortRun, type SortedRun } from '../src/table/index-build.js';
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

export interface BuildTask extends Common {
  kind: 'build';
  region: SharedArrayBuffer;
  runs: SortedRun[];
}

export type IndexTask = SortTask | BuildTask;
export type IndexResult = { run?: SortedRun; shared?: number; error?: undefined } | { error: ErrorData };

export default function index(task: IndexTask): IndexResult {
  try {
    const control = new Control(task.control);
    const scratch = new Scratch(control.words[CONTROL_HASH_SEED]);
    const codec = new ValueCodec(scratch, new Dictionary(control, 0, undefined));
    const context = { scratch, codec, clock: new Clock(task.control), slot: 0, index: undefined };
    const shards = task.shards.map((buffer, i) => new Shard(new Region(buffer, control.words), i, context));
    if (task.kind === 'build') {
      if (buildIndex(new Region(task.region, control.words, true, true), shards, task.runs)) return {};
      throw new FlashVectorError('FV_MEMORY_FULL', 'there is no memory for the ordered index');
    }
    const own = shards.filter((_, i) => i % task.count === task.index);
    const run = sortRun(shards, own, task.shared);
    return typeof run === 'number' ? { shared: run } : { run };
  } catch (error) {
    return { error: toErrorData(error) };
  }
}
