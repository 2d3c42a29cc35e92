import { createRng } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import type { BlockHook, HookOptions } from '@tinyfusion/nn';
import { calibrationLoss, measureBlocks } from '@tinyfusion/pruning';
import { type LatentBatch, type Prunable, breathe, depthOf, encodeDataset, objectiveOf } from '@tinyfusion/recipes';
import { throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { BlockCosts } from '../protocol';
import type { Context } from './server';
import { session } from './session';
import { overStacks } from './stacks';

/** Batches that a choice's loss is measured on, and their size. */
const BATCHES = 2;
const SIZE = 32;

let calibration: { batches: LatentBatch[]; losses: Map<string, number>; of: Prunable } | undefined;

/** The same few batches for every choice of one model. */
async function calibrating(signal: AbortSignal): Promise<NonNullable<typeof calibration>> {
  const { model } = session.teacher;
  if (calibration?.of === model) return calibration;
  const data = await encodeDataset(firstImages(await session.images(), BATCHES * SIZE), await session.embeddedAutoencoder(), { signal });
  const drawn = data.batches(SIZE, createRng(0));
  for (const { latents, labels } of calibration?.batches ?? []) tf.dispose([latents, labels]);
  calibration = { batches: Array.from({ length: BATCHES }, () => drawn.next()), losses: new Map(), of: model };
  return calibration;
}

/** The training loss of the recovered student, on the same draws as all. */
export async function studentLoss(_: object, { signal }: Pick<Context<never>, 'signal'>): Promise<number | undefined> {
  const { batches } = await calibrating(signal);
  return session.recovered === undefined ? undefined : meanLoss(session.recovered.model, undefined, batches, signal);
}

async function meanLoss(model: Prunable, hook: BlockHook | undefined, batches: readonly LatentBatch[], signal: AbortSignal): Promise<number> {
  const objective = objectiveOf(model);
  let sum = 0;
  for (const [i, batch] of batches.entries()) {
    throwIfCancelled(signal, 'calibration loss');
    const mean = tf.tidy(() => {
      const drawn = objective.draw(model, batch, createRng(i));
      return tf.mean(drawn.terms(drawn.forward(model, { hook })).loss);
    });
    sum += (await mean.data())[0]!;
    mean.dispose();
    await breathe();
  }
  return sum / batches.length;
}

/** The training loss of the teacher with only `kept` blocks, on the same draws for every choice. */
export async function lossOf({ kept }: { kept: readonly number[] }, { signal }: Pick<Context<never>, 'signal'>): Promise<number> {
  const { batches, losses } = await calibrating(signal);
  const { model } = session.teacher;
  const known = losses.get(String(kept));
  if (known !== undefined) return known;
  const loss = await calibrationLoss(depthOf(model), kept, (hook) => meanLoss(model, overStacks(model, hook), batches, signal));
  losses.set(String(kept), loss);
  return loss;
}

/** What each block takes, and what leaving it out alone costs. */
export async function blockCosts(_: object, { signal }: Context<never>): Promise<BlockCosts> {
  const { model } = session.teacher;
  const depth = depthOf(model);
  const { blocks: times, rest } = await measureBlocks(depth, forwardPass(model), { repeats: 3, copies: 2, signal });
  if (!session.fitsData) return { times, rest, alone: [], loss: undefined };
  const all = Array.from({ length: depth }, (_, i) => i);
  const loss = await lossOf({ kept: all }, { signal });
  const alone: number[] = [];
  for (const block of all) alone.push(await lossOf({ kept: all.filter((i) => i !== block) }, { signal }));
  return { times, rest, alone, loss };
}

/** A pass of the model over noise as in training, with indices over all stacks. */
function forwardPass(model: Prunable): (hooks: HookOptions) => tf.Tensor {
  const { inputSize, inChannels } = model.config;
  const size = inputSize > 8 ? 1 : 16;
  const values = createRng(0).normal(size * inputSize ** 2 * inChannels);
  return ({ hook }) =>
    tf.tidy(() => {
      const batch = { latents: tf.tensor4d(values, [size, inputSize, inputSize, inChannels]), labels: tf.zeros([size], 'int32') as tf.Tensor1D };
      return objectiveOf(model).draw(model, batch, createRng(0)).forward(model, { hook: overStacks(model, hook!) });
    });
}
