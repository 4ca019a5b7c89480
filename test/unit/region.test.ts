/** Regions: the views of a buffer that grows. */

import t from 'tap';
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
