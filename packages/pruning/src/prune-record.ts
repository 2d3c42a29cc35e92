import { CheckpointError } from '@tinyfusion/core';

/** Key of the record in a checkpoint's metadata. */
export const PRUNE_RECORD_KEY = 'tinyfusion.prune';

/** How a shallow model came about; travels inside every checkpoint of one. Has no date: the same cut is the same file. */
export interface PruneRecord {
  version: 1;
  /** Field that holds the blocks, e.g. `'blocks'`; where layers are counted over several, their names in order: `'encoder_blocks,decoder_blocks'`. */
  stack: string;
  /** Blocks of the teacher that were kept, ascending. */
  kept: number[];
  /** Depth of the teacher. */
  depth: number;
  /** How the layers were chosen: `'learned'`, `'block influence'`, `'oracle'`, `'random'`, `'index'`. */
  criterion: string;
  /** The model it was cut from. */
  teacher: { name: string; sha256: string };
  /** N:M groups, where the choice was made in groups. */
  groups?: [number, number][];
  /** Confidence of each group's choice. */
  confidence?: number[];
  /** Which block of the teacher each block of the student follows in distillation, ascending. Default: the kept one it was. */
  layerMap?: [student: number, teacher: number][];
  /** Branches dropped inside of kept blocks, by the teacher's indices, ascending. */
  branches?: { attention?: number[]; mlp?: number[] };
  /** Removed runs with a linear map in their place, by the teacher's indices: from, up to but not including. */
  replaced?: [start: number, end: number][];
  /** Of the choice: of the learning, where it was learned. */
  seed?: number;
  /** What cut the model. */
  command?: string;
  /** What learned the choice, where that was a command of its own. */
  learnedBy?: string;
  /** The record of the teacher, where that was a shallow model itself. */
  from?: PruneRecord;
}

/** The record in a checkpoint's metadata, or nothing where there is none. @throws CheckpointError where it is damaged */
export function readPruneRecord(metadata: ReadonlyMap<string, string>): PruneRecord | undefined {
  const text = metadata.get(PRUNE_RECORD_KEY);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(`the checkpoint's prune record is no JSON`, { cause });
  }
  return checkRecord(value);
}

/** The metadata entry that carries a record. */
export function pruneMetadata(record: PruneRecord): [string, string] {
  return [PRUNE_RECORD_KEY, JSON.stringify(checkRecord(record))];
}

/** Deepest chain of teachers that is read. */
const MOST_GENERATIONS = 64;

function checkRecord(value: unknown, generation = 0): PruneRecord {
  const r = value as Partial<PruneRecord> | null;
  const fail = (what: string): never => {
    throw new CheckpointError(`the checkpoint's prune record is damaged: ${what}`);
  };
  if (typeof r !== 'object' || r === null) return fail('it is no object');
  if (r.version !== 1) fail(`version ${String(r.version)}, expected 1; a newer tinyfusion may have written it`);
  if (typeof r.stack !== 'string' || typeof r.criterion !== 'string') fail('stack and criterion must be text');
  if (!Number.isInteger(r.depth) || r.depth! < 1) fail(`depth ${String(r.depth)}`);
  const depth = r.depth!;
  if (!isAscending(r.kept, depth) || r.kept.length === 0) fail('kept must be ascending block indices below the depth');
  const kept = r.kept!;
  if (typeof r.teacher?.name !== 'string' || !/^[0-9a-f]{64}$/.test(String(r.teacher.sha256))) fail('teacher must have a name and a SHA-256');
  if (r.groups !== undefined && (!isPairs(r.groups) || !r.groups.every(([n, m]) => n <= m))) fail('groups must be pairs [N, M] with N ≤ M');
  if (r.confidence !== undefined && !(Array.isArray(r.confidence) && r.confidence.every((c) => typeof c === 'number'))) fail('confidence must be numbers');
  if (r.layerMap !== undefined && !(isPairs(r.layerMap) && isAscending(r.layerMap.map(([s]) => s), kept.length + (isPairs(r.replaced) ? r.replaced.length : 0)) && r.layerMap.every(([, t]) => t < depth))) fail(`layerMap must be pairs of a student's block, ascending below ${kept.length}, and a teacher's below ${depth}`);
  for (const branch of ['attention', 'mlp'] as const) {
    const dropped: unknown = r.branches?.[branch];
    if (dropped !== undefined && !(isAscending(dropped, depth) && dropped.every((i) => kept.includes(i)))) fail(`branches.${branch} must be ascending indices of kept blocks`);
  }
  if (r.replaced !== undefined && !(isPairs(r.replaced) && r.replaced.every(([start, end]) => start < end && end <= depth && !kept.some((k) => k >= start && k < end)))) fail('replaced must be pairs [start, end] of runs without kept blocks');
  if (r.seed !== undefined && !Number.isSafeInteger(r.seed)) fail(`seed ${String(r.seed)}`);
  for (const text of ['command', 'learnedBy'] as const) if (r[text] !== undefined && typeof r[text] !== 'string') fail(`${text} must be text`);
  if (r.from !== undefined) {
    if (generation >= MOST_GENERATIONS) fail(`more than ${MOST_GENERATIONS} teachers of teachers`);
    checkRecord(r.from, generation + 1);
  }
  return r as PruneRecord;
}

function isAscending(value: unknown, below: number): value is number[] {
  return Array.isArray(value) && value.every((v, i) => Number.isInteger(v) && v >= 0 && v < below && (i === 0 || v > value[i - 1]));
}

function isPairs(value: unknown): value is [number, number][] {
  return Array.isArray(value) && value.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every((v) => Number.isInteger(v) && v >= 0));
}
