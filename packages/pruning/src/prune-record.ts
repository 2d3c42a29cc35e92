import { CheckpointError } from '@tinyfusion/core';

/** Key of the record in a checkpoint's metadata. */
export const PRUNE_RECORD_KEY = 'tinyfusion.prune';

/** How a shallow model came about; travels inside every checkpoint of one. */
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
  seed?: number;
  command?: string;
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

function checkRecord(value: unknown): PruneRecord {
  const r = value as Partial<PruneRecord> | null;
  const fail = (what: string): never => {
    throw new CheckpointError(`the checkpoint's prune record is damaged: ${what}`);
  };
  if (typeof r !== 'object' || r === null) return fail('it is no object');
  if (r.version !== 1) fail(`version ${String(r.version)}, expected 1; a newer tinyfusion may have written it`);
  if (typeof r.stack !== 'string' || typeof r.criterion !== 'string') fail('stack and criterion must be text');
  if (!Number.isInteger(r.depth) || r.depth! < 1) fail(`depth ${String(r.depth)}`);
  const kept = r.kept;
  if (!Array.isArray(kept) || kept.length === 0 || !kept.every((k, i) => Number.isInteger(k) && k >= 0 && k < r.depth! && (i === 0 || k > kept[i - 1]!))) fail('kept must be ascending block indices below the depth');
  if (typeof r.teacher?.name !== 'string' || !/^[0-9a-f]{64}$/.test(String(r.teacher.sha256))) fail('teacher must have a name and a SHA-256');
  if (r.from !== undefined) checkRecord(r.from);
  return r as PruneRecord;
}
