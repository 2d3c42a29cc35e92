import { ArgumentError } from '@tinyfusion/core';
import { makeFolder } from '@tinyfusion/weights/node';
import { openImageEncoder } from '../packs/image-encoder.js';
import { makePack } from '../packs/make-pack.js';
import { openSampleSource } from '../packs/open-sample-source.js';
import { lockFolder } from '../runs/run-lock.js';
import type { JobContext } from './context.js';

/** Options of `tinyfusion pack`. */
export interface PackJob {
  /** An autoencoder that makes latents of images. Default: they stay images. */
  vae?: string;
  size?: number;
  classes?: number;
  flip: boolean;
  batch?: number;
  seed: number;
  skipBroken?: boolean;
  out: string;
}

/** Makes a pack for training of images or latents; the same command goes on with one. */
export async function packJob(path: string, { vae, size, classes, flip, batch, seed, skipBroken = false, out }: PackJob, context: JobContext): Promise<void> {
  const broken: string[] = [];
  const onBroken = (name: string, reason: string): void => {
    broken.push(name);
    console.error(`note: ${name} is left out: ${reason}`);
  };
  await using source = await openSampleSource(path, { size, classes, onBroken: skipBroken ? onBroken : undefined });
  if (vae !== undefined && source.kind === 'latents') throw new ArgumentError('--vae', vae, `to be left out: ${path} has latents already`);
  if (source.kind === 'latents' && !flip) throw new ArgumentError('--no-flip', true, `to be left out: ${path} has latents, with the views that they have`);
  const encoder = vae === undefined ? undefined : await openImageEncoder(vae, { seed }, context);
  try {
    encoder?.latentShape(source.shape); // images that it does not take are an error before there is a folder
  } catch (error) {
    encoder?.dispose();
    throw error;
  }
  await makeFolder(out);
  const unlock = await lockFolder(out);
  try {
    const { written, present } = await makePack(source, out, { encoder, flip, batchSize: batch ?? (vae === 'embedded' ? 64 : undefined), ...(encoder === undefined ? {} : { identity: { seed } }), ...context });
    console.log(`${written} samples packed to ${out}${present > 0 ? `, ${present} were there` : ''}${broken.length > 0 ? `, ${broken.length} broken` : ''}; ${source.classNames.length} classes`);
  } finally {
    await unlock();
    encoder?.dispose();
  }
}
