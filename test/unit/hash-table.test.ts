/** The hash table by itself: splitting, shifting back, keys whose hashes collide. */

import t from 'tap';
import { createControl } from '../../src/memory/control.js';
import { Region, createRegionBuffer } from '../../src/memory/region.js';
import { allocate, classOf } from '../../src/memory/slabs.js';
import { ENTRY_HEADER_WORDS } from '../../src/table/entry.js';
import { ABSENT, HashTable, createTable } from '../../src/table/hash-table.js';
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
