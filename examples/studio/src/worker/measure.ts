import type { ProgressEvent } from '@tinyfusion/core';
import type { ExtractedFeatures } from '@tinyfusion/eval';
import { loadFashionMnist } from '@tinyfusion/fashion-mnist';
import { depthOf, evaluateModel, referenceFeatures, shallowCopy } from '@tinyfusion/recipes';
import type { Measured, Who } from '../protocol';
import type { Context } from './server';
import { session } from './session';

/** Real images that samples are compared with. */
const REAL = 1000;

let real: ExtractedFeatures | undefined;

/** FID and its kin of a few samples; rough, but the same for both models. */
export async function measure({ who, kept, count, steps, guidance, seed }: { who: Who; kept: readonly number[]; count: number; steps: number; guidance: number; seed: number }, { signal, emit }: Context<ProgressEvent>): Promise<Measured> {
  const vae = await session.embeddedAutoencoder();
  const network = await session.network();
  real ??= await referenceFeatures(network, await loadFashionMnist('test'), REAL, { signal, onProgress: emit });
  const own = who === 'teacher' ? { model: session.teacher.model, hook: undefined } : session.student(kept);
  const model = own.hook === undefined ? own.model : await shallowCopy(session.teacher.model, kept);
  try {
    const { fid, inceptionScore, precision, recall, agreement, imagesPerSecond } = await evaluateModel(model, vae, network, real, { count, steps, guidance, seed, batchSize: 25, signal, onProgress: emit });
    return { name: who, blocks: depthOf(model), fid, inceptionScore, precision, recall, agreement, imagesPerSecond, count, steps, guidance };
  } finally {
    if (model !== own.model) model.dispose();
  }
}
