import { type LongTaskOptions, ShapeError, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** A function of tensors that was recorded. */
export interface RecordedPass {
  /** Whether dispatches are replayed; `false` on backends that have none, where the function runs as it is. */
  readonly recorded: boolean;
  /** Dispatches of a run; 0 where nothing is recorded. */
  readonly dispatches: number;
  /** Bytes on the device that belong to the recording: values between dispatches, constants and numbers. Weights are not counted. */
  readonly bytes: number;
  /**
   * Runs it again. No operation of tfjs is called, and nothing is read back.
   * @param inputs of the shapes and types that were recorded; borrowed
   * @returns the results, which belong to the caller
   * @throws ShapeError where an input has another shape
   */
  run(inputs: readonly tf.Tensor[]): tf.Tensor[];
  /** Frees what the recording holds; it cannot run any more. */
  dispose(): void;
}

/**
 * Records a function's dispatches on WebGPU, with buffers shared among values that live at different times. First all
 * shaders are compiled, side by side and without holding up the page; then the function is called once more, and its dispatches
 * are noted in the place of being run.
 *
 * The function must do the same each time: what it decides by numbers in JavaScript is decided now. Variables that it
 * reads are bound as they are: assigning to one afterwards is not seen.
 *
 * @param pass called inside a tidy, twice where it is recorded; it may not read values back
 * @param examples inputs of the shapes and types to come, whose values are not used; borrowed
 */
export async function recordPass(pass: (...inputs: tf.Tensor[]) => tf.Tensor[], examples: readonly tf.Tensor[], { signal, onProgress }: LongTaskOptions = {}): Promise<RecordedPass> {
  const shapes = examples.map(({ shape }) => shape);
  const checked = (inputs: readonly tf.Tensor[]): readonly tf.Tensor[] => {
    for (const [i, shape] of shapes.entries()) if (String(inputs[i]?.shape) !== String(shape)) throw new ShapeError(`RecordedPass.run: input ${i}`, inputs[i]?.shape ?? [], shape.join(', '));
    return inputs;
  };
  throwIfCancelled(signal, 'compile');
  if (tf.getBackend() !== 'webgpu') return { recorded: false, dispatches: 0, bytes: 0, run: (inputs) => tf.tidy(() => pass(...checked(inputs))), dispose: () => {} };
  const [{ Gpu }, { recordOnGpu }] = await Promise.all([import('./webgpu/gpu.js'), import('./webgpu/recorded-pass.js')]);
  const gpu = Gpu.of(tf.backend());
  await gpu.pipelines.compileAhead(
    () => {
      const inputs = examples.map((example) => tf.fill(example.shape, 0, example.dtype as 'float32'));
      for (const { dataId } of inputs) gpu.backend.uploadToGPU(dataId);
      for (const { dataId } of pass(...inputs)) gpu.backend.uploadToGPU(dataId);
    },
    { signal, onProgress },
  );
  throwIfCancelled(signal, 'compile');
  const recorded = recordOnGpu(gpu, pass, examples);
  return { recorded: true, dispatches: recorded.dispatches, bytes: recorded.bytes, run: (inputs) => recorded.run(checked(inputs)), dispose: () => recorded.dispose() };
}
