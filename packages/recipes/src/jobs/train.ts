import { firstImages, type ImageDataset } from '@tinyfusion/data';
import { loadIdxFolder } from '@tinyfusion/data/node';
import { fashionMnistClassNames } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, type DiT, loadAutoencoderKL } from '@tinyfusion/models';
import { toSafetensors } from '@tinyfusion/nn';
import { broadcastBytes, singleCollective } from '@tinyfusion/train';
import { type StateDict, parseSafetensors } from '@tinyfusion/weights';
import { checkWritable, loadSafetensors, writeCheckpoint } from '@tinyfusion/weights/node';
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
  const save = (name: string, model: DiT | AutoencoderKL | Awaited<ReturnType<typeof trainClassifier>>, type: string, recipe: string): Promise<Uint8Array> =>
    toSafetensors(model, { type, config: model.config, dtype: 'F16', metadata: [['tinyfusion.training', JSON.stringify({ data: basename(folder), recipe, command: context.command })]] }).then(async (bytes) => {
      await write(join(out, `${name}.safetensors`), bytes);
      return bytes;
    });

  // what an earlier run finished is taken as it is
  const earlier = async (name: string): Promise<StateDict | undefined> => {
    const path = join(out, `${name}.safetensors`);
    const there = await access(path).then(
      () => true,
      () => false,
    );
    return there ? loadSafetensors(path) : undefined;
  };
  const first = leads(context) ? await firstModels() : undefined;
  // ranks that had no part in it take what the first one wrote
  const vae = collective.size === 1 ? first!.vae : await loadAutoencoderKL(await parseSafetensors(await broadcastBytes(collective, first?.file)));

  /** The autoencoder and the feature network, trained here or before. */
  async function firstModels(): Promise<{ vae: AutoencoderKL; file: Uint8Array }> {
    const storedAutoencoder = await earlier('autoencoder');
    const vae = storedAutoencoder === undefined ? await trainAutoencoder(data, { steps: short(1000), seed: 1, ...context }) : await loadAutoencoderKL(storedAutoencoder);
    if (storedAutoencoder === undefined) {
      await refineDecoder(vae, data, { steps: short(1500), seed: 3, ...context });
      await save('autoencoder', vae, 'AutoencoderKL', 'trainAutoencoder, 1000 steps of 32, seed 1; refineDecoder, 1500 steps of 32, seed 3');
    }
    if ((await earlier('features')) === undefined) {
      const classifier = await trainClassifier(data, { steps: short(2500), seed: 2, ...context });
      const accuracy = await classifierAccuracy(classifier, test, context);
      console.log(`feature network: accuracy ${(100 * accuracy).toFixed(2)} % on the test images`);
      await save('features', classifier, 'ConvClassifier', `trainClassifier, 2500 steps of 128, seed 2; test accuracy ${accuracy.toFixed(4)}`);
    }
    return { vae, file: await readFile(join(out, 'autoencoder.safetensors')) };
  }

  const resume = leads(context) ? await earlier('teacher.run') : undefined;

  const latents = await encodeDataset(fast ? firstImages(data, 500) : data, vae, context);
  const curve: [number, number][] = [];
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
        await save('teacher', model, 'DiT', `train, ${steps} steps of 64, seed 0`);
        await writeCheckpoint(join(out, 'teacher.run.safetensors'), run);
      },
    },
  });
  if (!leads(context)) return;
  await save('teacher', dit, 'DiT', `train, ${steps} steps of 64, seed 0`);
  await write(join(out, 'teacher.curve.json'), JSON.stringify(curve));
}
