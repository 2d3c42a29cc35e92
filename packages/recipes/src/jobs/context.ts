import { CheckpointError, type LongTaskOptions, type OnProgress } from '@tinyfusion/core';
import { classifierFeatures, type FeatureNetwork, loadConvClassifier } from '@tinyfusion/eval';
import { loadFeatureNetwork, loadTeacher, type TeacherFamily } from '@tinyfusion/fashion-mnist';
import { AutoencoderKL, type LoadOptions, loadModel as loadStored } from '@tinyfusion/models';
import { type PruneRecord, readPruneRecord } from '@tinyfusion/pruning';
import type { StateDict } from '@tinyfusion/weights';
import { writeFileAtomic } from '@tinyfusion/weights/node';
import { basename } from 'node:path';
import type { Prunable } from '../objective.js';
import type { Shared } from '../loop.js';
import { type AdapterChoice, withAdapters } from './adapter-files.js';
import { rebuilt } from './rebuilt.js';
import { loadWeights } from './weights-file.js';

/** What a job gets beside its options. */
export interface JobContext extends LongTaskOptions, Shared {
  /** The command as it was typed, for records. */
  command: string;
}

/** Whether this process writes and reports: it is alone, or rank 0. */
export const leads = ({ collective }: Shared): boolean => (collective?.rank ?? 0) === 0;

/** The signal that ends parts of a job: none where ranks share it, who have to stop at the same place. */
export const alone = ({ collective, signal }: JobContext): AbortSignal | undefined => ((collective?.size ?? 1) === 1 ? signal : undefined);

/** Reports but for those of one task, which somebody else reports for all ranks. */
export const without = (task: string, onProgress: OnProgress | undefined): OnProgress | undefined => onProgress && ((event) => event.task !== task && onProgress(event));

/** A model with what its file says of it. */
export interface Loaded {
  model: Prunable;
  state: StateDict;
  name: string;
  record: PruneRecord | undefined;
}

const families: readonly string[] = ['DiT', 'SiT', 'MAR'] satisfies TeacherFamily[];

/**
 * A model from a file of ours in any format, also from afar, or an embedded teacher.
 * @param path `'DiT'`, `'SiT'` and `'MAR'` are the embedded ones. Default `'DiT'`
 * @param options `lora`: adapters that the model has in its weights; `state` is without them
 * @throws CheckpointError where the file is none of these families'
 */
export async function loadModel(path = 'DiT', { dtype, lora, collective, signal, onProgress }: LoadOptions & AdapterChoice & Shared = {}): Promise<Loaded> {
  const family = families.includes(path) ? (path as TeacherFamily) : undefined;
  const state = family === undefined ? rebuilt(await loadWeights(path, { signal, onProgress })) : await loadTeacher(family);
  const model = await loadStored(await withAdapters(state, lora, { collective, signal }), { dtype, signal });
  if (model instanceof AutoencoderKL) throw new CheckpointError(`${path} holds an autoencoder, expected a DiT, SiT or MAR`);
  return { state, model, name: family === undefined ? basename(path) : family === 'DiT' ? 'fashion-mnist teacher' : `fashion-mnist ${family} teacher`, record: readPruneRecord(state.metadata) };
}

/** The embedded feature network. */
export async function embeddedNetwork(): Promise<FeatureNetwork> {
  return classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier of @tinyfusion/fashion-mnist');
}

/** Writes a result, in a folder that is made, and says so. */
export async function write(path: string, bytes: Uint8Array | string): Promise<void> {
  await writeFileAtomic(path, bytes);
  console.log(`wrote ${path}`);
}
