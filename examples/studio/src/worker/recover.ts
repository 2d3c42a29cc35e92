import { TinyFusionError } from '@tinyfusion/core';
import { type LatentDataset, type Prunable, distill, shallowCopy } from '@tinyfusion/recipes';
import { parseSafetensors, safetensorsOf } from '@tinyfusion/weights';
import { forget, keep, recall } from '../keep';
import type { Choice, DrawSettings, RecoverEvent, RecoverSettings, StudentInfo } from '../protocol';
import { drawing } from './draw';
import { pixelsOf } from './pixels';
import type { Context } from './server';
import { theRunLeft } from './left';
import { session } from './session';
import { keepStudent, openStudent } from './student';

/** A run of recovery that was left, of a teacher. */
export interface KeptRecovery {
  readonly settings: RecoverSettings;
  readonly choice: Choice;
  readonly step: number;
  /** Steps of the student that the run began with; `undefined` where its file does not say. */
  readonly before: number | undefined;
  readonly run: Uint8Array<ArrayBuffer>;
}

/**
 * Cuts the teacher to the choice and recovers it by masked RepKD. A student that was recovered before goes on from its
 * weights; `resume` goes on with the run that was left, to the bit.
 */
export async function recover({ choice, resume, shown, ...settings }: RecoverSettings & { choice: Choice; resume: boolean; shown: DrawSettings }, { signal, emit }: Context<RecoverEvent>): Promise<StudentInfo> {
  const { model: teacher, sha256 } = session.teacher;
  const data: LatentDataset = await session.data({ signal, onProgress: (progress) => emit({ progress }) });
  const left = resume ? theRunLeft(await recall<KeptRecovery>(`recover of ${sha256}`), { settings, choice }) : undefined;
  const earlier = left === undefined && String(session.recovered?.choice.kept) === String(choice.kept) ? session.recovered : undefined;
  const before = left !== undefined ? left.before : earlier === undefined ? 0 : earlier.steps;
  const student = earlier === undefined ? await shallowCopy(teacher, choice.kept) : await shallowCopy(earlier.model, Array.from(choice.kept.keys()));
  const { sigmas, ...rest } = settings;
  let file: Uint8Array<ArrayBuffer> | undefined;
  try {
    await distill(student, teacher, data, {
      ...rest,
      sigmas: sigmas === 0 ? Infinity : sigmas,
      // averages over a short run that began far off would hold it back
      emaDecay: 0.98,
      signal,
      onProgress: (progress) => emit({ progress }),
      ...(left === undefined ? {} : { resume: await parseSafetensors(left.run) }),
      checkpoint: {
        every: Math.max(1, Math.round(settings.steps / 10)),
        save: async (averaged, step, run) => {
          file = await keepStudent(averaged, choice, before === undefined ? undefined : before + step);
          if (step < settings.steps) await keep(`recover of ${sha256}`, { settings, choice, step, before, run: await safetensorsOf(run) } satisfies KeptRecovery);
          await show(averaged, shown, step, signal, emit);
        },
      },
    });
    await forget(`recover of ${sha256}`);
  } finally {
    student.dispose();
    if (file !== undefined) session.recovered = await openStudent(await parseSafetensors(file));
  }
  const info = session.studentInfo();
  if (info === undefined) throw new TinyFusionError('INTERNAL', 'recovery left no student');
  return info;
}

/** The first pictures of the student so far. */
async function show(model: Prunable, settings: DrawSettings, step: number, signal: AbortSignal, emit: Context<RecoverEvent>['emit']): Promise<void> {
  if (signal.aborted || settings.labels.length === 0) return;
  for await (const { step: at, total, latents } of await drawing(model, undefined, { ...settings, steps: Math.min(8, settings.steps) }, { signal })) {
    if (at < total) continue;
    const pixels = await pixelsOf(latents, { decode: true });
    emit({ step, pixels }, [pixels.bytes.buffer]);
  }
}
