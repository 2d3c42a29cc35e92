import { ArgumentError } from '@tinyfusion/core';
import type { TeacherFamily } from '@tinyfusion/fashion-mnist';
import { studies } from '../studies/index.js';
import { runStudy } from '../studies/study.js';
import { fastStudySizes, studySizes } from '../studies/workbench.js';
import type { JobContext } from './context.js';

/** Options of `tinyfusion study`. */
export interface StudyJob {
  fast?: boolean;
  seeds?: number[];
  maskSteps?: number;
  recoverySteps?: number;
  samples?: number;
  family?: TeacherFamily;
  out: string;
}

/** Runs an experiment of the paper on the embedded teacher, or lists them. */
export async function studyJob(name: string | undefined, { fast = false, family = 'DiT', out, ...given }: StudyJob, { command, ...context }: JobContext): Promise<void> {
  if (name === undefined) {
    for (const { name: known, title, paper } of Object.values(studies)) console.log(`${known.padEnd(16)} ${title}. The paper: ${paper}`);
    return;
  }
  const study = Object.hasOwn(studies, name) ? studies[name] : undefined;
  if (study === undefined) throw new ArgumentError('study', name, `one of ${Object.keys(studies).join(', ')}`);
  const sizes = { ...(fast ? fastStudySizes : studySizes), ...Object.fromEntries(Object.entries(given).filter(([key, value]) => value !== undefined && key in studySizes)) };
  await runStudy(study, { sizes, out, command, family, ...context });
}
