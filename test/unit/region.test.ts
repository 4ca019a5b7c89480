/** Regions: the views of a buffer that grows. */

import t from 'tap';
import * as L from '../../src/memory/layout.js';
import { createRegionBuffer, GROWTH_BYTES, Region, REGION_LENGTH } from '../../src/memory/region.js';

void t.test('regression: views that were made while another thread grew the buffer did not reach equally far, and stayed so', async (t) => {
  const buffer = createRegionBuffer(GROWTH_BYTES * 8);
  let reads = 0;
  // As if the other thread grew it after each look at its length.
  Object.defineProperty(buffer, 'byteLength', {
    get(this: SharedArrayBuffer): number {
      const length = GROWTH_BYTES * Math.min(8, 1 + reads++);
      if (length < GROWTH_BYTES * 8) this.grow(length + GROWTH_BYTES);
      return length;
    },
  });
  const region = new Region(buffer, new Int32Array(1024));
  const reach = (): number[] => [region.words.byteLength, region.bytes.length, region.view.byteLength];
  t.same(new Set(reach()).size, 1, reach().join());
  region.words[REGION_LENGTH] = 8;
  for (let i = 0; i < 8; i++) region.sync();
  t.same(reach(), [GROWTH_BYTES * 8, GROWTH_BYTES * 8, GROWTH_BYTES * 8]);
});

void t.test('where entries may be evicted half as much again is kept for the index', async (t) => {
  const grows = (eviction: number, held: number): boolean => {
    const control = new Int32Array(1024);
    control[L.CONTROL_MEMORY_UNITS_MAX] = 1000;
    control[L.CONTROL_MEMORY_UNITS] = held;
    control[L.CONTROL_INDEXED] = 1;
    control[L.CONTROL_INDEX_UNITS] = 100;
    control[L.CONTROL_EVICTION] = eviction;
    const region = new Region(createRegionBuffer(GROWTH_BYTES * 8), control);
    const grown = region.grow(2 * GROWTH_BYTES);
    t.equal(control[L.CONTROL_MEMORY_UNITS], grown ? held + 1 : held, 'what was not grown is not held');
    return grown;
  };
  // At 950 units of 1,000 an index of 100 comes to need 6 more, with eviction 58; and 3 are its own.
  t.equal(grows(L.EVICTION_NONE, 949), true);
  t.equal(grows(L.EVICTION_LRU, 949), false);
  t.equal(grows(L.EVICTION_TTL, 949), false);
  t.equal(grows(L.EVICTION_LRU, 919), true);
});
