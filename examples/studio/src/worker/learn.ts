import { learnMasks } from '@tinyfusion/recipes';
import { depthOf } from '@tinyfusion/recipes';
import { parseSafetensors, safetensorsOf } from '@tinyfusion/weights';
import { forget, keep, recall } from '../keep';
import type { Choice, LearnEvent, LearnSettings } from '../protocol';
import type { Context } from './server';
import { theRunLeft } from './left';
import { session } from './session';

/** A run of mask learning that was left, of a teacher. */
export interface KeptLearning {
  readonly settings: LearnSettings;
  readonly step: number;
  readonly run: Uint8Array<ArrayBuffer>;
}

// rates of the quickstart: with few steps the paper's would hardly move
const RATE = 1e-3;

/** Learns which half of each group stays; `resume` goes on with the run that was left. */
export async function learn({ resume, ...settings }: LearnSettings & { resume: boolean }, { signal, emit }: Context<LearnEvent>): Promise<Choice> {
  const { model, sha256 } = session.teacher;
  const data = await session.data({ signal, onProgress: (progress) => emit({ progress }) });
  const left = resume ? theRunLeft(await recall<KeptLearning>(`learn of ${sha256}`), { settings }) : undefined;
  const { group, ...rest } = settings;
  const size: [number, number] = [group / 2, group];
  const groups = Array.from({ length: depthOf(model) / group }, () => size);
  const { decision } = await learnMasks(model, data, {
    ...rest,
    groups,
    lr: RATE,
    gateLr: RATE,
    signal,
    onProgress: (progress) => emit({ progress }),
    ...(left === undefined ? {} : { resume: await parseSafetensors(left.run) }),
    checkpoint: {
      every: Math.max(1, Math.round(settings.steps / 50)),
      save: async (decided, step, run) => {
        emit({ step, decision: decided });
        if (step < settings.steps) await keep(`learn of ${sha256}`, { settings, step, run: await safetensorsOf(run) } satisfies KeptLearning);
      },
    },
  });
  await forget(`learn of ${sha256}`);
  return { kept: decision.kept, criterion: 'learned', groups, confidence: decision.groups.map(({ confidence }) => confidence), seed: settings.seed };
}
