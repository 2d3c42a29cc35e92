import { type LongTaskOptions, createRng, throwIfCancelled } from '@tinyfusion/core';
import { ActivationStatistics, type LayerActivations } from '@tinyfusion/distill';
import * as tf from '@tensorflow/tfjs-core';
import type { LatentDataset } from './latents.js';
import { breathe } from './loop.js';
import { type Prunable, objectiveOf } from './objective.js';
import { overAllStacks } from './stacks.js';

export interface ActivationLayersOptions extends LongTaskOptions {
  /** Batches of 32 that are looked at, fewer where the data have fewer. Default 8. */
  batches?: number;
  seed?: number;
}

/** How the activations of each layer lie, over noisy latents as in training; layers are counted over all stacks. */
export async function activationLayers(model: Prunable, data: LatentDataset, { batches = 8, seed = 0, signal, onProgress }: ActivationLayersOptions = {}): Promise<LayerActivations[]> {
  const statistics = new ActivationStatistics();
  const hook = overAllStacks(model, statistics.hook);
  const rng = createRng(seed);
  const drawn = data.batches(Math.min(32, data.labels.length), rng.split('data'));
  const objective = objectiveOf<Prunable>(model);
  for (let i = 0; i < batches; i++) {
    throwIfCancelled(signal, 'activations');
    const batch = drawn.next();
    tf.tidy(() => void objective.draw(model, batch, rng).forward(model, { hook }));
    tf.dispose([batch.latents, batch.labels]);
    await statistics.endBatch();
    onProgress?.({ task: 'activations', step: i + 1, total: batches, unit: 'batch' });
    await breathe();
  }
  return statistics.layers();
}
