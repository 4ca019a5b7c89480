/**
 * Memory that a store takes beyond its keys and values: one million entries, 16-byte keys, 100-byte strings. All shared
 * memory counts, also what is there whatever the number of entries, and what has been taken but is not used yet.
 */

import { fillFlashVector, openFlashVector, removeStores } from './support/engines.js';
import { shuffledNumbers, stringOf } from './support/data-set.js';
import { section, type Context, type Section, type Workload } from './support/workload.js';

const ENTRIES = 1_000_000;
const KEY_BYTES = 16;
const VALUE_BYTES = 100;
const TARGET_BYTES = 48;
const TARGET_BYTES_ORDERED = 60;

function keyOf(number: number): string {
  return `user:${String(number).padStart(KEY_BYTES - 5, '0')}`;
}

export const workload: Workload = {
  title: 'Memory for an entry',
  async run(context) {
    return [await measure(context, true), await measure(context, false)];
  },
};

async function measure(context: Context, ordered: boolean): Promise<Section> {
  const numbers = [...shuffledNumbers(ENTRIES)];
  const db = await openFlashVector(context.folder, { ordered });
  await fillFlashVector(db, { keys: numbers.map(keyOf), values: numbers.map(stringOf) });
  const { memory, index, keyBytes, valueBytes, entries, shards } = db.stats();
  await db.close();
  removeStores(context.folder);
  if (entries !== ENTRIES) throw new Error(`the store holds ${entries} entries of ${ENTRIES}`);
  const data = ENTRIES * (KEY_BYTES + VALUE_BYTES);
  const each = (bytes: number): string => `${(bytes / ENTRIES).toFixed(2)} bytes an entry`;
  const reached = (memory.totalBytes - data) / ENTRIES;
  const segmentBytes = shards.reduce((sum, shard) => sum + shard.segments * 4088, 0);
  const out = section(
    `overhead, ${ENTRIES.toLocaleString('en-US')} entries, ${KEY_BYTES}-byte keys, ${VALUE_BYTES}-byte strings, ${ordered ? 'with' : 'without'} the ordered index`,
    'entries',
  );
  out.rows.push(
    { task: 'overhead', detail: `${each(memory.totalBytes - data)}, of:` },
    { task: '  shards, in use', detail: `${each(memory.usedBytes - data)} (hash tables ${each(segmentBytes)})` },
    { task: '  shards, free', detail: each(memory.freeBytes) },
    { task: '  shards, the rest', detail: each(memory.shardBytes - memory.usedBytes - memory.freeBytes) },
    { task: '  index', detail: each(index.memoryBytes) },
    { task: '  ring', detail: each(memory.ringBytes) },
    { task: '  control', detail: each(memory.controlBytes) },
    { task: '  staging', detail: each(memory.stagingBytes) },
  );
  out.notes.push(`in all ${each(memory.totalBytes)}; stats() counts keys of ${each(keyBytes)} and values of ${each(valueBytes)}`);
  const target = ordered ? TARGET_BYTES_ORDERED : TARGET_BYTES;
  out.targets.push({ work: ordered ? 'overhead with the index' : 'overhead', unit: 'bytes an entry', target, reached, bound: 'at most' });
  return out;
}
