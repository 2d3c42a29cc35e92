import { ArgumentError, DataError } from '@tinyfusion/core';
import { DiT, type DiTConfig, MAR, type MARConfig, saveModel } from '@tinyfusion/models';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RunFolder } from '../runs/run-folder.js';
import { type Families, fashionMar, fashionTeacher, train } from '../train.js';
import { type JobContext, leads, write } from './context.js';
import { type SampleGridJob, sampleGrid } from './sample-grid.js';
import { type TrainingData, checkBatch, openTrainingData } from './training-data.js';

/** Options of `tinyfusion train --family`. */
export interface TrainTeacherJob extends SampleGridJob {
  family: keyof Families;
  /** A pack, or a folder of IDX files. Default: the embedded images. */
  data?: string;
  /** A JSON file with what differs from the embedded teacher's configuration, e.g. `{"hiddenSize": 384}`. */
  config?: string;
  /** The run's folder: the same command goes on with what is there. */
  out: string;
  steps: number;
  /** Default 64. */
  batch?: number;
  /** Parts that a batch is computed in. */
  parts?: number;
  /** Whether blocks are computed a second time for their gradients, for less memory. */
  recompute?: boolean;
  /** Peak learning rate. Default 1e-3. */
  lr?: number;
  seed: number;
  saveEvery: number;
  keepEvery?: number;
  fast?: boolean;
}

/** Trains one teacher, small if nothing else is asked for, in a folder that the same command goes on with. */
export async function trainTeacherJob({ family, data: path, config: configPath, out, steps, batch = 64, parts, recompute, lr = 1e-3, seed, saveEvery, keepEvery, fast = false, ...grid }: TrainTeacherJob, context: JobContext): Promise<void> {
  using data = await openTrainingData(path, fast ? { images: 200 } : {}, context);
  const config = await configFor(family, data, configPath);
  checkBatch(batch, data, context);
  const total = fast ? 4 : steps;
  const identity = { task: 'train', family, steps: total, batch, lr, seed, data: data.hash, ...(configPath === undefined ? {} : { config: JSON.stringify(config) }) };
  await using run = !leads(context) ? undefined : await RunFolder.open(out, identity, { command: context.command, every: saveEvery, ...(keepEvery === undefined ? {} : { keepEvery }) });
  const samples = run && (await sampleGrid<Families[typeof family]>(grid, data, seed, context));
  const training = { data: data.name, recipe: `train, ${family}, ${total} steps of ${batch}, seed ${seed}`, command: context.command };
  const store = (model: Families[typeof family]): Promise<Uint8Array> => saveModel(model, { dtype: 'F16', metadata: [['tinyfusion.training', JSON.stringify(training)]] });
  // what does not go together is an error before images are encoded
  const kept = run === undefined ? context : run.checkpointing(store, context, { metric: 'mse', samples });
  const latents = await data.latents();
  const model = await train(latents, { family, config: config as never, steps: total, batchSize: batch, parts, recompute, lr, seed, ...kept, collective: context.collective });
  if (leads(context)) await write(join(out, 'model.safetensors'), await store(model));
  model.dispose();
}

/** The embedded teacher's configuration for other latents, with changes from a file. */
async function configFor(family: keyof Families, { shape, numClasses, name }: TrainingData, path: string | undefined): Promise<DiTConfig | MARConfig> {
  const base = family === 'MAR' ? fashionMar : fashionTeacher;
  const [height, width, inChannels] = shape;
  if (height !== width) throw new ArgumentError('--data', name, `square latents; these are ${shape.join('×')}`);
  const fitted = { ...base, inputSize: height, inChannels, numClasses };
  if (path === undefined) return fitted;
  let changes: Record<string, unknown>;
  try {
    changes = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw new DataError(`${path} cannot be read as JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof changes !== 'object' || changes === null || Array.isArray(changes)) throw new DataError(`${path} holds ${JSON.stringify(changes).slice(0, 40)}, expected an object of what differs, e.g. {"hiddenSize": 384}`);
  const unknown = Object.keys(changes).filter((key) => !(key in base));
  if (unknown.length > 0) throw new ArgumentError('--config', unknown.join(', '), `some of ${Object.keys(base).join(', ')}`);
  for (const [key, fixed] of Object.entries({ inputSize: height, inChannels, numClasses })) if (key in changes && changes[key] !== fixed) throw new ArgumentError(`--config: ${key}`, changes[key], `${fixed}, which the data have`);
  const changed = { ...fitted, ...changes };
  // what does not fit together is found when a model is made
  const made = family === 'MAR' ? new MAR(changed as MARConfig, { init: 'zeros' }) : new DiT(changed as DiTConfig, { init: 'zeros' });
  made.dispose();
  return changed;
}
