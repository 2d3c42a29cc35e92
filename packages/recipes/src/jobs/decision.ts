import { DataError } from '@tinyfusion/core';
import { byIndex, type PruneRecord } from '@tinyfusion/pruning';
import { readFile } from 'node:fs/promises';

/** A decision on disk. */
export interface StoredDecision {
  kept: number[];
  depth: number;
  confidence: number[];
  /** Absent where branches were learned. */
  groups?: [number, number][];
  /** Branches that go from kept layers. */
  branches?: { attention: number[]; mlp: number[] };
  teacher: PruneRecord['teacher'];
}

/**
 * A decision that `learn-masks` or `learn-branches` wrote.
 * @throws DataError where it is none, or for a model of another depth
 */
export async function readDecision(path: string, depth: number): Promise<StoredDecision> {
  let value: Partial<StoredDecision>;
  try {
    value = JSON.parse(await readFile(path, 'utf8')) as Partial<StoredDecision>;
  } catch (cause) {
    throw new DataError(`${path} cannot be read as a decision of learn-masks or learn-branches: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (!Array.isArray(value.kept) || value.depth !== depth || value.teacher === undefined || value.confidence === undefined) {
    throw new DataError(`${path} is no decision for a model of ${depth} layers; it was made for ${String(value.depth ?? 'something else')}`);
  }
  byIndex(depth, value.kept);
  return value as StoredDecision;
}
