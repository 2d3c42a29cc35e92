import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import { type FeatureDecay, type LayerPair, proposeThreshold } from '@tinyfusion/distill';
import { saveModel } from '@tinyfusion/models';
import { type PruneRecord, belongTogether, pruneMetadata } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import { checkWritable } from '@tinyfusion/weights/node';
import { activationLayers } from '../activation-layers.js';
import { distill } from '../distill.js';
import type { LatentDataset } from '../latents.js';
import type { Prunable } from '../objective.js';
import { RunFolder } from '../runs/run-folder.js';
import { choiceMapOverStacks, depthOf, evenMapOverStacks, groupMapOverStacks, stackOf, stacksOf } from '../stacks.js';
import { type JobContext, leads, loadModel, write } from './context.js';
import { checkModelPath, writeModel } from './model-file.js';
import { type SampleGridJob, sampleGrid } from './sample-grid.js';
import { checkBatch, checkFits, openTrainingData } from './training-data.js';

/** Options of `tinyfusion distill`. */
export interface DistillJob extends SampleGridJob {
  student: string;
  teacher?: string;
  /** Whether a teacher may be another model than the one that the student's record names. Default: it is an error. */
  anyTeacher?: boolean;
  steps: number;
  batch: number;
  /** Parts that a batch is computed in. */
  parts?: number;
  /** Whether blocks are computed a second time for their gradients, for less memory. */
  recompute?: boolean;
  lr: number;
  /** Weight of the teacher's output against the truth, 0 to 1. */
  alpha: number;
  /** k of the mask, 0 for none; `'auto'`: proposed by the teacher's own activations. */
  sigmas: number | 'auto';
  beta: number;
  decay: FeatureDecay;
  mask: 'official' | 'intersection';
  /** Which layer follows which: `'even'`, `'choice'`, or pairs, `'0:1,1:3'`. Default: what the student's record says, else `'even'`. */
  map?: string;
  /** How many times its usual value a layer's feature loss may be, 0 for no guard. */
  guard: number;
  /** A pack, or a folder of IDX files. Default: the embedded images. */
  data?: string;
  images: number;
  seed: number;
  /** Folder that the run is kept in. Default: it is not kept. */
  run?: string;
  saveEvery: number;
  keepEvery?: number;
  out: string;
}

/** Recovers a shallow model and writes it with its record and curve. */
export async function distillJob(job: DistillJob, context: JobContext): Promise<void> {
  await checkModelPath('--out', job.out, { '--student': job.student, '--teacher': job.teacher });
  await checkWritable(`${job.out}.curve.json`);
  const { steps, batch, lr, alpha, beta, decay, mask, guard, images, seed } = job;
  if (!(alpha >= 0 && alpha <= 1)) throw new ArgumentError('--alpha', alpha, 'a share from 0, the truth alone, to 1, the teacher alone');
  if (!(beta >= 0)) throw new ArgumentError('--beta', beta, '0 or more');
  if (job.run === undefined && job.sampleEvery !== undefined) throw new ArgumentError('--sample-every', job.sampleEvery, 'to be given with --run, where the pictures go');
  if (job.sigmas !== 'auto' && !(job.sigmas >= 0)) throw new ArgumentError('--sigmas', job.sigmas, 'standard deviations above 0, 0 for no mask, or auto');
  if (!(guard === 0 || guard > 1)) throw new ArgumentError('--guard', guard, 'more than 1, or 0 for no guard');
  const [student, teacher] = [await loadModel(job.student, context), await loadModel(job.teacher, context)];
  const hash = await stateDictHash(teacher.state);
  const belonging = student.record === undefined ? undefined : belongTogether(student.record, hash);
  if (belonging?.ok === false && job.anyTeacher !== true) throw new ArgumentError('--teacher', teacher.name, `the model that ${student.name} was cut from: ${belonging.reason}. With --any-teacher this one is taken`);
  if (student.model.constructor !== teacher.model.constructor) throw new ArgumentError('distill: student', student.model.constructor.name, `a ${teacher.model.constructor.name} as its teacher`);
  const layerMap = mapOf(job.map, teacher.model, student.model, belonging?.ok === false ? undefined : student.record);
  using data = await openTrainingData(job.data, { images }, context);
  checkFits(data, teacher.model);
  checkBatch(batch, data, context);
  await using run = job.run === undefined || !leads(context) ? undefined : await RunFolder.open(job.run, { task: 'distill', data: data.hash, student: await stateDictHash(student.state), teacher: hash, steps, batch, lr, alpha, sigmas: job.sigmas, beta, decay, mask, map: layerMap.flat(), guard, images, seed }, { command: context.command, every: job.saveEvery, ...(job.keepEvery === undefined ? {} : { keepEvery: job.keepEvery }) });
  const samples = run && (await sampleGrid<Prunable>(job, data, seed, context));
  const metadata: [string, string][] = student.record === undefined ? [] : [pruneMetadata(student.record)];
  metadata.push(['tinyfusion.recovery', JSON.stringify({ command: context.command, seed: job.seed, steps: job.steps, teacher: { name: teacher.name, sha256: hash } })]);
  const store = (model: Prunable): Promise<Uint8Array<ArrayBuffer>> => saveModel(model, { metadata });
  // what does not go together is an error before images are encoded
  const kept = run === undefined ? context : run.checkpointing(store, context, { metric: 'mse', samples });
  const latents = await data.latents();
  const sigmas = job.sigmas === 'auto' && beta > 0 ? await proposed(teacher.model, latents, context) : Number(job.sigmas);
  const curves = await distill(student.model, teacher.model, latents, { steps, batchSize: batch, parts: job.parts, recompute: job.recompute, lr, alpha, sigmas: sigmas > 0 ? sigmas : Infinity, beta, decay, mode: mask, layerMap, guard: guard === 0 ? Infinity : guard, seed, ...kept, collective: context.collective });
  if (!leads(context)) return;
  await writeModel(job.out, await store(student.model));
  await write(`${job.out}.curve.json`, JSON.stringify(curves));
}

