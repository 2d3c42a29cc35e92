import * as tf from '@tensorflow/tfjs-core';
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

/** Gives every rank rank 0's value, as plain JSON; the others' is not looked at. */
export async function broadcastJson<T>(collective: Collective, value: T): Promise<T> {
  if (collective.size === 1) return value;
  const text = new TextEncoder().encode(collective.rank === 0 ? JSON.stringify(value ?? null) : '');
  const length = Float64Array.of(text.length);
  await collective.broadcast(length);
  const bytes = collective.rank === 0 ? text : new Uint8Array(length[0]!);
  await collective.broadcast(bytes);
  return JSON.parse(new TextDecoder().decode(bytes)) as T;
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
