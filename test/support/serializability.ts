/**
 * A serializability check over a recorded history of list-append transactions: every transaction reads whole lists and appends
 * values of its own, so what it read says which writes came before. From that follow edges between transactions (who
 * appended next, who read whose value, who overwrote what somebody had read, who ended before the other began), and a history is strictly
 * serializable exactly where they make no cycle.
 *
 * Source: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 14(3), 2020.
 */

export interface RecordedTransaction {
  /** Lists as they were read, before the transaction's own appends. */
  reads: { key: number; values: number[] }[];
  appends: { key: number; value: number }[];
  /** Times on one clock for all threads, in ms. */
  start: number;
  end: number;
}

/** @param final every list as it is in the end @returns what is wrong, or `undefined` */
export function findAnomaly(history: readonly RecordedTransaction[], final: ReadonlyMap<number, number[]>): string | undefined {
  const writerOf = new Map<number, number>();
  for (let i = 0; i < history.length; i++) {
    for (const { key, value } of history[i].appends) {
      writerOf.set(value, i);
      if (final.get(key)?.includes(value) !== true) return `the append of ${value} to list ${key} was lost`;
    }
  }
  const edges: number[][] = Array.from({ length: history.length }, () => []);
  const addEdge = (from: number | undefined, to: number | undefined): void => {
    if (from !== undefined && to !== undefined && from !== to) edges[from].push(to);
  };
  for (const [key, values] of final) {
    if (new Set(values).size !== values.length) return `list ${key} holds a value twice`;
    for (const value of values) if (!writerOf.has(value)) return `list ${key} holds ${value}, which nobody has appended`;
    for (let i = 1; i < values.length; i++) addEdge(writerOf.get(values[i - 1]), writerOf.get(values[i]));
  }
  for (let i = 0; i < history.length; i++) {
    for (const { key, values } of history[i].reads) {
      const order = final.get(key) ?? [];
      for (let n = 0; n < values.length; n++) if (values[n] !== order[n]) return `a read of list ${key} is not how the list began`;
      addEdge(writerOf.get(values[values.length - 1]), i);
      addEdge(i, writerOf.get(order[values.length]));
    }
  }
  addTimeEdges(history, edges);
  const cycle = findCycle(edges);
  return cycle === undefined ? undefined : `a cycle of ${cycle.filter((node) => node < history.length).length} transactions`;
}

/** A chain of moments: a transaction leads to the moment of its end, and a moment to the transactions that begin after it. */
function addTimeEdges(history: readonly RecordedTransaction[], edges: number[][]): void {
  const moments = [
    ...history.map(({ end }, i) => ({ time: end, end: i, start: -1 })),
    ...history.map(({ start }, i) => ({ time: start, end: -1, start: i })),
  ].sort((a, b) => a.time - b.time || b.start - a.start);
  let last = -1;
  for (const { end, start } of moments) {
    if (start !== -1) {
      if (last !== -1) edges[last].push(start);
      continue;
    }
    const node = edges.push([]) - 1;
    if (last !== -1) edges[last].push(node);
    edges[end].push(node);
    last = node;
  }
}

/** A strongly connected component of more than one node, by Tarjan's algorithm with a stack of its own. */
function findCycle(edges: readonly (readonly number[])[]): number[] | undefined {
  const index = new Int32Array(edges.length).fill(-1);
  const low = new Int32Array(edges.length);
  const onStack = new Uint8Array(edges.length);
  const stack: number[] = [];
  let next = 0;
  for (let root = 0; root < edges.length; root++) {
    if (index[root] !== -1) continue;
    const work: { node: number; edge: number }[] = [{ node: root, edge: 0 }];
    index[root] = low[root] = next++;
    stack.push(root);
    onStack[root] = 1;
    while (work.length > 0) {
      const top = work[work.length - 1];
      const { node } = top;
      if (top.edge < edges[node].length) {
        const to = edges[node][top.edge++];
        if (index[to] === -1) {
          index[to] = low[to] = next++;
          stack.push(to);
          onStack[to] = 1;
          work.push({ node: to, edge: 0 });
        } else if (onStack[to] === 1) {
          low[node] = Math.min(low[node], index[to]);
        }
        continue;
      }
      work.pop();
      const parent = work[work.length - 1];
      if (parent !== undefined) low[parent.node] = Math.min(low[parent.node], low[node]);
      if (low[node] !== index[node]) continue;
      const component: number[] = [];
      for (let popped = -1; popped !== node;) {
        popped = stack.pop() as number;
        onStack[popped] = 0;
        component.push(popped);
      }
      if (component.length > 1) return component;
    }
  }
  return undefined;
}
