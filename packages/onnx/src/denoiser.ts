import { ArgumentError, BackendError, ShapeError } from '@tinyfusion/core';
import type { AsyncDenoiser } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import type { InferenceSession, TensorConstructor } from 'onnxruntime-common';

/** Options of {@link onnxDenoiser}. */
export interface OnnxDenoiserOptions {
  /** A class for each sample; for guidance those of the conditioned half, then as many null classes. */
  labels: ArrayLike<number>;
}

/**
 * A session of ONNX Runtime on an exported DiT or SiT as a denoiser for the samplers. Each run reads the samples from the
 * device, and puts the output back on it. For guidance, give it to `classifierFreeGuidance`.
 *
 * @param session of `onnxruntime-node` or `onnxruntime-web`; it stays the caller's
 * @throws ArgumentError where the session has other inputs or outputs, or inputs of other types. The denoiser rejects with a ShapeError where
 * samples do not fit the session or the labels, and with a BackendError where ONNX Runtime fails
 */
export function onnxDenoiser(session: InferenceSession, { labels }: OnnxDenoiserOptions): AsyncDenoiser {
  checkNames('inputs', session.inputNames, Object.keys(inputTypes));
  checkNames('outputs', session.outputNames, ['output']);
  checkTypes(session);
  const y = Int32Array.from(labels);
  for (const label of Array.from(labels)) if (!Number.isInteger(label) || label < 0) throw new ArgumentError('OnnxDenoiserOptions.labels', label, 'integers from 0');
  const expected = shapeOf(session);
  return async (x, t) => {
    const shape = [...x.shape];
    if (expected !== undefined && (expected.length !== shape.length || expected.some((size, axis) => typeof size === 'number' && size > 0 && size !== shape[axis]))) throw new ShapeError('onnxDenoiser: x', shape, expected.join(', '));
    if (shape[0] !== y.length) throw new ShapeError('onnxDenoiser: x', shape, [`${y.length} as there are labels`, ...shape.slice(1)].join(', '));
    const [data, times, Tensor] = await Promise.all([x.data<'float32'>(), t.data<'float32'>(), tensorClass()]);
    try {
      const { output } = await session.run({ x: new Tensor('float32', data, shape), t: new Tensor('float32', times, [...t.shape]), y: new Tensor('int32', y, [y.length]) }, ['output']);
      const values = (await output!.getData(true)) as Float32Array;
      return tf.tensor(values, [...output!.dims]);
    } catch (cause) {
      throw new BackendError(`ONNX Runtime cannot run the model: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  };
}

/** ONNX Runtime's tensors, which every runtime takes. */
async function tensorClass(): Promise<TensorConstructor> {
  try {
    return (await import('onnxruntime-common')).Tensor;
  } catch (cause) {
    throw new BackendError('onnxruntime-common is not installed; install it beside onnxruntime-node or onnxruntime-web', { cause });
  }
}

function checkNames(kind: 'inputs' | 'outputs', names: readonly string[], expected: readonly string[]): void {
  if (expected.some((name) => !names.includes(name)) || (kind === 'inputs' && names.length !== expected.length)) throw new ArgumentError(`onnxDenoiser: the session's ${kind}`, names, `${expected.join(', ')}: a DiT or SiT of exportOnnx`);
}

/** Inputs of {@link exportOnnx}'s DiT and SiT. */
const inputTypes: Readonly<Record<string, string>> = { x: 'float32', t: 'float32', y: 'int32' };

function checkTypes(session: InferenceSession): void {
  // runtimes before 1.22 say nothing of types
  for (const input of (session.inputMetadata as InferenceSession['inputMetadata'] | undefined) ?? []) {
    const type = input.isTensor ? input.type : 'no tensor';
    if (type !== inputTypes[input.name]) throw new ArgumentError(`onnxDenoiser: the session's ${input.name}`, type, `${inputTypes[input.name]}: a DiT or SiT of exportOnnx`);
  }
}

/** Axes of the session's `x`, names where they may have any size; absent where the runtime does not say. */
function shapeOf(session: InferenceSession): readonly (number | string)[] | undefined {
  const found = (session.inputMetadata as InferenceSession['inputMetadata'] | undefined)?.find(({ name }) => name === 'x');
  return found?.isTensor === true && found.shape.length > 0 ? found.shape : undefined;
}
