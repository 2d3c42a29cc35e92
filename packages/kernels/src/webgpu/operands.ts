// What a product multiplies: plain matrices, packed weights, patches of images. Each gives four neighbours at a time.
import type * as tf from '@tensorflow/tfjs-core';
import { PACKED_GROUP as GROUP } from '../packed-linear.js';
import type { Bindings } from './bindings.js';
import type { Gpu } from './gpu.js';

/**
 * One side of a product. Along one of its two axes, the inner one, values are neighbours; the other is the outer one.
 * Either may be the axis that is summed over.
 */
export interface Operand {
  /** Whether the inner axis is the one that is summed over. */
  readonly summedInside: boolean;
  /** Whether its values are float16, so that it may be multiplied as such. */
  readonly half?: boolean;
  /** Tensors to be held. */
  readonly tensors: readonly tf.TensorInfo[];
  /**
   * Binds the tensors.
   * @param prefix begins the names of numbers and of the function
   */
  bind(gpu: Gpu, bindings: Bindings, prefix: string): BoundOperand;
}

/** An {@link Operand} in a shader. */
export interface BoundOperand {
  variant: string;
  numbers: Record<string, number>;
  /** WGSL of `<prefix>(batch, outer, inner) -> vec4f`, four values along the inner axis, zeros beyond its end. */
  code(): string;
}

/** A matrix in row-major order, or a batch of them. */
export interface MatrixOptions {
  outer: number;
  inner: number;
  summedInside: boolean;
  /** From one matrix of a batch to the next; 0 where all are one. Default 0. */
  batchStride?: number;
  /** Applied to each value. Default: nothing. */
  activation?: 'silu' | undefined;
}

export function matrix(info: tf.TensorInfo, { outer, inner, summedInside, batchStride = 0, activation }: MatrixOptions): Operand {
  return {
    summedInside,
    tensors: [info],
    bind: (gpu, bindings, prefix) => {
      const vec4 = inner % 4 === 0;
      const name = bindings.read(gpu.buffer(info), { vec4 });
      return {
        variant: `${name}${summedInside ? 'k' : 'o'}${activation ?? ''}`,
        numbers: { [`${prefix}Outer`]: outer, [`${prefix}Inner`]: inner, [`${prefix}Batch`]: batchStride },
        code: () => `
fn ${prefix}(batch : u32, outer : u32, inner : u32) -> vec4f {
  if (outer >= u.${prefix}Outer || inner >= u.${prefix}Inner) { return vec4f(); }
  let v = get_${name}(batch * u.${prefix}Batch + outer * u.${prefix}Inner + inner, u.${prefix}Inner - inner);
  return ${activation === 'silu' ? 'silu4(v)' : 'v'};
}`,
      };
    },
  };
}

/** Bits of a packed value: float16, or two's complement with a scale. */
export type PackedBits = 4 | 8 | 16;

/** A packed weight `[O, I]`, summed over I: int32 words `[O, W]`, low bits first; `scale` `[O]` for 8 bits, `[O, ⌈I/32⌉]` for 4. */
export function packedMatrix(words: tf.TensorInfo, scale: tf.TensorInfo | undefined, { bits, outer, inner }: { bits: PackedBits; outer: number; inner: number }): Operand {
  return {
    summedInside: true,
    half: bits === 16,
    tensors: scale === undefined ? [words] : [words, scale],
    bind: (gpu, bindings, prefix) => {
      const name = bindings.read(gpu.integers(words), { type: 'u32' });
      const scales = scale === undefined ? '' : bindings.read(gpu.buffer(scale));
      return {
        variant: `${name}p${bits}${scales}`,
        numbers: { [`${prefix}Outer`]: outer, [`${prefix}Inner`]: inner, [`${prefix}Words`]: words.shape[1]! },
        code: () => `
fn ${prefix}(batch : u32, outer : u32, inner : u32) -> vec4f {
  if (outer >= u.${prefix}Outer || inner >= u.${prefix}Inner) { return vec4f(); }
  let at = outer * u.${prefix}Words + inner / ${32 / bits}u;
  ${decodeFour(bits, name, `u.${prefix}Words - inner / ${32 / bits}u`)}
  ${bits === 8 ? `v *= ${scales}[outer];` : ''}${bits === 4 ? `v *= ${scales}[outer * ((u.${prefix}Inner + ${GROUP - 1}u) / ${GROUP}u) + inner / ${GROUP}u];` : ''}
  return select(vec4f(), v, vec4u(inner, inner + 1u, inner + 2u, inner + 3u) < vec4u(u.${prefix}Inner));
}`,
      };
    },
  };
}

/** `v`, four values that begin at `inner`, a multiple of four, in the word `at`. */
function decodeFour(bits: PackedBits, name: string, left: string): string {
  if (bits === 16) return `let low = unpack2x16float(${name}[at]); var high = vec2f(); if (${left} > 1u) { high = unpack2x16float(${name}[at + 1u]); } var v = vec4f(low, high);`;
  const shifts = [0, 1, 2, 3].map((i) => 32 - bits * (i + 1)).map((left4) => (bits === 8 ? `${left4}u` : `${left4}u - 4u * (inner & 4u)`));
  return `var v = vec4f((bitcast<vec4i>(vec4u(${name}[at])) << vec4u(${shifts.join(', ')})) >> vec4u(${32 - bits}u));`;
}
