import type { PruneRecord } from './prune-record.js';

/** The block of the teacher that each block of the student follows: the record's map, or the kept block that it was. */
export function layerMapOf(record: PruneRecord): [student: number, teacher: number][] {
  return record.layerMap ?? record.kept.map((teacher, student) => [student, teacher]);
}

/** A record as one paragraph for people. */
export function describeRecord(record: PruneRecord): string {
  const { stack, kept, depth, criterion, teacher, groups, confidence, layerMap, branches, replaced, seed, command, learnedBy, from } = record;
  const parts = [`${kept.length} of ${depth} blocks${stack === 'blocks' ? '' : ` of ${stack}`} (${ranges(kept)}), cut from ${teacher.name} (${teacher.sha256.slice(0, 12)}…), ${criterion === 'learned' ? 'learned' : `chosen by ${criterion}`}${groups === undefined ? '' : ` in groups of ${groupNames(groups)}`}`];
  if (confidence !== undefined && confidence.length > 0) parts.push(`the choice was ${percent(Math.min(...confidence))} sure in its least sure group, ${percent(confidence.reduce((a, b) => a + b, 0) / confidence.length)} in the mean`);
  if (layerMap !== undefined) parts.push(`in distillation its blocks follow the teacher's as ${layerMap.map(([s, t]) => `${s}→${t}`).join(' ')}`);
  if ((branches?.attention?.length ?? 0) > 0) parts.push(`attention is left out of ${ranges(branches!.attention!)}`);
  if ((branches?.mlp?.length ?? 0) > 0) parts.push(`the MLP is left out of ${ranges(branches!.mlp!)}`);
  if (replaced !== undefined && replaced.length > 0) parts.push(`linear maps stand for ${replaced.map(([start, end]) => ranges(Array.from({ length: end - start }, (_, i) => start + i))).join(' and ')}`);
  if (seed !== undefined) parts.push(`seed ${seed}`);
  if (learnedBy !== undefined) parts.push(`learned by: ${learnedBy}`);
  if (command !== undefined) parts.push(`made by: ${command}`);
  const own = `${parts.join('; ')}.`;
  return from === undefined ? own : `${own} The teacher was itself cut: ${describeRecord(from)}`;
}

/** `0–3, 5, 7`. */
function ranges(indices: readonly number[]): string {
  const out: string[] = [];
  for (let i = 0; i < indices.length; i++) {
    const start = indices[i]!;
    while (indices[i + 1] === indices[i]! + 1) i++;
    const end = indices[i]!;
    out.push(start === end ? `${start}` : end === start + 1 ? `${start}, ${end}` : `${start}–${end}`);
  }
  return out.join(', ');
}

/** `2:4`, or `6 × 3:4 and 2:4`. */
function groupNames(groups: readonly (readonly [number, number])[]): string {
  const counts = new Map<string, number>();
  for (const [n, m] of groups) counts.set(`${n}:${m}`, (counts.get(`${n}:${m}`) ?? 0) + 1);
  if (counts.size === 1) return [...counts.keys()][0]!;
  return Array.from(counts, ([name, count]) => (count === 1 ? name : `${count} × ${name}`)).join(' and ');
}

const percent = (value: number): string => `${Math.round(value * 100)} %`;
