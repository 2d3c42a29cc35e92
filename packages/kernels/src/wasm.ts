/**
 * SIMD kernels for tfjs's WASM backend, on its own heap: fused operations with their gradients, and matrix products in
 * place of tfjs's, which are fast only where neither operand is batched or transposed.
 * @packageDocumentation
 */
import { BackendError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';
import { GELU, GELU_GRAD, SILU, SILU_GRAD } from './activation.js';
import { ADAMW } from './adamw-step.js';
import { ATTENTION, ATTENTION_GRAD, SELF_ATTENTION, SELF_ATTENTION_GRAD } from './attention.js';
import { CONV2D, CONV2D_GRAD_INPUT, CONV2D_GRAD_WEIGHT } from './conv2d.js';
import { GATED_ADD, GATED_ADD_GRAD } from './gated-add.js';
import { LINEAR, SUM_ROWS } from './linear.js';
import { GROUP_NORM, GROUP_NORM_GRAD, NORM, NORM_GRAD } from './norm.js';
import { PACKED_LINEAR, UNPACK_WEIGHT } from './packed-linear.js';
import { hasRelaxedSimd } from './relaxed-simd.js';
import { SUM_OF_SQUARES } from './sum-of-squares.js';
import { Call, type Exports, gemmScratch, sizeOf } from './wasm-call.js';

let installed = false;

/** Options of {@link installWasmKernels}. */
export interface InstallWasmKernelsOptions {
  /**
   * Whether products and sums are fused, rounded once, where the processor has that: relaxed SIMD. Results then differ in
   * their last bits from one processor to another. Default: where the engine has it.
   */
  relaxedSimd?: boolean;
}

/**
 * Compiles the kernels and registers them with tfjs. Needs the `wasm` backend to be initialised; calling it again does
 * nothing.
 * @throws BackendError where the engine has no WebAssembly SIMD, or tfjs's backend is not the one these kernels know
 */
export async function installWasmKernels({ relaxedSimd = hasRelaxedSimd() }: InstallWasmKernelsOptions = {}): Promise<void> {
  if (installed) return;
  const backend = tf.findBackend('wasm') as BackendWasm | null;
  const memory = (backend as unknown as { wasm?: { asm?: { memory?: unknown } } } | null)?.wasm?.asm?.memory;
  if (!(memory instanceof WebAssembly.Memory)) throw new BackendError('the WASM kernels need tfjs-backend-wasm 4.22, initialised; its heap was not found. Call useBackend({ prefer: "wasm" }).');
  const { wasmBinary } = await (relaxedSimd ? import('./wasm-binary-relaxed.generated.js') : import('./wasm-binary.generated.js'));
  const bytes = Uint8Array.from(atob(wasmBinary), (c) => c.charCodeAt(0));
  let exports: Exports;
  try {
    const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
    exports = instance.exports as unknown as Exports;
  } catch (cause) {
    throw new BackendError('the WASM kernels did not compile; an engine with WebAssembly SIMD is needed (Node 16.4, Chrome 91, Firefox 89, Safari 16.4 or newer)', { cause });
  }
  for (const [kernelName, kernelFunc] of Object.entries(kernels)) {
    if (tf.getKernel(kernelName, 'wasm') !== undefined) tf.unregisterKernel(kernelName, 'wasm');
    tf.registerKernel({ kernelName, backendName: 'wasm', kernelFunc: ({ inputs, attrs, backend: b }) => kernelFunc(new Call(exports, b as BackendWasm, inputs as Record<string, tf.TensorInfo>, attrs as Record<string, never>)) });
  }
  installed = true;
}

/** A kernel of one input x of any shape. */
const elementwise =
  (name: 'gelu' | 'silu') =>
  (call: Call): tf.TensorInfo => {
    const y = call.output(call.shape('x'));
    call.lib[name]!(call.at('x'), call.at(y), call.size('x'));
    return y;
  };

/** Its gradient, of dy and x. */
const elementwiseGrad =
  (name: 'geluGrad' | 'siluGrad') =>
  (call: Call): tf.TensorInfo => {
    const dx = call.output(call.shape('x'));
    call.lib[name]!(call.at('dy'), call.at('x'), call.at(dx), call.size('x'));
    return dx;
  };

/** Strides of `[N, h, T, d]` by batch, head and row. */
const headStrides = (heads: number, rows: number, d: number): number[] => [heads * rows * d, rows * d, d];

/** Strides inside a packed `[N, T, 3·D]`, and inside `[N, T, D]`. */
const packedStrides = (rows: number, width: number, d: number): number[] => [rows * width, d, width];

function convGeometry(call: Call, x: readonly number[], weight: readonly number[]): { numbers: number[]; columns: number; out: number[] } {
  const [n, h, w, c] = x as [number, number, number, number];
  const [o, , kh, kw] = weight as [number, number, number, number];
  const stride = call.number('stride');
  const [top, bottom, left, right] = call.list('padding') as [number, number, number, number];
  const oh = Math.floor((h + top + bottom - kh) / stride) + 1;
  const ow = Math.floor((w + left + right - kw) / stride) + 1;
  return { numbers: [n, h, w, c, o, kh, kw, stride, top, left, oh, ow], columns: oh * ow * kh * kw * c, out: [n, oh, ow, o] };
}

const kernels: Readonly<Record<string, (call: Call) => tf.TensorInfo | tf.TensorInfo[]>> = {
  BatchMatMul: batchMatMul,
  Identity: shared,
  _FusedMatMul: fusedMatMul,
  [GELU]: elementwise('gelu'),
  [GELU_GRAD]: elementwiseGrad('geluGrad'),
  [SILU]: elementwise('silu'),
  [SILU_GRAD]: elementwiseGrad('siluGrad'),

  [LINEAR]: (call) => {
    const [rows, k] = call.shape('x') as [number, number];
    const [n] = call.shape('weight') as [number];
    const y = call.output([rows, n]);
    const work = call.scratch();
    call.lib['gemm']!(call.at('x'), k, 1, call.at('weight'), k, 1, call.at(y), n, rows, n, k, 0, call.at('bias'), work);
    return y;
  },
  [PACKED_LINEAR]: (call) => {
    const [rows, k] = call.shape('x') as [number, number];
    const [n, rowWords] = call.shape('words') as [number, number];
    const y = call.output([rows, n]);
    const work = call.scratch(3072);
    call.lib['packedGemm']!(call.at('x'), call.at('words'), rowWords, call.number('bits'), call.at('scale'), call.at(y), rows, n, k, call.at('bias'), work);
    return y;
  },
  [UNPACK_WEIGHT]: (call) => {
    const [rows, rowWords] = call.shape('words') as [number, number];
    const k = call.number('inFeatures');
    const weight = call.output([rows, k]);
    call.lib['expandRows']!(call.at('words'), rowWords, call.number('bits'), call.at('scale'), call.at(weight), rows, k);
    return weight;
  },
  [SUM_ROWS]: (call) => {
    const [rows, n] = call.shape('x') as [number, number];
    const y = call.output([n]);
    call.lib['sumRows']!(call.at('x'), call.at(y), rows, n);
    return y;
  },
  [ATTENTION]: (call) => {
    const [n, h, t, d] = call.shape('q') as [number, number, number, number];
    const s = call.shape('k')[2]!;
    const o = call.output([n, h, t, d]);
    const work = call.scratch(t * s + 4);
    call.lib['attention']!(call.at('q'), call.at('k'), call.at('v'), call.at(o), n, h, t, s, d, ...headStrides(h, t, d), ...headStrides(h, s, d), ...headStrides(h, t, d), call.number('scale'), work);
    return o;
  },
  [ATTENTION_GRAD]: (call) => {
    const [n, h, t, d] = call.shape('q') as [number, number, number, number];
    const s = call.shape('k')[2]!;
    const [dq, dk, dv] = [call.output([n, h, t, d]), call.output([n, h, s, d]), call.output([n, h, s, d])];
    const work = call.scratch(2 * t * s + 4);
    call.lib['attentionGrad']!(call.at('dy'), call.at('q'), call.at('k'), call.at('v'), call.at(dq), call.at(dk), call.at(dv), n, h, t, s, d, ...headStrides(h, t, d), ...headStrides(h, s, d), ...headStrides(h, t, d), call.number('scale'), work);
    return [dq, dk, dv];
  },
  [SELF_ATTENTION]: (call) => {
    const [n, t, width] = call.shape('qkv') as [number, number, number];
    const h = call.number('numHeads');
    const dim = width / 3;
    const d = dim / h;
    const o = call.output([n, t, dim]);
    const work = call.scratch(t * t + 4);
    const q = call.at('qkv');
    call.lib['attention']!(q, q + 4 * dim, q + 8 * dim, call.at(o), n, h, t, t, d, ...packedStrides(t, width, d), ...packedStrides(t, width, d), ...packedStrides(t, dim, d), 1 / Math.sqrt(d), work);
    return o;
  },
  [SELF_ATTENTION_GRAD]: (call) => {
    const [n, t, width] = call.shape('qkv') as [number, number, number];
    const h = call.number('numHeads');
    const dim = width / 3;
    const d = dim / h;
    const dqkv = call.output([n, t, width]);
    const work = call.scratch(2 * t * t + 4);
    const q = call.at('qkv');
    const to = call.at(dqkv);
    call.lib['attentionGrad']!(call.at('dy'), q, q + 4 * dim, q + 8 * dim, to, to + 4 * dim, to + 8 * dim, n, h, t, t, d, ...packedStrides(t, width, d), ...packedStrides(t, width, d), ...packedStrides(t, dim, d), 1 / Math.sqrt(d), work);
    return dqkv;
  },
  [NORM]: (call) => {
    const [rows, d] = call.shape('x') as [number, number];
    const groups = (call.inputs['gain'] ?? call.inputs['shift'])?.shape[0] ?? 1;
    const y = call.output([rows, d]);
    call.lib['norm']!(call.at('x'), call.at('gain'), call.at('shift'), call.at(y), rows, rows / groups, d, call.number('one'), call.number('epsilon'));
    return y;
  },
  [NORM_GRAD]: (call) => {
    const [rows, d] = call.shape('x') as [number, number];
    const groups = call.inputs['gain']?.shape[0] ?? 1;
    const [dx, dGain, dShift] = [call.output([rows, d]), call.output([groups, d]), call.output([groups, d])];
    call.lib['normGrad']!(call.at('dy'), call.at('x'), call.at('gain'), call.at(dx), call.at(dGain), call.at(dShift), rows, rows / groups, d, call.number('one'), call.number('epsilon'));
    return [dx, dGain, dShift];
  },
  [GROUP_NORM]: (call) => {
    const [n, h, w, c] = call.shape('x') as [number, number, number, number];
    const y = call.output([n, h, w, c]);
    const work = call.scratch(2 * c);
    call.lib['groupNorm']!(call.at('x'), call.at('weight'), call.at('bias'), call.at(y), n, h * w, c, call.number('groups'), call.number('epsilon'), work);
    return y;
  },
  [GROUP_NORM_GRAD]: (call) => {
    const [n, h, w, c] = call.shape('x') as [number, number, number, number];
    const [dx, dWeight, dBias] = [call.output([n, h, w, c]), call.output([c]), call.output([c])];
    const work = call.scratch(4 * c);
    call.lib['groupNormGrad']!(call.at('dy'), call.at('x'), call.at('weight'), call.at(dx), call.at(dWeight), call.at(dBias), n, h * w, c, call.number('groups'), call.number('epsilon'), work);
    return [dx, dWeight, dBias];
  },
  [GATED_ADD]: (call) => {
    const [n, t, d] = call.shape('x') as [number, number, number];
    const out = call.output([n, t, d]);
    call.lib['gatedAdd']!(call.at('x'), call.at('gate'), call.at('y'), call.at(out), n, t, d);
    return out;
  },
  [GATED_ADD_GRAD]: (call) => {
    const [n, t, d] = call.shape('y') as [number, number, number];
    const [dGate, dBranch] = [call.output([n, d]), call.output([n, t, d])];
    call.lib['gatedAddGrad']!(call.at('dy'), call.at('gate'), call.at('y'), call.at(dGate), call.at(dBranch), n, t, d);
    return [dGate, dBranch];
  },
  [CONV2D]: (call) => {
    const weight = call.shape('weight') as [number, number, number, number];
    const { numbers, columns, out } = convGeometry(call, call.shape('x'), weight);
    const y = call.output(out);
    const work = call.scratch(columns + 8 + call.size('weight'));
    const taps = work + ((columns * 4 + gemmScratch(call.lib) + 15) & ~15);
    call.lib['swapTaps']!(call.at('weight'), taps, weight[0], weight[1], weight[2] * weight[3]);
    call.lib['conv2d']!(call.at('x'), taps, call.at('bias'), call.at(y), ...numbers, work);
    return y;
  },
  [CONV2D_GRAD_INPUT]: (call) => {
    const weight = call.shape('weight') as [number, number, number, number];
    const shape = call.list('shape');
    const { numbers, columns } = convGeometry(call, shape, weight);
    const dx = call.output(shape);
    const work = call.scratch(columns + 8 + call.size('weight'));
    const taps = work + ((columns * 4 + gemmScratch(call.lib) + 15) & ~15);
    call.lib['swapTaps']!(call.at('weight'), taps, weight[0], weight[1], weight[2] * weight[3]);
    call.lib['conv2dGradInput']!(call.at('dy'), taps, call.at(dx), ...numbers, work);
    return dx;
  },
  [CONV2D_GRAD_WEIGHT]: (call) => {
    const shape = call.list('shape') as [number, number, number, number];
    const { numbers, columns } = convGeometry(call, call.shape('x'), shape);
    const dWeight = call.output(shape);
    const work = call.scratch(columns + 8 + sizeOf(shape));
    const taps = work + ((columns * 4 + gemmScratch(call.lib) + 15) & ~15);
    call.lib['conv2dGradWeight']!(call.at('dy'), call.at('x'), taps, ...numbers, work);
    call.lib['swapTaps']!(taps, call.at(dWeight), shape[0], shape[2] * shape[3], shape[1]);
    return dWeight;
  },
  [ADAMW]: (call) => {
    const shape = call.shape('parameter');
    const outputs = ['parameter', 'm', 'v'].map(() => call.output(shape));
    const numbers = ['beta1', 'beta2', 'epsilon', 'decay', 'rate', 'root', 'gradientScale'].map((name) => call.number(name));
    call.lib['adamw']!(...['parameter', 'gradient', 'm', 'v'].map((name) => call.at(name)), ...outputs.map((o) => call.at(o)), call.size('parameter'), ...numbers);
    return outputs;
  },
  [SUM_OF_SQUARES]: (call) => {
    const out = call.output([]);
    const total = call.lib['sumOfSquares']!(call.at('x'), call.size('x'));
    call.backend.typedArrayFromHeap(out)[0] = total;
    return out;
  },
};

/** The same values once more, as a clone has them: tensors do not change, so nothing is copied. */
function shared(call: Call): tf.TensorInfo {
  const { dataId, shape, dtype } = call.input('x');
  call.backend.incRef(dataId);
  return { dataId, shape, dtype };
}

/** `tf.matMul`: any batch, broadcast where one side's batch is 1 or absent, either operand transposed. */
function batchMatMul(call: Call): tf.TensorInfo {
  const a = call.shape('a');
  const b = call.shape('b');
  const transposeA = call.number('transposeA') ? 1 : 0;
  const transposeB = call.number('transposeB') ? 1 : 0;
  if (call.input('a').dtype !== 'float32' || call.input('b').dtype !== 'float32') throw new BackendError(`matMul on wasm multiplies float32 tensors, got ${call.input('a').dtype} and ${call.input('b').dtype}`);
  const [m, k] = (transposeA ? [a.at(-1), a.at(-2)] : [a.at(-2), a.at(-1)]) as [number, number];
  const n = transposeB ? b.at(-2)! : b.at(-1)!;
  const outer = broadcast(a.slice(0, -2), b.slice(0, -2));
  const out = call.output([...outer, m, n]);
  const work = call.scratch();
  const [batchA, batchB, batch] = [sizeOf(a.slice(0, -2)), sizeOf(b.slice(0, -2)), sizeOf(outer)];
  const multiply = (count: number, atA: number, strideA: number, atB: number, strideB: number, to: number): void => {
    call.lib['batchedGemm']!(count, atA, strideA, transposeA, atB, strideB, transposeB, to, m, n, k, work);
  };
  const [pA, pB, pOut] = [call.at('a'), call.at('b'), call.at(out)];
  if ((batchA === batch || batchA === 1) && (batchB === batch || batchB === 1)) multiply(batch, pA, batchA === 1 ? 0 : m * k, pB, batchB === 1 ? 0 : k * n, pOut);
  else {
    const indexA = broadcastIndex(a.slice(0, -2), outer);
    const indexB = broadcastIndex(b.slice(0, -2), outer);
    for (let i = 0; i < batch; i++) multiply(1, pA + 4 * m * k * indexA(i), 0, pB + 4 * k * n * indexB(i), 0, pOut + 4 * m * n * i);
  }
  return out;
}

/** `tf.fused.matMul`; tfjs's own kernel is wrong off its fast path. */
function fusedMatMul(call: Call): tf.TensorInfo {
  const { bias, preluActivationWeights } = call.inputs as Record<string, tf.Tensor | undefined>;
  const activation = call.attributes['activation'] as unknown as string;
  return tf.tidy(() => {
    let y: tf.Tensor = tf.matMul(call.inputs['a'] as tf.Tensor, call.inputs['b'] as tf.Tensor, Boolean(call.number('transposeA')), Boolean(call.number('transposeB')));
    if (bias !== undefined) y = tf.add(y, bias);
    if (activation === 'relu') return tf.relu(y);
    if (activation === 'relu6') return tf.relu6(y);
    if (activation === 'elu') return tf.elu(y);
    if (activation === 'sigmoid') return tf.sigmoid(y);
    if (activation === 'leakyrelu') return tf.leakyRelu(y, call.number('leakyreluAlpha'));
    if (activation === 'prelu' && preluActivationWeights !== undefined) return tf.prelu(y, preluActivationWeights);
    if (activation === 'linear') return y;
    throw new BackendError(`fused.matMul has no activation ${JSON.stringify(activation)} on wasm`);
  });
}

function broadcast(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new BackendError(`matMul cannot broadcast the batches [${a.join(', ')}] and [${b.join(', ')}]`);
    return Math.max(x, y);
  });
}

/** From the flat index in `to` to the flat index in `from`, which is broadcast to it. */
function broadcastIndex(from: readonly number[], to: readonly number[]): (index: number) => number {
  return (index) => {
    let at = 0;
    let stride = 1;
    let left = index;
    for (let i = to.length - 1; i >= 0; i--) {
      const size = from[from.length - to.length + i] ?? 1;
      if (size > 1) at += (left % to[i]!) * stride;
      stride *= size;
      left = Math.floor(left / to[i]!);
    }
    return at;
  };
}
