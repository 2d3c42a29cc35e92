import { ArgumentError } from '@tinyfusion/core';
import type { Attention, Mlp } from '@tinyfusion/models';
import type { Conv2d, Embedding, GroupNorm, LayerNorm, Linear } from '@tinyfusion/nn';
import type { Arrange, GraphBuilder, Value } from './graph-builder.js';

/** x Wᵀ + b over the last axis; the weight is stored `[in, out]`, as `MatMul` takes it. */
export function linear(g: GraphBuilder, layer: Linear, x: Value): Value {
  // an adapter is a Linear whose forward does more than its weight says, until it is merged
  if (!layer.plain) throw new ArgumentError(`exportOnnx: ${g.pathOf(layer)}`, layer.constructor.name, layer.unstorable ?? 'a Linear that computes x Wᵀ + b and nothing else; merge what it adds into its weight first');
  const { inFeatures, outFeatures } = layer;
  const y = g.node('MatMul', [x, g.parameter(layer, 'weight', [inFeatures, outFeatures], { arrange: transposed })]);
  return layer.bias === undefined ? y : g.node('Add', [y, g.parameter(layer, 'bias', [outFeatures])]);
}

/** `[rows, columns]` → `[columns, rows]`, row-major. */
const transposed: Arrange = (values, [rows, columns]) => {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows!; r++) for (let c = 0; c < columns!; c++) out[c * rows! + r] = values[r * columns! + c]!;
  return out;
};

/** Convolution of `[N, C, H, W]`; `pads` are top, left, bottom, right. */
export function conv2d(g: GraphBuilder, layer: Conv2d, x: Value, { stride = 1, pads = [0, 0, 0, 0] }: { stride?: number; pads?: readonly number[] } = {}): Value {
  const shape = layer.weight.shape;
  const inputs = [x, g.parameter(layer, 'weight', shape), ...(layer.bias === undefined ? [] : [g.parameter(layer, 'bias', [shape[0]!])])];
  return g.node('Conv', inputs, { kernel_shape: shape.slice(2), strides: [stride, stride], pads });
}

/** Rows of a table. @param y int32 `[N]` @returns `[N, D]` */
export function embedding(g: GraphBuilder, layer: Embedding, y: Value): Value {
  return g.node('Gather', [g.parameter(layer, 'weight', layer.weight.shape), y], { axis: 0 });
}

/** What statistics and softmax are computed in, whatever the graph's type. */
function inFloat32(g: GraphBuilder, x: Value, compute: (x: Value) => Value): Value {
  return fromFloat32(g, compute(g.dtype === 'F32' ? x : g.node('Cast', [x], { to: 1 })));
}

/** A float32 value in the graph's type. */
export function fromFloat32(g: GraphBuilder, x: Value): Value {
  return g.dtype === 'F32' ? x : g.node('Cast', [x], { to: 10 });
}

/** Layer normalisation over the last axis with weights, in float32. */
export function layerNorm(g: GraphBuilder, layer: LayerNorm, x: Value, epsilon: number): Value {
  const weights = (['weight', 'bias'] as const).map((field) => g.parameter(layer, field, layer.weight.shape, { type: 'F32' }));
  return inFloat32(g, x, (h) => g.node('LayerNormalization', [h, ...weights], { axis: -1, epsilon: { float: epsilon } }));
}

/** Layer normalisation without weights, then x̂ · (1 + scale) + shift, which broadcast. */
export function modulatedNorm(g: GraphBuilder, x: Value, width: number, shift: Value, scale: Value): Value {
  const ones = g.floats(`ones/${width}`, new Float32Array(width).fill(1), [width], 'F32');
  const normed = inFloat32(g, x, (h) => g.node('LayerNormalization', [h, ones], { axis: -1, epsilon: { float: 1e-6 } }));
  return modulated(g, normed, shift, scale);
}

/** x · (1 + scale) + shift */
export function modulated(g: GraphBuilder, x: Value, shift: Value, scale: Value): Value {
  return g.node('Add', [g.node('Mul', [x, g.node('Add', [scale, g.scalar(1)])]), shift]);
}

