import type { Collective } from './collective.js';

/**
 * Every rank's values, by rank, on every rank; lengths may differ. It takes the traffic of a sum of all of them.
 * @returns arrays that are the caller's
 */
export async function allGather(collective: Collective, values: Float32Array): Promise<Float32Array<ArrayBuffer>[]> {
  const { rank, size } = collective;
  if (size === 1) return [values.slice()];
  const lengths = new Float64Array(size);
  lengths[rank] = values.length;
  await collective.allReduce(lengths, 'sum');
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  const all = new Float32Array(starts.at(-1)!);
  all.set(values, starts[rank]!);
  await collective.allReduce(all, 'sum'); // the others' places are 0 here
  return Array.from({ length: size }, (_, r) => all.slice(starts[r], starts[r + 1]));
}
