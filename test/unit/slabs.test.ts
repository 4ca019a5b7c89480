/** The allocator against a model: blocks never overlap, what is given back is used again, all of it comes back. */

import t from 'tap';
import { createControl } from '../../src/memory/control.js';
import { CONTROL_MEMORY_UNITS } from '../../src/memory/layout.js';
import {
  CHUNK_BYTES,
  REGION_FREE_CHUNKS,
  REGION_KEPT_SLABS,
  REGION_TOP,
  REGION_USED_UNITS,
  Region,
  createRegionBuffer,
} from '../../src/memory/region.js';
import {
  CLASSED_BYTES_MAX,
  CLASS_BYTES,
  CLASS_COUNT,
  CLASS_LARGE,
  allocate,
  blockBytes,
  classAt,
  classOf,
  free,
} from '../../src/memory/slabs.js';
import { randomFrom, testSeed } from '../support/random.js';

function newRegion(maxMemoryBytes = Number.MAX_SAFE_INTEGER): Region {
  const control = createControl({ shards: 1, hashSeed: 1, durability: 0, maxMemoryBytes, indexed: false });
  control.words[CONTROL_MEMORY_UNITS] = 1;
  return new Region(createRegionBuffer(2 ** 30), control.words);
}

void t.test('a class is the smallest that holds its size', (t) => {
  for (let bytes = 1; bytes <= CLASSED_BYTES_MAX; bytes++) {
    const sizeClass = classOf(bytes);
    if (CLASS_BYTES[sizeClass] < bytes || (sizeClass > 0 && CLASS_BYTES[sizeClass - 1] >= bytes)) t.fail(`class of ${bytes}`);
  }
  for (let i = 0; i < CLASS_COUNT; i++) t.equal(CLASS_BYTES[i] % 8, 0);
  t.end();
});

void t.test('a slab that is kept though it is empty goes when another one has room, and when there is no other memory', (t) => {
  const region = newRegion(40 * CHUNK_BYTES);
  const { words } = region;
  const bytes = 5000;
  const sizeClass = classOf(bytes);
  const take = (): number => allocate(region, bytes, sizeClass);
  // Two slabs of three blocks each: one full, one empty.
  const first = [take(), take(), take()];
  const second = [take(), take(), take()];
  for (const unit of second) free(region, unit, sizeClass);
  t.equal(words[REGION_KEPT_SLABS], 1);
  const top = words[REGION_TOP];
  free(region, first[0], sizeClass);
  t.equal(words[REGION_KEPT_SLABS], 0);
  t.equal(words[REGION_TOP], top - 1, 'the second one is a chunk again');
  first[0] = take();
  for (const unit of first) free(region, unit, sizeClass);
  t.equal(words[REGION_KEPT_SLABS], 1);
  while (allocate(region, CLASSED_BYTES_MAX + 1, CLASS_LARGE) !== 0);
  t.equal(words[REGION_KEPT_SLABS], 0);
  t.end();
});

void t.test('random taking and giving', (t) => {
  const random = randomFrom(testSeed(t));
  const region = newRegion();
  interface Block {
    unit: number;
    bytes: number;
    stamp: number;
  }
  const blocks: Block[] = [];
  const fill = (block: Block): void => {
    region.words.fill(block.stamp, block.unit * 2, block.unit * 2 + (block.bytes >>> 2));
  };
  const check = (block: Block): boolean => {
    const from = block.unit * 2;
    const last = from + (block.bytes >>> 2) - 1;
    return region.words[from] === block.stamp && region.words[last] === block.stamp && region.words[(from + last) >>> 1] === block.stamp;
  };
  let stamp = 1;
  for (let step = 0; step < 60_000; step++) {
    // Tides of growing and shrinking, so that slabs and runs empty and merge.
    const growing = Math.sin(step / 4000) > 0;
    if (blocks.length === 0 || random() < (growing ? 0.65 : 0.35)) {
      const kind = random();
      const bytes =
        kind < 0.8
          ? 8 + Math.floor(random() * 600)
          : kind < 0.98
            ? 600 + Math.floor(random() * 40_000)
            : 40_000 + Math.floor(random() * 900_000);
      const unit = allocate(region, bytes, classOf(bytes));
      if (unit === 0) {
        t.fail('there is memory');
        t.end();
        return;
      }
      if (region.takenClass !== classAt(region, unit)) {
        t.fail(`class ${region.takenClass} was taken, and it is ${classAt(region, unit)}`);
        t.end();
        return;
      }
      const room = blockBytes(region, unit, classOf(bytes));
      if (room < bytes) {
        t.fail(`block of ${room} for ${bytes}`);
        t.end();
        return;
      }
      const block = { unit, bytes: room & ~3, stamp: stamp++ };
      fill(block);
      blocks.push(block);
    } else {
      const i = Math.floor(random() * blocks.length);
      const block = blocks[i];
      blocks[i] = blocks[blocks.length - 1];
      blocks.pop();
      if (!check(block)) {
        t.fail(`block ${block.unit} was overwritten at step ${step}`);
        t.end();
        return;
      }
      const sizeClass = block.bytes <= CLASSED_BYTES_MAX ? classOf(block.bytes) : 255;
      free(region, block.unit, sizeClass);
    }
  }
  t.ok(blocks.every(check), 'nothing overlaps');
  for (const block of blocks) free(region, block.unit, block.bytes <= CLASSED_BYTES_MAX ? classOf(block.bytes) : 255);
  t.equal(region.words[REGION_USED_UNITS], 0);
  // One cached slab a class may stay.
  const held = region.words[REGION_TOP] - region.words[REGION_FREE_CHUNKS];
  t.ok(held < 10 + CLASS_COUNT + 14 * 16, `${held} chunks are still held`);
  t.end();
});

void t.test('a memory cap is kept, and room under it is found again', (t) => {
  const region = newRegion(4 * 1024 * 1024);
  const units: number[] = [];
  for (let unit = allocate(region, 1000, classOf(1000)); unit !== 0; unit = allocate(region, 1000, classOf(1000))) units.push(unit);
  t.ok(units.length > 3500 && units.length * 1000 < 4 * 1024 * 1024, `${units.length} blocks`);
  t.ok(region.buffer.byteLength <= 4 * 1024 * 1024);
  // A slab of a larger class that has room when no new one can be had.
  free(region, units[0], classOf(1000));
  t.ok(classOf(900) < classOf(1000));
  t.equal(allocate(region, 900, classOf(900)), units[0], 'a block of a larger class serves');
  t.equal(region.takenClass, classOf(1000));
  t.equal(classAt(region, units[0]), classOf(1000));
  for (const unit of units) free(region, unit, classOf(1000));
  const large = allocate(region, 3 * 1024 * 1024, classOf(3 * 1024 * 1024));
  t.not(large, 0, 'freed slabs merge into one run');
  t.equal(allocate(region, 3 * 1024 * 1024, 255), 0);
  t.end();
});

void t.test('runs longer than one chunk of the map describes', (t) => {
  const region = newRegion();
  const bytes = 200 * 1024 * 1024;
  const a = allocate(region, bytes, classOf(bytes));
  const b = allocate(region, bytes, classOf(bytes));
  t.ok(a !== 0 && b >= a + bytes / 8);
  free(region, a, 255);
  const c = allocate(region, CHUNK_BYTES * 3, 255);
  t.equal(c, a, 'the freed run is used');
  free(region, b, 255);
  free(region, c, 255);
  t.ok(region.words[REGION_TOP] - region.words[REGION_FREE_CHUNKS] < 20, 'all but the map is free');
  t.end();
});
