import { ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { defineOp } from './op.js';
import { axes } from './shape.js';

/** Kernel name of {@link packedLinear}: inputs x `[rows, I]`, words, scale?, bias?; attributes bits, inFeatures. */
export const PACKED_LINEAR = 'TinyFusionPackedLinear';
/** Kernel name of {@link unpackWeight}: inputs words, scale?; attributes bits, inFeatures. */
export const UNPACK_WEIGHT = 'TinyFusionUnpackWeight';

/** How a weight is held: as float16, as bytes with a scale for each output, or as half bytes with a scale for every 32 inputs of an output. */
export type PackedDtype = 'F16' | 'I8' | 'I4';

/** Inputs that share a scale where a value has four bits. */
export const PACKED_GROUP = 32;

const bitsOf: Readonly<Record<PackedDtype, 4 | 8 | 16>> = { F16: 16, I8: 8, I4: 4 };

/** A weight `[O, I]` that takes a half, a quarter or an eighth of its space. Rows begin at a word, low bits come first. */
export interface PackedWeight {
  dtype: PackedDtype;
  inFeatures: number;
  /** int32 `[O, wordsPerRow(I, dtype)]`. */
  words: tf.Tensor2D;
  /** `[O]` for `'I8'`, `[O, ⌈I/32⌉]` for `'I4'`: a value is its integer, in two's complement, times this. */
  scale?: tf.Tensor | undefined;
}

/** Words of a row of `inFeatures` values. */
export function wordsPerRow(inFeatures: number, dtype: PackedDtype): number {
  return Math.ceil((inFeatures * bitsOf[dtype]) / 32);
}

/** Shape of the scales of a weight; `undefined` where it has none. */
export function scaleShape(outFeatures: number, inFeatures: number, dtype: PackedDtype): number[] | undefined {
  return dtype === 'F16' ? undefined : dtype === 'I8' ? [outFeatures] : [outFeatures, Math.ceil(inFeatures / PACKED_GROUP)];
}

type UnpackInputs = { words: tf.Tensor2D; scale: tf.Tensor | undefined };
type Packing = { bits: number; inFeatures: number };

const unpackOp = defineOp<UnpackInputs, Packing, tf.Tensor2D>({
  name: UNPACK_WEIGHT,
  reference: ({ words, scale }, { bits, inFeatures }) => {
    const rows = words.shape[0];
    const values = bits === 16 ? halves(words) : bits === 8 ? bytes(words) : nibbles(words);
    const own = tf.slice(values, [0, 0], [rows, inFeatures]) as tf.Tensor2D;
    if (scale === undefined) return own;
    if (bits === 8) return tf.mul(own, tf.reshape(scale, [rows, 1]));
    const groups = scale.shape[1]!;
    const each = tf.reshape(tf.tile(tf.reshape(scale, [rows, groups, 1]), [1, 1, PACKED_GROUP]), [rows, groups * PACKED_GROUP]);
    return tf.mul(own, tf.slice(each, [0, 0], [rows, inFeatures]));
  },
  gradient: () => ({}),
  integers: ['words'],
});

const packedLinearOp = defineOp<UnpackInputs & { x: tf.Tensor2D; bias: tf.Tensor1D | undefined }, Packing, tf.Tensor>({
  name: PACKED_LINEAR,
  reference: ({ x, words, scale, bias }, packing) => {
    const y = tf.matMul(x, unpackOp({ words, scale }, packing), false, true);
    return bias === undefined ? y : tf.add(y, bias);
  },
  gradient: (run, dy, { words, scale }, packing) => ({
    x: () => tf.tidy(() => tf.matMul(dy, run(UNPACK_WEIGHT, { words, scale }, packing)[0]!)),
    bias: () => tf.sum(dy, 0),
  }),
  integers: ['words'],
});

/**
 * y = x Wᵀ + b over the last axis with a packed weight, which is expanded inside the product. Differentiable by `x` and
 * `bias`; the weight is fixed.
 *
 * @param x `[..., I]`
 * @param bias `[O]`
 * @returns `[..., O]`
 * @throws ShapeError where sizes do not agree
 */
export function packedLinear(x: tf.Tensor, weight: PackedWeight, bias?: tf.Tensor1D): tf.Tensor {
  const { words, scale, inFeatures } = weight;
  const rows = checked(weight);
  if (x.rank < 1 || x.shape.at(-1) !== inFeatures) throw new ShapeError('packedLinear: x', x.shape, `..., I=${inFeatures}`);
  if (bias !== undefined) axes('packedLinear: bias', bias, 'O', { O: rows });
  return tf.tidy(() => tf.reshape(packedLinearOp({ x: tf.reshape(x, [-1, inFeatures]), words, scale, bias }, packingOf(weight)), [...x.shape.slice(0, -1), rows]));
}

/** The weight as float32, `[O, I]`: exactly what {@link packedLinear} multiplies with. @throws ShapeError as it does */
export function unpackWeight(weight: PackedWeight): tf.Tensor2D {
  checked(weight);
  return unpackOp({ words: weight.words, scale: weight.scale }, packingOf(weight));
}

function packingOf({ dtype, inFeatures }: PackedWeight): Packing {
  return { bits: bitsOf[dtype], inFeatures };
}

/** Number of outputs. */
function checked({ words, scale, dtype, inFeatures }: PackedWeight): number {
  const { O } = axes('packed weight: words', words, 'O W', { W: wordsPerRow(inFeatures, dtype) });
  const expected = scaleShape(O, inFeatures, dtype);
  if (words.dtype !== 'int32' || String(scale?.shape) !== String(expected)) throw new ShapeError(`packed weight ${dtype}: words of ${words.dtype}, ${scale === undefined ? 'no scale' : `a scale of [${scale.shape.join(', ')}]`}`, words.shape, `int32 words and ${expected === undefined ? 'no scale' : `a scale of [${expected.join(', ')}]`}`);
  return O;
}

/** [q, r] with x = q · by + r and 0 ≤ r < by. */
function divided(x: tf.Tensor, by: number): [tf.Tensor, tf.Tensor] {
  const q = tf.floorDiv(x, tf.scalar(by, 'int32'));
  return [q, tf.sub(x, tf.mul(q, tf.scalar(by, 'int32')))];
}

/** Parts of each word side by side, low ones first: `[O, W]`s to `[O, W · parts]`. */
function sideBySide(parts: tf.Tensor[]): tf.Tensor2D {
  const [rows, words] = parts[0]!.shape as [number, number];
  return tf.reshape(tf.stack(parts, 2), [rows, words * parts.length]);
}

function halves(words: tf.Tensor2D): tf.Tensor2D {
  const [high, low] = divided(words, 65536);
  const u = tf.cast(sideBySide([low, high]), 'float32');
  const bits = tf.where(tf.less(u, 0), tf.add(u, 65536), u); // 0 … 65535
  const negative = tf.cast(tf.greaterEqual(bits, 32768), 'float32');
  const magnitude = tf.sub(bits, tf.mul(negative, 32768));
  const exponent = tf.floor(tf.div(magnitude, 1024));
  const fraction = tf.sub(magnitude, tf.mul(exponent, 1024));
  const normal = tf.mul(tf.add(fraction, 1024), tf.pow(tf.scalar(2), tf.sub(exponent, 25)));
  const value = tf.where(tf.equal(exponent, 0), tf.mul(fraction, 2 ** -24), normal);
  return tf.mul(value, tf.sub(1, tf.mul(negative, 2))) as tf.Tensor2D;
}

function bytes(words: tf.Tensor2D): tf.Tensor2D {
  const [b3, low24] = divided(words, 2 ** 24);
  const [b2, low16] = divided(low24, 2 ** 16);
  const [b1, b0] = divided(low16, 2 ** 8);
  const u = tf.cast(sideBySide([b0, b1, b2, b3]), 'float32');
  return tf.where(tf.greaterEqual(u, 128), tf.sub(u, 256), u) as tf.Tensor2D;
}

function nibbles(words: tf.Tensor2D): tf.Tensor2D {
  const parts: tf.Tensor[] = [];
  let rest: tf.Tensor = words;
  for (let i = 0; i < 7; i++) {
    const [q, r] = divided(rest, 16);
    parts.push(r);
    rest = q;
  }
  // the last has the word's sign already
  const u = tf.cast(sideBySide([...parts, rest]), 'float32');
  return tf.where(tf.greaterEqual(u, 8), tf.sub(u, 16), u) as tf.Tensor2D;
}
