import { ArgumentError, type Rng } from '@tinyfusion/core';
import type { PackedDtype } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** Values of a fresh parameter. */
export type Initialiser = (shape: readonly number[], rng: Rng) => Float32Array;

/** Zeros that a checkpoint will fill, with the weights of linear layers held packed; such weights are never trained. */
export interface PackedInit {
  packed: PackedDtype;
}

/** Where a module's first values come from: drawn, or zeros because a checkpoint will fill them. */
export type Init = Rng | 'zeros' | PackedInit;

/** Whether no values are drawn. @throws ArgumentError where it is nothing that first values come from */
export function isBlank(init: Init): init is 'zeros' | PackedInit {
  if (init === 'zeros') return true;
  const given = (typeof init === 'object' ? init : null) as Partial<PackedInit & Rng> | null;
  if (given?.packed !== undefined && ['F16', 'I8', 'I4'].includes(given.packed)) return true;
  if (given?.packed === undefined && typeof given?.normal === 'function') return false;
  throw new ArgumentError('init', init, "an Rng, e.g. createRng(0); 'zeros' where a checkpoint follows; or { packed: 'F16' }, 'I8' or 'I4'. Randomness is always passed in");
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** (fan in, fan out) as PyTorch counts them: `[out, in, ...receptive field]`. */
function fans(shape: readonly number[]): [number, number] {
  const [out = 1, inputs = 1, ...field] = shape;
  return [inputs * sizeOf(field), out * sizeOf(field)];
}

const scaled = (values: Float32Array, scale: number, shift = 0): Float32Array => values.map((v) => v * scale + shift);

/** All zeros. */
export const zeros: Initialiser = (shape) => new Float32Array(sizeOf(shape));

/** All ones. */
export const ones: Initialiser = (shape) => new Float32Array(sizeOf(shape)).fill(1);

/** N(0, deviation²). */
export const normal =
  (deviation: number): Initialiser =>
  (shape, rng) =>
    scaled(rng.normal(sizeOf(shape)), deviation);

/** U(−a, a). */
export const uniform =
  (a: number): Initialiser =>
  (shape, rng) =>
    scaled(rng.uniform(sizeOf(shape)), 2 * a, -a);

/** U(−a, a) with a = √(6 / (fan in + fan out)) (Glorot & Bengio 2010), `xavier_uniform_`. Convolutions count as flattened. */
export const xavierUniform: Initialiser = (shape, rng) => {
  const out = shape[0] ?? 1;
  return uniform(Math.sqrt(6 / (out + sizeOf(shape) / out)))(shape, rng);
};

/** U(−a, a) with a = 1/√(fan in): what `torch.nn.Linear` and `torch.nn.Conv2d` start from. */
export const torchDefault: Initialiser = (shape, rng) => uniform(1 / Math.sqrt(fans(shape)[0]))(shape, rng);

/** Options of {@link parameter}. */
export interface ParameterOptions {
  /** Whether optimisers may change it. Default `true`; `false` makes a buffer. */
  trainable?: boolean;
}

/** A new variable of `shape`, drawn by `initialiser` or zero. */
export function parameter(shape: number[], initialiser: Initialiser, init: Init, { trainable = true }: ParameterOptions = {}): tf.Variable {
  const values = isBlank(init) ? zeros(shape, undefined as never) : initialiser(shape, init);
  return tf.tidy(() => tf.variable(tf.tensor(values, shape), trainable));
}

/** `rng`, or an error that says that one is needed. */
export function requireRng(argument: string, rng: Rng | undefined): Rng {
  if (rng === undefined) throw new ArgumentError(argument, rng, 'an Rng, e.g. createRng(0); randomness is always passed in');
  return rng;
}
