/**
 * A linearizability check for registers, one a key, over a recorded history (Wing and Gong's search with
 * the memory of Lowe's version): is there an order of the operations, respecting which ended before
 * which began, in which every read returns the latest write?
 *
 * Every write of the history has a value of its own, which keeps the search small.
 */

export interface RecordedOperation {
  key: number;
  /** 'r' read a value; 'w' wrote one; 'd' deleted; 'c' wrote if absent and succeeded. */
  kind: 'r' | 'w' | 'd' | 'c';
  /** Value read or written; 0 for "absent". */
  value: number;
  /** Times on one clock for all threads. */
  start: number;
  end: number;
}

/** @returns the key whose history cannot be ordered, or `undefined` */
export function findViolation(history: readonly RecordedOperation[]): number | undefined {
  const byKey = new Map<number, RecordedOperation[]>();
  for (const operation of history) {
    const list = byKey.get(operation.key);
    if (list === undefined) byKey.set(operation.key, [operation]);
    else list.push(operation);
  }
  for (const [key, operations] of byKey) if (!linearizable(operations)) return key;
  return undefined;
}

function linearizable(operations: RecordedOperation[]): boolean {
  operations.sort((a, b) => a.start - b.start);
  const done = new Uint8Array(operations.length);
  const visited = new Set<string>();
  let first = 0;

  const search = (state: number): boolean => {
    while (first < operations.length && done[first] === 1) first++;
    if (first === operations.length) return true;
    const entered = first;
    // What may come next: everything that began before the first end among what is left.
    let earliestEnd = Infinity;
    const candidates: number[] = [];
    for (let i = first; i < operations.length && operations[i].start <= earliestEnd; i++) {
      if (done[i] === 1) continue;
      candidates.push(i);
      earliestEnd = Math.min(earliestEnd, operations[i].end);
    }
    const memo = `${first}:${candidates.filter((i) => operations[i].start <= earliestEnd).join()}:${state}`;
    if (visited.has(memo)) return false;
    visited.add(memo);
    for (const i of candidates) {
      const operation = operations[i];
      if (operation.start > earliestEnd) continue;
      if (operation.kind === 'r' && operation.value !== state) continue;
      if (operation.kind === 'c' && state !== 0) continue;
      done[i] = 1;
      const after = operation.kind === 'r' ? state : operation.kind === 'd' ? 0 : operation.value;
      if (search(after)) return true;
      done[i] = 0;
      first = entered;
    }
    return false;
  };
  return search(0);
}
