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
  /** How it was learned. */
  seed?: number;
  command?: string;
}

/**
 * A decision that `learn-masks` or `learn-branches` wrote.
 * @throws DataError where it is none, or for a model of another depth
 */
export async function readDecision(path: string, depth: number): Promise<StoredDecision> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new DataError(`${path} cannot be read as a decision of learn-masks or learn-branches: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (!isDecision(value)) throw new DataError(`${path} is no decision of learn-masks or learn-branches: it lacks kept layers, depth, confidence, or the teacher's name and hash`);
  if (value.depth !== depth) throw new DataError(`${path} is no decision for a model of ${depth} layers; it was made for ${value.depth}`);
  byIndex(depth, value.kept);
  return value;
}

function isDecision(value: unknown): value is StoredDecision {
  const { kept, depth, confidence, groups, branches, teacher, seed, command } = (value ?? {}) as Partial<Record<keyof StoredDecision, unknown>>;
  const numbers = (list: unknown): list is number[] => Array.isArray(list) && list.every((n) => typeof n === 'number');
  const { name, sha256 } = (teacher ?? {}) as Partial<Record<keyof PruneRecord['teacher'], unknown>>;
  const { attention, mlp } = (branches ?? {}) as Partial<Record<'attention' | 'mlp', unknown>>;
  return (
    numbers(kept) && typeof depth === 'number' && numbers(confidence) && typeof name === 'string' && typeof sha256 === 'string' &&
    (groups === undefined || (Array.isArray(groups) && groups.every(numbers))) &&
    (branches === undefined || (numbers(attention) && numbers(mlp))) &&
    (seed === undefined || typeof seed === 'number') && (command === undefined || typeof command === 'string')
  );
}
