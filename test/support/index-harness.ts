/** Tables and ordered index without a log: for tests of the index alone. */

import { resolveOptions } from '../../src/base/options.js';
import { KEY_LENGTH_MASK, OPERATION_DELETE, OPERATION_PUT } from '../../src/base/record.js';
import { Core } from '../../src/engine/core.js';
import { createMemory } from '../../src/engine/memory.js';
import * as L from '../../src/memory/layout.js';
import { REGION_INDEX_NODES, REGION_INDEX_ROOT } from '../../src/memory/region.js';
import { claimSlot } from '../../src/memory/registry.js';
import { ENTRY_HEADER_WORDS } from '../../src/table/entry.js';
import { IndexCursor } from '../../src/table/index-cursor.js';
import * as N from '../../src/table/index-node.js';
import { encodeKey } from '../../src/table/key-codec.js';
import { fragment4, fragmentOf, sharedOf } from '../../src/table/key-fragment.js';
import { KeyProbe, compareKeys, sharedBytes } from '../../src/table/key-probe.js';
import type { OrderedIndex } from '../../src/table/ordered-index.js';
import type { Shard } from '../../src/table/shard.js';

export function emptyCore(shards: number): Core {
  const core = new Core(createMemory(resolveOptions({ shards })), L.OWNER_SLOT);
  claimSlot(core.control, L.OWNER_SLOT, 0);
  core.clock.start(Date.now());
  return core;
}

export function indexOf(core: Core): OrderedIndex {
  if (core.index === undefined) throw new Error('the store has no index');
  return core.index;
}

let lsn = 0;

/** Puts or deletes a key in table and index. */
function apply(core: Core, type: number, key: string | Uint8Array, value: unknown = null): void {
  const { scratch } = core;
  encodeKey(scratch, key);
  if (type === OPERATION_PUT) core.codec.place(value);
  else Object.assign(scratch, { valueType: 0, valueLength: 0, valueBytes: null });
  const shard = core.shards[scratch.keyHash & core.shardMask];
  const entry = shard.table.locate(scratch);
  if (!shard.prepareLocked(type, entry)) throw new Error('no memory');
  const index = indexOf(core);
  if (shard.touchesIndex) index.lockFor(shard.index);
  else index.lock();
  try {
    if (shard.touchesIndex && !shard.reserveIndexLocked(entry)) {
      shard.giveBackLocked();
      throw new Error('no memory');
    }
    shard.applyLocked(type, entry, ++lsn, 0);
  } finally {
    index.unlock();
  }
}

export const put = (core: Core, key: string | Uint8Array, value?: unknown): void => apply(core, OPERATION_PUT, key, value);
export const del = (core: Core, key: string | Uint8Array): void => apply(core, OPERATION_DELETE, key);

function keyAt(shards: readonly Shard[], shard: number, unit: number): Buffer {
  const { words, bytes } = shards[shard].region;
  const start = (unit * 2 + ENTRY_HEADER_WORDS) * 4;
  return Buffer.from(bytes.subarray(start, start + (words[unit * 2] & KEY_LENGTH_MASK)));
}

/** Keys in the order in which a cursor meets them, as hex. @param from begins there, if given */
export function walkKeys(core: Core, reverse: boolean, from?: Uint8Array, inclusive = true): string[] {
  const cursor = new IndexCursor(indexOf(core), reverse);
  let probe: KeyProbe | undefined;
  if (from !== undefined) {
    probe = KeyProbe.own();
    const padded = Buffer.alloc((from.length + 3) & ~3);
    padded.set(from);
    probe.setWords(new Int32Array(padded.buffer, padded.byteOffset, padded.length / 4), 0, from.length);
  }
  cursor.seek(probe, inclusive);
  const keys: string[] = [];
  do {
    for (let i = cursor.next; i >= 0 && i < cursor.count; i += reverse ? -1 : 1)
      keys.push(keyAt(core.shards, cursor.shardOf[i], cursor.units[i]).toString('hex'));
  } while (cursor.nextLeaf());
  return keys;
}

/** Checks the whole tree: order, fences, shared bytes, fragments, versions, counts. @returns number of keys @throws Error */
export function checkTree(core: Core): number {
  const { region } = indexOf(core);
  indexOf(core).settle();
  region.refresh();
  const { words, bytes } = region;
  const fail = (what: string): never => {
    throw new Error(`index: ${what}`);
  };
  let nodes = 0;
  let keys = 0;
  const inFences = (at: Int32Array, from: number, length: number, low: number, high: number): boolean =>
    (low === 0 || compareKeys(at, from, length, words, low + 1, words[low]) >= 0) &&
    (high === 0 || compareKeys(at, from, length, words, high + 1, words[high]) < 0);
  const visit = (node: number, level: number | undefined, low: number, high: number): void => {
    nodes++;
    if ((words[node + N.NODE_VERSION] & 1) !== 0) fail('a node of the tree has an odd version');
    if (level !== undefined && N.levelOf(words, node) !== level) fail('leaves at different depths');
    const count = N.countOf(words, node);
    const prefix = words[node + N.NODE_PREFIX];
    const shared = sharedOf(prefix);
    if (N.levelOf(words, node) !== 0) {
      for (let i = 0; i <= count; i++) {
        const below = i === 0 ? low : words[N.innerSlot(node, i - 1) + N.SLOT_SEPARATOR] * 2;
        const above = i === count ? high : words[N.innerSlot(node, i) + N.SLOT_SEPARATOR] * 2;
        if (i < count) {
          if (!inFences(words, above + 1, words[above], below, high)) fail('separators out of order');
          if (words[N.innerSlot(node, i)] >>> 0 !== fragment4(bytes, (above + 1) * 4, words[above], prefix))
            fail('a wrong fragment of a separator');
        }
        visit(words[N.childWord(node, i)] * 2, N.levelOf(words, node) - 1, below, above);
      }
      return;
    }
    keys += count;
    if (low !== 0 && high !== 0 && shared > sharedBytes(words, low + 1, words[low], words, high + 1, words[high]))
      fail('a leaf counts on too much');
    if ((low === 0 || high === 0) && shared !== 0) fail('a leaf at the edge counts on something');
    let before: Buffer | undefined;
    for (let i = 0; i < count; i++) {
      const shard = words[N.leafSlot(node, i) + 1] & N.SHARD_MASK;
      const entry = words[N.leafSlot(node, i)] * 2;
      const owner = core.shards[shard].region;
      const key = keyAt(core.shards, shard, entry >>> 1);
      if (before !== undefined && Buffer.compare(before, key) >= 0) fail('keys out of order');
      if (!inFences(owner.words, entry + ENTRY_HEADER_WORDS, key.length, low, high)) fail('a key outside of its fences');
      if (words[N.leafSlot(node, i) + 1] >>> N.FRAGMENT_SHIFT !== fragmentOf(key, 0, key.length, prefix)) fail('a wrong fragment of a key');
      before = key;
    }
  };
  visit(words[REGION_INDEX_ROOT] * 2, undefined, 0, 0);
  if (nodes !== words[REGION_INDEX_NODES]) fail(`${nodes} nodes, ${words[REGION_INDEX_NODES]} counted`);
  return keys;
}
