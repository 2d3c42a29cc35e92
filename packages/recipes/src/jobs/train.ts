import { CheckpointError } from '@tinyfusion/core';
import { firstImages, type ImageDataset } from '@tinyfusion/data';
import { loadIdxFolder } from '@tinyfusion/data/node';
import { fashionMnistClassNames } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, type DiT, loadAutoencoderKL } from '@tinyfusion/models';
import { toSafetensors } from '@tinyfusion/nn';
import { broadcastBytes, singleCollective, trainingProgress } from '@tinyfusion/train';
import { type StateDict, parseSafetensors } from '@tinyfusion/weights';
import { checkWritable, loadSafetensors, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import { access, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { encodeDataset } from '../latents.js';
import { refineDecoder, trainAutoencoder } from '../train-autoencoder.js';
import { classifierAccuracy, trainClassifier } from '../train-classifier.js';
import { train } from '../train.js';
import { type JobContext, leads, write } from './context.js';

/** Options of `tinyfusion train`. */
export interface TrainJob {
  data: string;
  out: string;
  steps: number;
  fast?: boolean;
}

/** Trains the embedded models from random weights: the autoencoder, the feature network, the teacher. */
export async function trainJob({ data: folder, out, steps, fast = false }: TrainJob, context: JobContext): Promise<void> {
  await checkWritable(join(out, 'autoencoder.safetensors'));
  const { collective = singleCollective() } = context;
  const options = { classNames: fashionMnistClassNames };
  const data: ImageDataset = await loadIdxFolder(folder, options);
  const test = await loadIdxFolder(folder, { ...options, split: 'test' });
  const short = (full: number): number => (fast ? 4 : full);
  const recipes = {
    autoencoder: `trainAutoencoder, ${short(1000)} steps of 32, seed 1; refineDecoder, ${short(1500)} steps of 32, seed 3`,
    features: `trainClassifier, ${short(2500)} steps of 128, seed 2`,
    teacher: `train, ${short(steps)} steps of 64, seed 0`,
  };
  const training = (recipe: string): [string, string] => [TRAINING_KEY, JSON.stringify({ data: basename(folder), recipe, command: context.command })];
  const save = async (name: string, model: DiT | AutoencoderKL | Awaited<ReturnType<typeof trainClassifier>>, type: string, recipe: string): Promise<void> => write(join(out, `${name}.safetensors`), await toSafetensors(model, { type, config: model.config, dtype: 'F16', metadata: [training(recipe)] }));

  // what an earlier run finished is taken as it is, where it is what this one would make
  const earlier = async (name: string, recipe: string): Promise<StateDict | undefined> => {
    const path = join(out, `${name}.safetensors`);
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (!there) return undefined;
    const state = await loadSafetensors(path);
    const made = madeBy(state);
    if (made !== undefined && (made.data !== basename(folder) || made.recipe?.startsWith(recipe) !== true)) throw new CheckpointError(`${path} was made of ${made.data} by ${made.recipe}, not of ${basename(folder)} by ${recipe}; give the options that were begun with, or another --out`);
    return state;
  };
  // all ranks take the autoencoder as it was stored, as a run that goes on does
  const vae = await loadAutoencoderKL(await parseSafetensors(await broadcastBytes(collective, leads(context) ? await firstModels() : undefined)));

  /** The autoencoder and the feature network, trained here or before. @returns the autoencoder's file */
  async function firstModels(): Promise<Uint8Array> {
    if ((await earlier('autoencoder', recipes.autoencoder)) === undefined) {
      const trained = await trainAutoencoder(data, { steps: short(1000), seed: 1, ...context });
      await refineDecoder(trained, data, { steps: short(1500), seed: 3, ...context });
      await save('autoencoder', trained, 'AutoencoderKL', recipes.autoencoder);
      trained.dispose();
    }
    if ((await earlier('features', recipes.features)) === undefined) {
      const classifier = await trainClassifier(data, { steps: short(2500), seed: 2, ...context });
      const accuracy = await classifierAccuracy(classifier, test, context);
      console.log(`feature network: accuracy ${(100 * accuracy).toFixed(2)} % on the test images`);
      await save('features', classifier, 'ConvClassifier', `${recipes.features}; test accuracy ${accuracy.toFixed(4)}`);
    }
    return readFile(join(out, 'autoencoder.safetensors'));
  }

  const resume = leads(context) ? await earlier('teacher.run', recipes.teacher) : undefined;

  const latents = await encodeDataset(fast ? firstImages(data, 500) : data, vae, context);
  const curvePath = join(out, 'teacher.curve.json');
  const curve = resume === undefined ? [] : await curveUpTo(curvePath, trainingProgress<{ step: number }>(resume).step);
  const dit = await train(latents, {
    steps: short(steps),
    seed: 0,
    collective,
    signal: context.signal,
    onProgress: (event) => {
      curve.push([event.step, event.values?.['mse'] ?? Number.NaN]);
      context.onProgress?.(event);
    },
    ...(resume === undefined ? {} : { resume }),
    checkpoint: {
      every: 1000,
      save: async (model, _step, run) => {
        await save('teacher', model, 'DiT', recipes.teacher);
        await writeFileAtomic(curvePath, JSON.stringify(curve));
        await writeCheckpoint(join(out, 'teacher.run.safetensors'), run, { metadata: new Map([...run.metadata, training(recipes.teacher)]) });
      },
    },
  });
  if (!leads(context)) return;
  await save('teacher', dit, 'DiT', recipes.teacher);
  await write(curvePath, JSON.stringify(curve));
}

const TRAINING_KEY = 'tinyfusion.training';

/** How a file was made, where it says. */
function madeBy({ metadata }: StateDict): { data?: string; recipe?: string } | undefined {
  const text = metadata.get(TRAINING_KEY);
  return text === undefined ? undefined : (JSON.parse(text) as ReturnType<typeof madeBy>);
}

/** The curve of steps that are done already. */
async function curveUpTo(path: string, step: number): Promise<[number, number][]> {
  const curve = await readFile(path, 'utf8').then(
    (text) => JSON.parse(text) as [number, number][],
    () => [],
  );
  return curve.filter(([at]) => at <= step);
}
