import { invariant } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';
import type { Gpu } from './gpu.js';

/** One invocation of a kernel. */
export class Call {
  constructor(
    readonly gpu: Gpu,
    readonly inputs: Readonly<Record<string, tf.TensorInfo | undefined>>,
    readonly attributes: Readonly<Record<string, unknown>>,
  ) {}

  info(name: string): tf.TensorInfo {
    const info = this.inputs[name];
    invariant(info, `kernel input ${name}`);
    return info;
  }

  shape(name: string): number[] {
    return this.info(name).shape;
  }

  size(name: string): number {
    return sizeOf(this.shape(name));
  }

  number(name: string): number {
    return this.attributes[name] as number;
  }

  list(name: string): number[] {
    return this.attributes[name] as number[];
  }

  /** An input's float32 values on the device. */
  buffer(name: string): GPUBuffer {
    return this.gpu.buffer(this.info(name));
  }

  /** An output, and its buffer. */
  output(shape: readonly number[]): { info: tf.TensorInfo; buffer: GPUBuffer } {
    const info = this.gpu.output(shape);
    return { info, buffer: this.gpu.backend.tensorMap.get(info.dataId).resource! };
  }
}

/** A kernel; several outputs where the operation has them. */
export type Kernel = (call: Call) => tf.TensorInfo | tf.TensorInfo[];

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
