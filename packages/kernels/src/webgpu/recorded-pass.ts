import { invariant } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { RecordedPass } from '../record-pass.js';
import { counters } from './counters.js';
import type { Gpu } from './gpu.js';
import { planBuffers } from './plan-buffers.js';
import { Tape, type Value } from './tape.js';

interface Replayed {
  pipeline: GPUComputePipeline;
  group: GPUBindGroup;
  groups: readonly [number, number, number];
}

/** Notes a function's dispatches without running them. @param examples inputs of the shapes and types to come; borrowed */
export function recordOnGpu(gpu: Gpu, pass: (...inputs: tf.Tensor[]) => tf.Tensor[], examples: readonly tf.Tensor[]): RecordedPass {
  // tensors of the recording's own, on the device, so that nothing small is computed on the CPU once and for all
  const inputs = examples.map((example) => tf.keep(tf.tidy(() => tf.fill(example.shape, 0, example.dtype as 'float32'))));
  const tape = new Tape(gpu);
  let outputs: tf.Tensor[] = [];
  try {
    for (const { dataId } of inputs) gpu.backend.uploadToGPU(dataId);
    tape.start();
    try {
      outputs = tf.tidy(() => {
        const all = pass(...inputs);
        for (const { dataId } of all) gpu.backend.uploadToGPU(dataId);
        return all;
      });
    } finally {
      tape.stop();
    }
    return new Replay(gpu, tape, inputs, outputs.map((tensor) => ({ value: tape.valueOf(gpu.backend.tensorMap.get(tensor.dataId).resource!), tensor })));
  } catch (error) {
    for (const buffer of tape.kept) gpu.letGo(buffer);
    tf.dispose(inputs);
    throw error;
  } finally {
    tf.dispose(outputs);
    // what only the recording needed
    gpu.trim();
  }
}

/** Dispatches with buffers of their own, run again and again. */
class Replay implements RecordedPass {
  readonly recorded = true;
  readonly bytes: number;
  readonly dispatches: number;
  readonly #steps: Replayed[];
  readonly #buffers: GPUBuffer[];
  readonly #results: { buffer: GPUBuffer; shape: number[]; dtype: tf.DataType }[];
  #disposed = false;

  constructor(
    readonly gpu: Gpu,
    readonly tape: Tape,
    readonly inputs: readonly tf.Tensor[],
    outputs: readonly { value: Value; tensor: tf.Tensor }[],
  ) {
    const { device } = gpu;
    for (const { value } of outputs) value.last = tape.dispatches.length; // copied after the last
    const values = [...new Set(tape.dispatches.flatMap(({ bound }) => bound.filter((b): b is Value => 'bytes' in b)))];
    const { places, sizes } = planBuffers(values);
    this.#buffers = sizes.map((size) => device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST }));
    const placed = new Map(values.map((value, i) => [value, this.#buffers[places[i]!]!]));
    this.#steps = tape.dispatches.map(({ pipeline, layout, bound, groups }) => ({
      pipeline,
      groups,
      group: device.createBindGroup({ layout, entries: bound.map((b, binding) => ({ binding, resource: 'bytes' in b ? { buffer: placed.get(b)!, offset: 0, size: b.bytes } : { buffer: b } })) }),
    }));
    this.#results = outputs.map(({ value, tensor: { shape, dtype } }) => ({ buffer: placed.get(value)!, shape, dtype }));
    this.dispatches = this.#steps.length;
    this.bytes = sizes.reduce((a, b) => a + b, 0) + [...tape.kept].reduce((sum, buffer) => sum + buffer.size, 0);
  }

  run(inputs: readonly tf.Tensor[]): tf.Tensor[] {
    invariant(!this.#disposed, 'a recording runs before it is disposed');
    const { gpu } = this;
    const { backend } = gpu;
    gpu.watch.check();
    for (const [i, input] of inputs.entries()) this.#take(this.inputs[i]!, input);
    backend.ensureCommandEncoderReady();
    backend.endComputePassEncoder();
    const pass = backend.commandEncoder!.beginComputePass();
    for (const { pipeline, group, groups } of this.#steps) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(groups[0], groups[1], groups[2]);
    }
    pass.end();
    counters.dispatches += this.#steps.length;
    const infos = this.#results.map(({ buffer, shape, dtype }) => {
      const info = backend.makeTensorInfo(shape, dtype);
      backend.uploadToGPU(info.dataId);
      const target = backend.tensorMap.get(info.dataId).resource!;
      backend.commandEncoder!.copyBufferToBuffer(buffer, 0, target, 0, target.size);
      return info;
    });
    backend.submitQueue();
    return infos.map((info) => tf.engine().makeTensorFromTensorInfo(info));
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const buffer of this.#buffers) buffer.destroy();
    for (const buffer of this.tape.kept) this.gpu.letGo(buffer);
    tf.dispose(this.inputs as tf.Tensor[]);
  }

  /** Copies an input to where the recording reads it. */
  #take(own: tf.Tensor, given: tf.Tensor): void {
    const { backend, device } = this.gpu;
    const to = backend.tensorMap.get(own.dataId).resource!;
    const values = this.gpu.pending.has(given.dataId) ? undefined : backend.tensorMap.get(given.dataId);
    // small ones come from the CPU: written ahead of what is recorded next, and after all that was submitted
    if (values !== undefined && values.resource == null && ArrayBuffer.isView(values.values)) {
      device.queue.writeBuffer(to, 0, own.dtype === 'int32' ? Int32Array.from(values.values as Int32Array) : Float32Array.from(values.values as Float32Array));
      return;
    }
    const from = own.dtype === 'int32' ? this.gpu.integers(given) : this.gpu.buffer(given);
    backend.ensureCommandEncoderReady();
    backend.endComputePassEncoder();
    backend.commandEncoder!.copyBufferToBuffer(from, 0, to, 0, to.size);
  }
}
