import * as tf from '@tensorflow/tfjs-core';
import { parseProgress, progressText } from '../progress-text.js';
import { type TrainingParts, contentsOf } from '../training-state.js';
import type { Collective } from './collective.js';

/** Gives every rank rank 0's values of the variables. */
export async function broadcastParameters(collective: Collective, variables: readonly tf.Variable[]): Promise<void> {
  if (collective.size === 1) return;
  for (const variable of variables) {
    const [value] = await received(collective, [variable]);
    variable.assign(value!);
    value!.dispose();
  }
}

/** Gives every rank rank 0's bytes; the others' are not looked at. */
export async function broadcastBytes(collective: Collective, bytes: Uint8Array | undefined): Promise<Uint8Array> {
  const own = collective.rank === 0 ? bytes! : new Uint8Array();
  if (collective.size === 1) return own;
  const length = Float64Array.of(own.length);
  await collective.broadcast(length);
  const all = collective.rank === 0 ? own : new Uint8Array(length[0]!);
  await collective.broadcast(all);
  return all;
}

/** Gives every rank rank 0's value, plain JSON with numbers of any kind; the others' is not looked at. */
export async function broadcastJson<T>(collective: Collective, value: T): Promise<T> {
  if (collective.size === 1) return value;
  const text = collective.rank === 0 ? new TextEncoder().encode(progressText(value ?? null)) : undefined;
  return parseProgress(new TextDecoder().decode(await broadcastBytes(collective, text))) as T;
}

/**
 * Gives every rank rank 0's state of a run: parameters, moments and averages, to the bit. So only rank 0 has to have the
 * file that a run goes on from.
 */
export async function broadcastTrainingState(collective: Collective, parts: TrainingParts): Promise<void> {
  if (collective.size === 1) return;
  const { parameters, optimizers, ema } = contentsOf(parts);
  const counts = await broadcastJson(collective, { steps: optimizers.map((o) => o.steps), updates: ema?.updates ?? 0 });
  await broadcastParameters(collective, parameters.map(([, parameter]) => parameter));
  for (const [i, optimizer] of optimizers.entries()) {
    const moments = optimizer.moments();
    const [m, v] = [await received(collective, moments.m), await received(collective, moments.v)];
    optimizer.restore({ step: counts.steps[i]!, m, v });
    tf.dispose([...m, ...v]);
  }
  if (ema === undefined) return;
  const averages = await received(collective, ema.averages());
  ema.restore(averages, counts.updates);
  tf.dispose(averages);
}

/** Rank 0's values as new tensors. */
async function received(collective: Collective, tensors: readonly tf.Tensor[]): Promise<tf.Tensor[]> {
  const copies: tf.Tensor[] = [];
  for (const tensor of tensors) {
    const values = collective.rank === 0 ? Float32Array.from(await tensor.data()) : new Float32Array(tensor.size);
    await collective.broadcast(values);
    copies.push(tf.tensor(values, tensor.shape));
  }
  return copies;
}
