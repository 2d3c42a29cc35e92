import { type LongTaskOptions, createRng, throwIfCancelled } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { type DiT, withDepths } from '@tinyfusion/models';
import { loadState, readState } from '@tinyfusion/nn';
import { BlockInfluence, leastRedundant, pruneState } from '@tinyfusion/pruning';
import { type StateDict, stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { LatentDataset } from './latents.js';
import { breathe } from './loop.js';
import type { Prunable } from './objective.js';
import { keptByStack } from './stacks.js';

/** A new model with only the kept layers of the teacher, counted over all its stacks, with the teacher's weights. */
export async function shallowCopy<M extends Prunable>(teacher: M, kept: readonly number[]): Promise<M> {
  const stacks = keptByStack(teacher, kept);
  let state = await stateOf(teacher);
  for (const stack of stacks) state = pruneState(state, stack.name, stack.kept);
  const student = withDepths(teacher, stacks.map((stack) => stack.kept.length));
  await loadState(student, state);
  return student;
}

/** A model's values as a state dict in memory. */
export async function stateOf(model: Prunable): Promise<StateDict> {
  return stateDictOf(await readState(model));
}

export interface ShortGptOptions extends LongTaskOptions {
  /** Layers to keep. */
  count: number;
  /** Images looked at. Default 128, as the reference. */
  images?: number;
  seed: number;
}

/** ShortGPT's choice: keeps the blocks that change their input most, over latents at random timesteps. */
export async function chooseByBlockInfluence(teacher: DiT, data: LatentDataset, { count, images = 128, seed, signal, onProgress }: ShortGptOptions): Promise<{ kept: number[]; similarities: number[] }> {
  const batch = Math.min(16, images);
  const rng = createRng(seed);
  const diffusion = new GaussianDiffusion();
  const batches = data.batches(batch, rng.split('data'));
  const draws = rng.split('noise');
  const influence = new BlockInfluence();
  try {
    for (let seen = 0; seen < images; seen += batch) {
      throwIfCancelled(signal, 'block influence');
      tf.tidy(() => {
        const { latents, labels } = batches.next();
        const t = draws.integers(0, diffusion.steps, batch);
        teacher.forward(latents, tf.tensor1d(Float32Array.from(t)), labels, { hook: influence.hook });
      });
      influence.endBatch();
      onProgress?.({ task: 'block influence', step: Math.min(images, seen + batch), total: images, unit: 'image' });
      await breathe();
    }
    const similarities = await influence.similarities();
    return { kept: leastRedundant(similarities, count), similarities };
  } finally {
    influence.dispose();
  }
}
