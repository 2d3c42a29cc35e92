/**
 * WGSL kernels for tfjs's WebGPU backend, with their gradients, and tfjs's own kernels for which ours stand in.
 * @packageDocumentation
 */
import { invariant } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { GELU, GELU_GRAD, SILU, SILU_GRAD } from '../activation.js';
import { ADAMW, ADAMW_AVERAGE } from '../adamw-step.js';
import { ATTENTION, ATTENTION_GRAD, SELF_ATTENTION, SELF_ATTENTION_GRAD } from '../attention.js';
import { GATED_ADD, GATED_ADD_GRAD } from '../gated-add.js';
import { LINEAR, SUM_ROWS } from '../linear.js';
import { GROUP_NORM, GROUP_NORM_GRAD, NORM, NORM_GRAD } from '../norm.js';
import { PACKED_LINEAR, UNPACK_WEIGHT } from '../packed-linear.js';
import { PHILOX_NORMAL } from '../philox-normal.js';
import { SINE_COSINE } from '../precise.js';
import { SUM_OF_SQUARES, SUM_OF_SQUARES_OF_ALL } from '../sum-of-squares.js';
import { gelu, gradient, silu } from './activation.js';
import { adamw } from './adamw.js';
import { addN } from './add-n.js';
import { attention, attentionGradient, selfAttention, selfAttentionGradient } from './attention.js';
import { Call, type Kernel } from './call.js';
import { gatedAdd, gatedAddGradient } from './gated-add.js';
import { Gpu } from './gpu.js';
import { groupNorm, groupNormGradient } from './group-norm.js';
import { linear, matMul, packedLinear, sumRows } from './linear.js';
import { norm, normGradient } from './norm.js';
import { unpackWeight } from './packed.js';
import { philoxNormal } from './philox-normal.js';
import { sineCosine } from './sine-cosine.js';
import { split } from './split.js';
import { sumOfSquares } from './sum-of-squares.js';

const kernels: Readonly<Record<string, Kernel>> = {
  [LINEAR]: linear,
  [PACKED_LINEAR]: packedLinear,
  [UNPACK_WEIGHT]: unpackWeight,
  [SUM_ROWS]: sumRows,
  [GELU]: gelu,
  [GELU_GRAD]: gradient('geluGrad'),
  [SILU]: silu,
  [SILU_GRAD]: gradient('siluGrad'),
  [ATTENTION]: attention,
  [ATTENTION_GRAD]: attentionGradient,
  [SELF_ATTENTION]: selfAttention,
  [SELF_ATTENTION_GRAD]: selfAttentionGradient,
  [NORM]: norm,
  [NORM_GRAD]: normGradient,
  [GROUP_NORM]: groupNorm,
  [GROUP_NORM_GRAD]: groupNormGradient,
  [GATED_ADD]: gatedAdd,
  [GATED_ADD_GRAD]: gatedAddGradient,
  [ADAMW]: adamw,
  [ADAMW_AVERAGE]: adamw,
  [PHILOX_NORMAL]: philoxNormal,
  [SUM_OF_SQUARES]: sumOfSquares,
  [SUM_OF_SQUARES_OF_ALL]: sumOfSquares,
  [SINE_COSINE]: sineCosine,
};

/** tfjs's kernels that ours precede; where ours answers nothing, tfjs's runs. */
const before: Readonly<Record<string, (call: Call) => tf.TensorInfo | tf.TensorInfo[] | undefined>> = {
  [tf.BatchMatMul]: matMul,
  [tf.SplitV]: split,
  [tf.AddN]: addN,
  // the sum of two gradients, or a residual connection: in what computes the later of the two
  [tf.Add]: ({ gpu, inputs }) => {
    const [a, b] = [inputs['a']!, inputs['b']!];
    if (a.dtype !== 'float32' || b.dtype !== 'float32' || !tf.util.arraysEqual(a.shape, b.shape)) return undefined;
    return gpu.pending.get(b.dataId)?.plus(b, a) ?? gpu.pending.get(a.dataId)?.plus(a, b);
  },
};

/** Dispatches a submit; tfjs's own 15 cost more in submits than they gain by an earlier start. */
const BATCH = 32;

/** Registers the kernels with tfjs and prepares the backend; calling it again does nothing. */
export function installWebgpuKernels(backend: object): void {
  Gpu.of(backend);
  tf.env().set('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE', BATCH);
  for (const [kernelName, kernel] of Object.entries(kernels)) {
    if (tf.getKernel(kernelName, 'webgpu') !== undefined) continue;
    tf.registerKernel({ kernelName, backendName: 'webgpu', kernelFunc: (args) => kernel(callOf(args)) });
  }
  for (const [kernelName, ours] of Object.entries(before)) {
    const theirs = tf.getKernel(kernelName, 'webgpu');
    invariant(theirs, `tfjs's WebGPU backend has ${kernelName}`);
    if (preceded.has(theirs)) continue;
    tf.unregisterKernel(kernelName, 'webgpu');
    const config: tf.KernelConfig = { ...theirs, kernelFunc: (args) => ours(callOf(args)) ?? theirs.kernelFunc(args) };
    preceded.add(config);
    tf.registerKernel(config);
  }
}

const preceded = new WeakSet<tf.KernelConfig>();

function callOf({ inputs, attrs, backend }: Parameters<tf.KernelFunc>[0]): Call {
  // what waits must not see a variable's next value
  const infos = Object.fromEntries(Object.entries(inputs as Record<string, tf.TensorInfo | undefined>).map(([name, info]) => [name, info && { dataId: info.dataId, shape: info.shape, dtype: info.dtype }]));
  return new Call(Gpu.of(backend as object), infos, (attrs ?? {}) as Record<string, unknown>);
}
