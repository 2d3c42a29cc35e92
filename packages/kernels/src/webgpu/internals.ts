import type * as tf from '@tensorflow/tfjs-core';

/** tfjs's record of a tensor's data. */
export interface TensorData {
  values?: unknown;
  /** Type of the values in the buffer; a tensor cast from integers to float32 keeps theirs. */
  dtype: tf.DataType;
  shape: number[];
  refCount: number;
  resource?: GPUBuffer | null;
  /** Whether the buffer belongs to someone else. */
  external?: boolean;
}

/** Names data, as tfjs's `DataId`. */
export type DataId = object;

/** What these kernels use of `WebGPUBackend` 4.22, public or not; `internals.webgpu.test.ts` pins it. */
export interface Internals {
  readonly device: GPUDevice;
  readonly queue: GPUQueue;
  readonly tensorMap: { get(id: DataId): TensorData; has(id: DataId): boolean };
  readonly bufferManager: {
    numBytesUsed: number;
    numBytesAllocated: number;
    numFreeBuffers: number;
    readonly freeBuffers: Map<string, GPUBuffer[]>;
    acquireBuffer(size: number, usage: number, mappedAtCreation?: boolean, reuse?: boolean): GPUBuffer;
    releaseBuffer(buffer: GPUBuffer, reuse?: boolean): void;
  };
  commandEncoder: GPUCommandEncoder | null;
  computePassEncoder: GPUComputePassEncoder | null;
  dispatchCountInPass: number;
  /** Set while `tf.time` or `tf.profile` runs. */
  activeTimers?: { name: string; query: Promise<number> }[] | null;
  supportTimestampQuery: boolean;
  querySet: GPUQuerySet | null;
  querySetCount: number;
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  submitQueue(): void;
  getQueryTime(): Promise<number>;
  makeTensorInfo(shape: number[], dtype: tf.DataType, values?: unknown): tf.TensorInfo;
  uploadToGPU(id: DataId): void;
  disposeData(id: DataId, force?: boolean): boolean;
  incRef(id: DataId): void;
  read(id: DataId): Promise<unknown>;
  readSync(id: DataId): unknown;
  readToGPU(id: DataId): unknown;
  shouldExecuteOnCPU(inputs: readonly tf.TensorInfo[], threshold?: number): boolean;
  recordAndSubmit(...args: unknown[]): unknown;
}