/** Which layer of the student follows which of the teacher's. @throws ArgumentError where they do not fit the models */
function mapOf(text: string | undefined, teacher: Prunable, student: Prunable, record: PruneRecord | undefined): readonly LayerPair[] {
  const [depth, count] = [depthOf(teacher), depthOf(student)];
  if (text === undefined) {
    if (record?.layerMap !== undefined) return record.layerMap;
    if (record?.groups !== undefined) return groupMapOverStacks(teacher, record.kept, record.groups);
  }
  if (text === undefined || text === 'even') {
    for (const [i, stack] of stacksOf(student).entries()) {
      const most = stacksOf(teacher)[i]!.depth;
      if (stack.depth > most) throw new ArgumentError('distill: student', `${stack.depth} layers in ${stack.name}`, `at most the teacher's ${most}`);
    }
    return evenMapOverStacks(teacher, student);
  }
  if (text === 'choice') {
    if (record?.kept.length !== count) throw new ArgumentError('--map', text, 'even, or pairs such as 0:1,1:3: the student has no record of whole layers cut from this teacher');
    return choiceMapOverStacks(teacher, record.kept);
  }
  const pairs = text.split(',').map((pair) => /^\s*(\d+)\s*:\s*(\d+)\s*$/.exec(pair)?.slice(1).map(Number) as [number, number] | undefined);
  const fits = (pair: (typeof pairs)[number], i: number): boolean => pair !== undefined && pair[0] < count && pair[1] < depth && (i === 0 || pair[0] > (pairs[i - 1]?.[0] ?? -1)) && stackOf(student, pair[0])!.name === stackOf(teacher, pair[1])!.name;
  if (!pairs.every(fits)) throw new ArgumentError('--map', text, `even, choice, or ascending pairs of a student's layer (0 to ${count - 1}) and a teacher's (0 to ${depth - 1}) of the same stack, e.g. 0:1,1:3`);
  return pairs as LayerPair[];
}

/** The threshold that the teacher's activations ask for, with its reason on the terminal. */
async function proposed(teacher: Prunable, data: LatentDataset, { signal, onProgress }: LongTaskOptions): Promise<number> {
  const { sigmas, why } = proposeThreshold(await activationLayers(teacher, data, { signal, onProgress }));
  console.log(`mask: ${sigmas === Infinity ? 'none' : `${sigmas} σ`}; ${why}`);
  return sigmas;
}
