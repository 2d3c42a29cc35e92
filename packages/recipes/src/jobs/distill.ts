import { ArgumentError } from '@tinyfusion/core';
import { saveModel } from '@tinyfusion/models';
import { belongTogether, pruneMetadata } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import { distill } from '../distill.js';
import type { Prunable } from '../objective.js';
import { RunFolder } from '../runs/run-folder.js';
import { depthOf } from '../stacks.js';
import { embeddedLatents, type JobContext, leads, loadModel, write } from './context.js';

/** Options of `tinyfusion distill`. */
export interface DistillJob {
  student: string;
  teacher?: string;
  /** Whether a teacher may be another model than the one that the student's record names. Default: it is an error. */
  anyTeacher?: boolean;
  steps: number;
  batch: number;
  lr: number;
  sigmas: number;
  beta: number;
  mask: 'official' | 'intersection';
  images: number;
  seed: number;
  /** Folder that the run is kept in. Default: it is not kept. */
  run?: string;
  saveEvery: number;
  out: string;
}

/** Recovers a shallow model and writes it with its record and curve. */
export async function distillJob(job: DistillJob, context: JobContext): Promise<void> {
  const [student, teacher] = [await loadModel(job.student), await loadModel(job.teacher)];
  const hash = await stateDictHash(teacher.state);
  const belonging = student.record === undefined ? undefined : belongTogether(student.record, hash);
  if (belonging?.ok === false && job.anyTeacher !== true) throw new ArgumentError('--teacher', teacher.name, `the model that ${student.name} was cut from: ${belonging.reason}. With --any-teacher this one is taken`);
  if (student.model.constructor !== teacher.model.constructor) throw new ArgumentError('distill: student', student.model.constructor.name, `a ${teacher.model.constructor.name} as its teacher`);
  const [own, whole] = [depthOf(student.model), depthOf(teacher.model)];
  if (own > whole && student.record?.layerMap === undefined) throw new ArgumentError('distill: student', `${own} layers`, `at most the teacher's ${whole}`);
  const { steps, batch, lr, sigmas, beta, mask, images, seed } = job;
  await using run = job.run === undefined || !leads(context) ? undefined : await RunFolder.open(job.run, { task: 'distill', student: await stateDictHash(student.state), teacher: hash, steps, batch, lr, sigmas, beta, mask, images, seed }, { command: context.command, every: job.saveEvery });
  const latents = await embeddedLatents(images, context);
  const metadata: [string, string][] = student.record === undefined ? [] : [pruneMetadata(student.record)];
  metadata.push(['tinyfusion.recovery', JSON.stringify({ command: context.command, seed: job.seed, steps: job.steps, teacher: { name: teacher.name, sha256: hash } })]);
  const store = (model: Prunable): Promise<Uint8Array> => saveModel(model, { metadata });
  const curves = await distill(student.model, teacher.model, latents, { steps, batchSize: batch, lr, sigmas: sigmas === 0 ? Infinity : sigmas, beta, mode: mask, seed, ...(student.record?.layerMap === undefined || belonging?.ok === false ? {} : { layerMap: student.record.layerMap }), ...(run === undefined ? context : run.checkpointing(store, context, { metric: 'mse' })), collective: context.collective });
  if (!leads(context)) return;
  await write(job.out, await store(student.model));
  await write(`${job.out}.curve.json`, JSON.stringify(curves));
}
