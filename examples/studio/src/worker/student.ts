import { CheckpointError, throwIfCancelled } from '@tinyfusion/core';
import { saveModel, loadModel } from '@tinyfusion/models';
import { type PruneRecord, pruneMetadata, readPruneRecord } from '@tinyfusion/pruning';
import { type Prunable, depthOf, shallowCopy, stacksOf } from '@tinyfusion/recipes';
import type { StateDict } from '@tinyfusion/weights';
import { keep } from '../keep';
import type { Choice, Download } from '../protocol';
import type { Context } from './server';
import { type Recovered, session } from './session';

/** Key of the steps of recovery in a student's metadata. */
const STEPS_KEY = 'tinyfusion.studio.steps';

/** A student of a teacher that outlives the page. */
export interface KeptStudent {
  readonly file: Uint8Array<ArrayBuffer>;
}

/** How the choice was made, as it travels in the student's file. */
function recordOf({ kept, criterion, groups, confidence, seed }: Choice): PruneRecord {
  const { name, sha256, model, record } = session.teacher;
  return {
    version: 1,
    stack: stacksOf(model).map((stack) => stack.name).join(','),
    kept: [...kept],
    depth: depthOf(model),
    criterion,
    teacher: { name, sha256 },
    ...(groups === undefined ? {} : { groups: groups.map(([n, m]): [number, number] => [n, m]) }),
    ...(confidence === undefined ? {} : { confidence: [...confidence] }),
    ...(seed === undefined ? {} : { seed }),
    command: 'TinyFusion Studio',
    ...(record === undefined ? {} : { from: record }),
  };
}

const saved = (model: Prunable, record: PruneRecord, steps: number | undefined, dtype: 'F32' | 'F16'): Promise<Uint8Array<ArrayBuffer>> => saveModel(model, { dtype, metadata: [pruneMetadata(record), ...(steps === undefined ? [] : [[STEPS_KEY, String(steps)] as [string, string]])] });

/** Stores a student, so that a reload finds it. @returns its file */
export async function keepStudent(model: Prunable, choice: Choice, steps: number | undefined): Promise<Uint8Array<ArrayBuffer>> {
  const file = await saved(model, recordOf(choice), steps, 'F32');
  await keep(`student of ${session.teacher.sha256}`, { file } satisfies KeptStudent);
  return file;
}

/** The student of a file of ours. @throws CheckpointError where it is none */
export async function openStudent(state: StateDict): Promise<Recovered> {
  const record = readPruneRecord(state.metadata);
  if (record === undefined) throw new CheckpointError('the file has no record of a cut, so it is no student');
  const { kept, criterion, groups, confidence, seed } = record;
  const steps = state.metadata.get(STEPS_KEY);
  return { model: (await loadModel(state)) as Prunable, choice: { kept, criterion, ...(groups === undefined ? {} : { groups }), ...(confidence === undefined ? {} : { confidence }), ...(seed === undefined ? {} : { seed }) }, steps: steps === undefined ? undefined : Number(steps), record };
}

/** The shallow model of a choice as a file: the recovered one, or the teacher's blocks as they are. */
export async function download({ choice, dtype }: { choice: Choice; dtype: 'F32' | 'F16' }, { signal }: Context<never>): Promise<Download> {
  const { recovered, teacher } = session;
  const own = String(recovered?.choice.kept) === String(choice.kept) ? recovered : undefined;
  const model = own?.model ?? (await shallowCopy(teacher.model, choice.kept));
  try {
    const record = own?.record ?? recordOf(choice);
    const bytes = await saved(model, record, own === undefined ? 0 : own.steps, dtype);
    throwIfCancelled(signal, 'writing');
    return { bytes, record };
  } finally {
    if (own === undefined) model.dispose();
  }
}
