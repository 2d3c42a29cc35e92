import { type ImageDataset, firstImages } from '@tinyfusion/data';
import { loadIdxFolder } from '@tinyfusion/data/node';
import { fashionMnistClassNames, loadAutoencoder, loadFashionMnist } from '@tinyfusion/fashion-mnist';
import { loadAutoencoderKL, saveModel } from '@tinyfusion/models';
import { join } from 'node:path';
import { encodeDataset } from '../latents.js';
import { dataHash } from '../runs/data-hash.js';
import { RunFolder } from '../runs/run-folder.js';
import { type Families, train } from '../train.js';
import { type JobContext, leads, write } from './context.js';

/** Options of `tinyfusion train --family`. */
export interface TrainTeacherJob {
  family: keyof Families;
  /** An IDX folder. Default: the embedded images. */
  data?: string;
  /** The run's folder: the same command goes on with what is there. */
  out: string;
  steps: number;
  seed: number;
  saveEvery: number;
  fast?: boolean;
}

/** Trains one small teacher on the latents of the embedded autoencoder, in a folder that the same command goes on with. */
export async function trainTeacherJob({ family, data: folder, out, steps, seed, saveEvery, fast = false }: TrainTeacherJob, context: JobContext): Promise<void> {
  const all: ImageDataset = folder === undefined ? await loadFashionMnist('train') : await loadIdxFolder(folder, { classNames: fashionMnistClassNames });
  const data = fast ? firstImages(all, 200) : all;
  const total = fast ? 4 : steps;
  await using run = !leads(context) ? undefined : await RunFolder.open(out, { task: 'train', family, steps: total, seed, data: dataHash(data) }, { command: context.command, every: saveEvery });
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const latents = await encodeDataset(data, vae, context);
  vae.dispose();
  const training = { data: folder === undefined ? 'the first 10,000 training images of Fashion-MNIST' : 'the 60,000 training images of Fashion-MNIST', recipe: `train, ${family}, ${total} steps of 64, seed ${seed}`, command: context.command };
  const store = (model: Families[typeof family]): Promise<Uint8Array> => saveModel(model, { dtype: 'F16', metadata: [['tinyfusion.training', JSON.stringify(training)]] });
  const model = await train(latents, { family, steps: total, seed, ...(run === undefined ? context : run.checkpointing(store, context, { metric: 'mse' })), collective: context.collective });
  if (leads(context)) await write(join(out, 'model.safetensors'), await store(model));
  model.dispose();
}
