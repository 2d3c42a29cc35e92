import { createRng, throwIfCancelled } from '@tinyfusion/core';
import { ActivationStatistics, type LayerActivations, proposeThreshold } from '@tinyfusion/distill';
import { composeHooks, type BlockHook } from '@tinyfusion/nn';
import { type LatentDataset, type Prunable, breathe, objectiveOf } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import type { Activations } from '../protocol';
import type { Context } from './server';
import { session } from './session';
import { overStacks } from './stacks';

/** How hidden states of teacher and student lie around their mean, over noisy latents as in training. */
export async function activations({ kept }: { kept: readonly number[] }, { signal }: Context<never>): Promise<Activations> {
  const data = await session.data({ signal });
  const teacher = await statistics(session.teacher.model, undefined, data, signal);
  const own = session.student(kept);
  const layers = await statistics(own.model, own.hook, data, signal);
  // a cut model counts its own blocks; under a mask the hook sees removed ones too, which pass on what they get
  const student = own.hook === undefined ? layers.map((own) => ({ ...own, layer: kept[own.layer]! })) : layers.filter(({ layer }) => kept.includes(layer));
  return { teacher, student, proposed: proposeThreshold([...teacher, ...student]) };
}

async function statistics(model: Prunable, mask: BlockHook | undefined, data: LatentDataset, signal: AbortSignal): Promise<LayerActivations[]> {
  const seen = new ActivationStatistics();
  const rng = createRng(0);
  const batches = data.batches(16, rng.split('data'));
  const objective = objectiveOf(model);
  for (let i = 0; i < 2; i++) {
    throwIfCancelled(signal, 'activations');
    const batch = batches.next();
    tf.tidy(() => void objective.draw(model, batch, rng).forward(model, { hook: composeHooks(overStacks(model, seen.hook), mask) }));
    tf.dispose([batch.latents, batch.labels]);
    await seen.endBatch();
    await breathe();
  }
  return seen.layers();
}
