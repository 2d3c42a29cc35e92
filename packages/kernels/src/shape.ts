import { ShapeError } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';

type Axes<S extends string> = S extends '' ? [] : S extends `${infer Head} ${infer Tail}` ? [Head, ...Axes<Tail>] : [S];
type RankOf<N extends number> = N extends 0 ? tf.Rank.R0 : N extends 1 ? tf.Rank.R1 : N extends 2 ? tf.Rank.R2 : N extends 3 ? tf.Rank.R3 : N extends 4 ? tf.Rank.R4 : tf.Rank;

/** A float tensor whose axes are named in order: `Float<'N T D'>` is rank 3. */
export type Float<S extends string> = tf.Tensor<RankOf<Axes<S>['length']>>;

/**
 * Checks a tensor against named axes and returns their sizes. Sizes that are in `known` must agree.
 *
 * @param argument what the tensor is, for the message: `'DiT.forward: x'`
 * @throws ShapeError
 */
export function axes<S extends string>(argument: string, tensor: tf.Tensor, names: S, known: Partial<Record<string, number>> = {}): Record<Axes<S>[number] & string, number> {
  const list = names.split(' ');
  const fits = list.length === tensor.rank && list.every((name, i) => (known[name] ?? tensor.shape[i]) === tensor.shape[i]);
  if (!fits) throw new ShapeError(argument, tensor.shape, list.map((name) => (known[name] === undefined ? name : `${name}=${known[name]}`)).join(', '));
  return Object.fromEntries(list.map((name, i) => [name, tensor.shape[i]!])) as Record<Axes<S>[number] & string, number>;
}