/** Group normalisation of `[N, C, H, W]` as instance normalisation of `[N, G, C/G·H·W]`, in float32. */
export function groupNorm(g: GraphBuilder, layer: GroupNorm, x: Value, groups: number): Value {
  const width = layer.weight.shape[0]!;
  const ones = g.floats(`ones/${groups}`, new Float32Array(groups).fill(1), [groups], 'F32');
  const zeros = g.floats(`zeros/${groups}`, new Float32Array(groups), [groups], 'F32');
  const grouped = g.node('Reshape', [x, g.integers([0, groups, -1])]);
  const normed = inFloat32(g, grouped, (h) => g.node('InstanceNormalization', [h, ones, zeros], { epsilon: { float: 1e-6 } }));
  const restored = g.node('Reshape', [normed, g.node('Shape', [x])]);
  return g.node('Add', [g.node('Mul', [restored, g.parameter(layer, 'weight', [width, 1, 1])]), g.parameter(layer, 'bias', [width, 1, 1])]);
}

/** x · σ(x) */
export function silu(g: GraphBuilder, x: Value): Value {
  return g.node('Mul', [x, g.node('Sigmoid', [x])]);
}

/** x/2 · (1 + tanh(√(2/π)(x + 0.044715x³))); where float16 overflows in x³ the limits 0 and x come out. */
export function gelu(g: GraphBuilder, x: Value): Value {
  const cubic = g.node('Add', [g.node('Mul', [g.node('Mul', [x, x]), g.scalar(0.044715)]), g.scalar(1)]);
  const inner = g.node('Mul', [g.node('Mul', [x, cubic]), g.scalar(Math.sqrt(2 / Math.PI))]);
  return g.node('Mul', [g.node('Mul', [x, g.scalar(0.5)]), g.node('Add', [g.node('Tanh', [inner]), g.scalar(1)])]);
}

/** x/2 · (1 + erf(x/√2)) */
export function geluExact(g: GraphBuilder, x: Value): Value {
  const erf = g.node('Erf', [g.node('Mul', [x, g.scalar(Math.SQRT1_2)])]);
  return g.node('Mul', [g.node('Mul', [x, g.scalar(0.5)]), g.node('Add', [erf, g.scalar(1)])]);
}

/** softmax(q kᵀ / √d) v; queries are scaled before the product, so that float16 scores stay small. @param kT `[…, d, S]` */
export function attention(g: GraphBuilder, q: Value, kT: Value, v: Value, d: number): Value {
  const scores = g.node('MatMul', [g.node('Mul', [q, g.scalar(1 / Math.sqrt(d))]), kT]);
  return g.node('MatMul', [inFloat32(g, scores, (s) => g.node('Softmax', [s], { axis: -1 })), v]);
}

/** Multi-head self-attention with its two projections. @param x `[N, T, D]` */
export function selfAttention(g: GraphBuilder, layer: Attention, x: Value): Value {
  const { numHeads, qkv } = layer;
  const width = qkv.outFeatures / 3;
  const d = width / numHeads;
  const [q, k, v] = g.nodeOf(3, 'Split', [linear(g, qkv, x)], { axis: 2 }) as [Value, Value, Value];
  const heads = (part: Value, perm: readonly number[]) => g.node('Transpose', [g.node('Reshape', [part, g.integers([0, 0, numHeads, d])])], { perm });
  const mixed = attention(g, heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]), heads(v, [0, 2, 1, 3]), d);
  const joined = g.node('Reshape', [g.node('Transpose', [mixed], { perm: [0, 2, 1, 3] }), g.integers([0, 0, width])]);
  return linear(g, layer.proj, joined);
}

/** Two linear layers with an activation between them. */
export function mlp(g: GraphBuilder, { fc1, fc2 }: Mlp, x: Value, activation: (g: GraphBuilder, x: Value) => Value): Value {
  return linear(g, fc2, activation(g, linear(g, fc1, x)));
}

/** Some axes of size 1 more. */
export function unsqueeze(g: GraphBuilder, x: Value, axes: readonly number[]): Value {
  return g.node('Unsqueeze', [x, g.integers(axes)]);
}
