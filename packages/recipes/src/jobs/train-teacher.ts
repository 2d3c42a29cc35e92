import { firstImages } from '@tinyfusion/data';
import { loadIdxFolder } from '@tinyfusion/data/node';
import { fashionMnistClassNames, loadAutoencoder, loadFashionMnist } from '@tinyfusion/fashion-mnist';
import { loadAutoencoderKL, saveModel } from '@tinyfusion/models';
import { loadSafetensors } from '@tinyfusion/weights/node';
import { access } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { encodeDataset } from '../latents.js';
import { type Families, train } from '../train.js';
import { type JobContext, write } from './context.js';

/** Options of `tinyfusion train --family`. */
export interface TrainTeacherJob {
  family: keyof Families;
  /** An IDX folder. Default: the embedded images. */
  data?: string;
  out: string;
  steps: number;
  seed: number;
  fast?: boolean;
}

/** Trains one small teacher on the latents of the embedded autoencoder; a run that was stopped goes on. */
export async function trainTeacherJob({ family, data: folder, out, steps, seed, fast = false }: TrainTeacherJob, context: JobContext): Promise<void> {
  const data = folder === undefined ? await loadFashionMnist('train') : await loadIdxFolder(folder, { classNames: fashionMnistClassNames });
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const latents = await encodeDataset(fast ? firstImages(data, 200) : data, vae, context);
  vae.dispose();
  const state = join(out, 'teacher.run.safetensors');
  const there = await access(state).then(
    () => true,
    () => false,
  );
  const curve: [number, number][] = [];
  const total = fast ? 4 : steps;
  const training = { data: folder === undefined ? 'the first 10,000 training images of Fashion-MNIST' : basename(folder), recipe: `train, ${family}, ${total} steps of 64, seed ${seed}`, command: context.command };
  const save = async (model: Families[typeof family]): Promise<void> => write(join(out, 'teacher.safetensors'), await saveModel(model, { dtype: 'F16', metadata: [['tinyfusion.training', JSON.stringify(training)]] }));
  const model = await train(latents, {
    family,
    steps: total,
    seed,
    signal: context.signal,
    onProgress: (event) => {
      if (event.step % 10 === 0) curve.push([event.step, +(event.values?.['mse'] ?? Number.NaN).toFixed(5)]);
      context.onProgress?.(event);
    },
    ...(there ? { resume: await loadSafetensors(state) } : {}),
    checkpoint: {
      every: 500,
      save: async (current, step, run) => {
        await save(current);
        await write(state, run);
        await write(join(out, `teacher.curve-${step}.json`), JSON.stringify(curve));
      },
    },
  });
  await save(model);
  await write(join(out, 'teacher.curve.json'), JSON.stringify(curve));
}
