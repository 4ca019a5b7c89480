/** The hash table by itself: splitting, shifting back, keys whose hashes collide; and what a thread leaves that dies inside a change, put right. */

import t from 'tap';
import { createControl } from '../../src/memory/control.js';
import { Region, REGION_DIRECTORY, createRegionBuffer } from '../../src/memory/region.js';
import { allocate, classOf } from '../../src/memory/slabs.js';
import { ENTRY_HEADER_WORDS } from '../../src/table/entry.js';
import { repairHashTable } from '../../src/table/hash-repair.js';
import { ABSENT, COUNT_SHIFT, HashTable, SEGMENT_HEADER_WORDS, SEGMENT_SLOTS, createTable } from '../../src/table/hash-table.js';
import { Scratch } from '../../src/table/scratch.js';
import { randomFrom, testSeed } from '../support/random.js';

class Harness {
  readonly region: Region;
  readonly table: HashTable;
  readonly scratch = new Scratch(1);

  constructor() {
    const control = createControl({ shards: 1, hashSeed: 1, durability: 0, maxMemoryBytes: Number.MAX_SAFE_INTEGER, indexed: false });
    this.region = new Region(createRegionBuffer(2 ** 30), control.words);
    createTable(this.region);
    this.table = new HashTable(this.region);
  }

  /** Puts key `n` with hash `hash` into the scratch. */
  load(n: number, hash: number): void {
    this.scratch.keyLength = 4;
    this.scratch.words[2] = n;
    this.scratch.keyHash = hash;
  }

  insert(n: number, hash: number): void {
    this.load(n, hash);
    if (!this.table.makeRoom(hash)) throw new Error('no memory');
    const unit = allocate(this.region, 24, classOf(24));
    this.region.words[unit * 2] = 4;
    this.region.words[unit * 2 + ENTRY_HEADER_WORDS] = n;
    this.table.insert(hash, unit);
  }

  find(n: number, hash: number): boolean {
    this.load(n, hash);
    const entry = this.table.find(this.scratch);
    if (entry !== this.table.locate(this.scratch)) throw new Error('find and locate differ');
    return entry !== ABSENT && this.region.words[entry + ENTRY_HEADER_WORDS] === n;
  }

  remove(n: number, hash: number): void {
    this.load(n, hash);
    if (this.table.locate(this.scratch) === ABSENT) throw new Error(`${n} is absent`);
    this.table.removeLocated();
  }
}

function exercise(t: Tap.Test, hashOf: (n: number) => number, count: number): void {
  const harness = new Harness();
  const random = randomFrom(testSeed(t));
  const present = new Set<number>();
  for (let step = 0; step < count * 3; step++) {
    const n = Math.floor(random() * count);
    if (present.has(n) && (step > count || random() < 0.2)) {
      harness.remove(n, hashOf(n));
      present.delete(n);
    } else if (!present.has(n)) {
      harness.insert(n, hashOf(n));
      present.add(n);
    }
  }
  for (let n = 0; n < count; n++) if (harness.find(n, hashOf(n)) !== present.has(n)) t.fail(`key ${n}`);
  const seen = new Set<number>();
  const units: number[] = [];
  for (let prefix = 0; prefix < 2 ** 32;) {
    const span = harness.table.collect(prefix | 0, units);
    for (const unit of units) {
      const n = harness.region.words[unit * 2 + ENTRY_HEADER_WORDS];
      if (seen.has(n)) t.fail(`${n} was met twice`);
      seen.add(n);
    }
    prefix += 2 ** span;
  }
  t.same(seen.size, present.size, 'a walk meets every entry once');
  t.end();
}

const mix = (n: number): number => Math.imul(Math.imul(n + 1, 0x85ebca6b) ^ (n << 7), 0xc2b2ae35) | 0;

void t.test('hashes that spread', (t) => exercise(t, mix, 60_000));
void t.test('hashes that agree in their top bits', (t) => exercise(t, (n) => (n & 0xfff) | 0x7ff0_0000, 3000));
void t.test('hashes that are all the same', (t) => exercise(t, () => 12345, 2000));
void t.test('hashes in two places', (t) => exercise(t, (n) => (n & 1) * -1, 2500));

void t.test('what a removal or an insertion leaves that its thread did not finish is put right', async (t) => {
  const keys = 300;
  const countOf = ({ region: { words } }: Harness): number => words[words[words[REGION_DIRECTORY] * 2] * 2] >>> COUNT_SHIFT;
  const slotsOf = ({ region: { words } }: Harness): number[] => {
    const first = words[words[REGION_DIRECTORY] * 2] * 2 + SEGMENT_HEADER_WORDS;
    return Array.from({ length: SEGMENT_SLOTS }, (_, i) => first + i * 2);
  };
  const damages: [name: string, damage: (harness: Harness) => void][] = [
    ['nothing', () => undefined],
    ['a count that is one too many', ({ region: { words } }) => void (words[words[words[REGION_DIRECTORY] * 2] * 2] += 1 << COUNT_SHIFT)],
    ['a count that is one too few', ({ region: { words } }) => void (words[words[words[REGION_DIRECTORY] * 2] * 2] -= 1 << COUNT_SHIFT)],
    [
      'a slot copied into a gap and not yet cleared',
      (harness) => {
        const { words } = harness.region;
        const slots = slotsOf(harness);
        const gap = slots.findIndex((slot, i) => i > 0 && words[slot + 1] === 0 && words[slots[i - 1] + 1] !== 0);
        words.copyWithin(slots[gap], slots[gap - 1], slots[gap - 1] + 2);
      },
    ],
    [
      'a hash that is not of its entry',
      (harness) => {
        const { words } = harness.region;
        const taken = slotsOf(harness).filter((slot) => words[slot + 1] !== 0);
        words[taken[3]] = words[taken[4]];
      },
    ],
  ];
  for (const [name, damage] of damages) {
    const harness = new Harness();
    for (let n = 0; n < keys; n++) harness.insert(n, mix(n));
    damage(harness);
    const live = new Set<number>();
    const blocks: number[] = [];
    const visited: number[] = [];
    const { words } = harness.region;
    repairHashTable(harness.region, {
      hashOf: (unit) => mix(words[unit * 2 + ENTRY_HEADER_WORDS]),
      blocks,
      live: { add: (unit) => !live.has(unit) && live.add(unit).has(unit) },
      visit: (unit) => visited.push(words[unit * 2 + ENTRY_HEADER_WORDS]),
    });
    t.same(
      visited.sort((a, b) => a - b),
      Array.from({ length: keys }, (_, n) => n),
      `${name}: every entry is met once`,
    );
    t.equal(new Set(blocks).size, blocks.length, `${name}: and every block`);
    t.equal(countOf(harness), keys, `${name}: the count is right`);
    t.ok(
      Array.from({ length: keys }, (_, n) => n).every((n) => harness.find(n, mix(n))),
      `${name}: every key is found`,
    );
    for (let n = 0; n < keys; n++) harness.remove(n, mix(n));
    t.equal(countOf(harness), 0, `${name}: and can be removed`);
    t.ok(
      slotsOf(harness).every((slot) => words[slot + 1] === 0),
      `${name}: once`,
    );
  }
});
