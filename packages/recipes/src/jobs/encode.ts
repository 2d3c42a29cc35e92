import { createRng, torchCpu, torchCuda } from '@tinyfusion/core';
import { openImageFolder } from '@tinyfusion/data/node';
import { loadReferenceAutoencoder } from '@tinyfusion/models';
import { weightsOf } from '@tinyfusion/weights';
import { writeFileAtomic } from '@tinyfusion/weights/node';
import { join } from 'node:path';
import { encodeFolder } from '../encode-folder.js';
import type { JobContext } from './context.js';
import { openWeights } from './weights-file.js';

/** Options of `tinyfusion encode`. */
export interface EncodeJob {
  vae: string;
  size: number;
  batch: number;
  rng: 'philox' | 'torch-cuda' | 'torch-cpu';
  seed: number;
  skipBroken?: boolean;
  out: string;
}

const streams = { philox: createRng, 'torch-cuda': torchCuda, 'torch-cpu': torchCpu };

/** Encodes a folder of images, each class a folder in it, to latents and labels for training. */
export async function encodeJob(path: string, { vae: file, size, batch, rng, seed, skipBroken = false, out }: EncodeJob, context: JobContext): Promise<void> {
  const folder = await openImageFolder(path);
  await using checkpoint = await openWeights(file, context);
  const vae = await loadReferenceAutoencoder(weightsOf(checkpoint), { signal: context.signal, onProgress: context.onProgress });
  const broken: string[] = [];
  const onBroken = (name: string, reason: string): void => {
    broken.push(name);
    console.error(`note: ${name} is left out: ${reason}`);
  };
  const { written, present } = await encodeFolder(folder, vae, out, { size, batchSize: batch, rng: streams[rng](seed), ...context, ...(skipBroken ? { onBroken } : {}) });
  vae.dispose();
  await writeFileAtomic(join(out, 'classes.json'), JSON.stringify(folder.classNames));
  console.log(`${written} images encoded to ${out}${present > 0 ? `, ${present} were there` : ''}${broken.length > 0 ? `, ${broken.length} broken` : ''}; ${folder.classNames.length} classes`);
}
