import type { LongTaskOptions } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { classifierFeatures, type FeatureNetwork, loadConvClassifier } from '@tinyfusion/eval';
import { loadAutoencoder, loadFashionMnist, loadFeatureNetwork, loadTeacher } from '@tinyfusion/fashion-mnist';
import { type DiT, type LoadOptions, loadAutoencoderKL, loadDiT } from '@tinyfusion/models';
import { type PruneRecord, readPruneRecord } from '@tinyfusion/pruning';
import type { StateDict } from '@tinyfusion/weights';
import { loadSafetensors, writeFileAtomic } from '@tinyfusion/weights/node';
import { mkdir } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { encodeDataset, type LatentDataset } from '../latents.js';
import { rebuilt } from './rebuilt.js';

/** What a job gets beside its options. */
export interface JobContext extends LongTaskOptions {
  /** The command as it was typed, for records. */
  command: string;
}

/** A model with what its file says of it. */
export interface Loaded {
  model: DiT;
  state: StateDict;
  name: string;
  record: PruneRecord | undefined;
}

/** A model from a file, or the embedded teacher. */
export async function loadModel(path: string | undefined, options: LoadOptions = {}): Promise<Loaded> {
  const state = path === undefined ? await loadTeacher() : rebuilt(await loadSafetensors(path));
  return { state, model: await loadDiT(state, options), name: path === undefined ? 'fashion-mnist teacher' : basename(path), record: readPruneRecord(state.metadata) };
}

/** Latents of the first embedded training images. */
export async function embeddedLatents(images: number, context: LongTaskOptions): Promise<LatentDataset> {
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const latents = await encodeDataset(firstImages(await loadFashionMnist('train'), images), vae, context);
  vae.dispose();
  return latents;
}

/** The embedded feature network. */
export async function embeddedNetwork(): Promise<FeatureNetwork> {
  return classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier of @tinyfusion/fashion-mnist');
}

/** Writes a result, in a folder that is made, and says so. */
export async function write(path: string, bytes: Uint8Array | string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomic(path, bytes);
  console.log(`wrote ${path}`);
}
