import { BackendError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { counters } from './counters.js';
import { Pipelines } from './dispatch.js';
import type { DataId, Internals, TensorData } from './internals.js';
import { Bindings } from './bindings.js';
import type { Pending } from './pending.js';
import { ProductForms } from './product-forms.js';
import type { Tape } from './tape.js';
import { DeviceWatch } from './watch.js';

/** Rows of a matrix inside of another: row i begins at `offset + i · stride`. */
export interface RowView {
  buffer: GPUBuffer;
  offset: number;
  stride: number;
}

/** Pending work beyond which the oldest is computed, so that what it holds can be freed. */
const MOST_PENDING = 12;

const contexts = new WeakMap<object, Gpu>();

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 3 : 0)} MiB`;

/** What this package keeps for a tfjs WebGPU backend: results that wait, pipelines, errors, limits. */
export class Gpu {
  readonly device: GPUDevice;
  readonly watch: DeviceWatch;
  readonly pipelines: Pipelines;
  readonly products = new ProductForms();
  /** Results that wait to be computed, by their data. */
  readonly pending = new Map<DataId, Pending>();
  /** Gradients of one product that could be computed together, by the data of the gradient that they come from. */
  readonly byGradient = new Map<DataId, Set<Pending>>();
  /** Where dispatches are being noted, if anywhere. */
  tape: Tape | undefined;
  #queue: Pending[] = [];
  #temporary: GPUBuffer[] = [];
  /** Buffers that recordings read, and whether the pool would have them back. */
  readonly #held = new Map<GPUBuffer, { count: number; released: boolean }>();

  /** The one of a backend; made, and the backend prepared, where there is none yet. */
  static of(backend: object): Gpu {
    let gpu = contexts.get(backend);
    if (gpu === undefined) contexts.set(backend, (gpu = new Gpu(backend as Internals)));
    return gpu;
  }

  private constructor(readonly backend: Internals) {
    this.device = backend.device;
    this.watch = new DeviceWatch(backend.device);
    this.pipelines = new Pipelines(this);
    this.#prepare();
  }

  /** Buffers that a shader may bind. */
  get mostBindings(): number {
    return this.device.limits.maxStorageBuffersPerShaderStage;
  }

  /** A tensor's float32 values on the device. */
  buffer(info: tf.TensorInfo): GPUBuffer {
    this.backend.uploadToGPU(info.dataId);
    const { resource, dtype } = this.backend.tensorMap.get(info.dataId);
    return dtype === 'float32' ? resource! : this.#floats(resource!, sizeOf(info.shape));
  }

  /** A tensor's int32 values on the device. */
  integers(info: tf.TensorInfo): GPUBuffer {
    this.backend.uploadToGPU(info.dataId);
    return this.backend.tensorMap.get(info.dataId).resource!;
  }

  /** A float32 tensor to be written. */
  output(shape: readonly number[]): tf.TensorInfo {
    const info = this.backend.makeTensorInfo([...shape], 'float32');
    if (sizeOf(shape) === 0) this.backend.tensorMap.get(info.dataId).values = new Float32Array(0);
    else this.backend.uploadToGPU(info.dataId);
    return info;
  }

  /** A buffer for values between two dispatches; the queue runs in order, so {@link free} may come before they run. */
  scratch(floats: number): GPUBuffer {
    return this.backend.bufferManager.acquireBuffer(4 * Math.max(floats, 1), GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
  }

  free(buffer: GPUBuffer): void {
    this.backend.bufferManager.releaseBuffer(buffer);
  }

  /** The rows of `[R, D]`, also where they wait inside of a wider matrix. */
  rows(info: tf.TensorInfo): RowView {
    const waiting = this.pending.get(info.dataId);
    const view = waiting !== undefined && 'rowsOf' in waiting ? (waiting as { rowsOf(id: DataId): RowView }).rowsOf(info.dataId) : undefined;
    return view ?? { buffer: this.buffer(info), offset: 0, stride: info.shape.at(-1)! };
  }

  /** A float32 tensor that `work` will compute. */
  later(work: Pending, shape: readonly number[]): tf.TensorInfo {
    this.checkSize(shape);
    const info = this.backend.makeTensorInfo([...shape], 'float32');
    this.pending.set(info.dataId, work);
    work.live.add(info.dataId);
    return info;
  }

  /** Computes the oldest of what waits where that is much. */
  enqueue(work: Pending): void {
    this.#queue.push(work);
    if (this.#queue.length <= MOST_PENDING) return;
    this.#queue = this.#queue.filter((w) => w.due !== undefined);
    while (this.#queue.length > MOST_PENDING) {
      const oldest = this.#queue.shift()!;
      const { due } = oldest;
      if (due !== undefined) this.buffer({ dataId: due, shape: [1], dtype: 'float32' });
    }
  }

  /** Takes a result out of those that wait, with a buffer to write it to, or with one that holds it already. */
  fill(id: DataId, buffer?: GPUBuffer): GPUBuffer {
    this.pending.delete(id);
    if (buffer !== undefined) this.backend.tensorMap.get(id).resource = buffer;
    else this.backend.uploadToGPU(id);
    return this.backend.tensorMap.get(id).resource!;
  }

  /** Gives back a reference taken with `incRef`. */
  release(id: DataId): void {
    // tfjs's engine counts data that it has let go of while it was held here
    if (this.backend.disposeData(id)) (tf.engine() as unknown as { removeDataId(id: DataId, backend: object): void }).removeDataId(id, this.backend);
  }

  /** Keeps a buffer from being used for something else after it is given back to the pool. */
  hold(buffer: GPUBuffer): void {
    const held = this.#held.get(buffer);
    if (held === undefined) this.#held.set(buffer, { count: 1, released: false });
    else held.count += 1;
  }

  /** Ends a {@link hold}. */
  letGo(buffer: GPUBuffer): void {
    const held = this.#held.get(buffer);
    if (held === undefined || (held.count -= 1) > 0) return;
    this.#held.delete(buffer);
    if (held.released) this.free(buffer);
  }

  /** Computes all that waits. */
  settleAll(): void {
    for (const [id, work] of this.pending) work.settle(id);
  }

  /** Submits what is recorded. */
  flush(): void {
    const { backend } = this;
    if (backend.commandEncoder === null) return;
    backend.endComputePassEncoder();
    backend.submitQueue();
  }

  /** Gives the pool's free buffers back to the device; tfjs's pool never shrinks, and finds buffers again by their exact size alone. */
  trim(): void {
    this.flush();
    const { bufferManager } = this.backend;
    for (const list of bufferManager.freeBuffers.values()) {
      for (const buffer of list.splice(0)) {
        buffer.destroy();
        bufferManager.numFreeBuffers -= 1;
        bufferManager.numBytesAllocated -= buffer.size;
      }
    }
  }

  /** Whether gradients are being recorded, so that what kernels save will be read. */
  get recording(): boolean {
    return (tf.engine() as unknown as { state: { gradientDepth: number } }).state.gradientDepth > 0;
  }

  /** @throws BackendError where a tensor of this shape cannot be bound on the device */
  checkSize(shape: readonly number[]): void {
    this.#checkBytes(4 * sizeOf(shape), `a tensor of shape [${shape.join(', ')}]`);
  }

  #checkBytes(bytes: number, what: string): void {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.device.limits;
    const most = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    if (bytes > most) throw new BackendError(`${what} takes ${mebibytes(bytes)}, this device binds ${mebibytes(most)} at most; use a smaller batch or image`);
  }

  /** Integers as floats, kept until the next submit. */
  #floats(source: GPUBuffer, count: number): GPUBuffer {
    const target = this.scratch(count);
    this.#temporary.push(target);
    const bindings = new Bindings();
    const from = bindings.read(source, { type: 'i32' });
    const to = bindings.write(target);
    this.pipelines.run({
      name: 'floats',
      bindings,
      numbers: { count },
      workgroup: 64,
      groups: spread(Math.ceil(count / 64)),
      code: () => ({ main: `let i = (group.x + group.y * groups.x) * 64u + thread;\n if (i < u.count) { ${to}[i] = f32(${from}[i]); }` }),
    });
    return target;
  }

  /** Puts this package between tfjs and its backend: pending results, size limits, errors, counters. */
  #prepare(): void {
    const { backend } = this;
    const manager = backend.bufferManager;
    const original = {
      upload: backend.uploadToGPU.bind(backend),
      dispose: backend.disposeData.bind(backend),
      read: backend.read.bind(backend),
      readSync: backend.readSync.bind(backend),
      readToGPU: backend.readToGPU.bind(backend),
      onCpu: backend.shouldExecuteOnCPU.bind(backend),
      submit: backend.submitQueue.bind(backend),
      record: backend.recordAndSubmit.bind(backend),
      acquire: manager.acquireBuffer.bind(manager),
      release: manager.releaseBuffer.bind(manager),
    };
    const compute = (id: DataId): void => this.pending.get(id)?.settle(id);
    backend.uploadToGPU = (id) => {
      if (this.pending.has(id)) return compute(id);
      const data: TensorData = backend.tensorMap.get(id);
      if (data.resource != null) return undefined;
      this.watch.check();
      this.checkSize(data.shape);
      const fromOutside = data.values != null;
      original.upload(id);
      if (fromOutside) this.tape?.keep(data.resource!);
      return undefined;
    };
    backend.disposeData = (id, force) => {
      const waiting = this.pending.get(id);
      if (waiting !== undefined && (force === true || backend.tensorMap.get(id).refCount <= 1)) {
        this.pending.delete(id);
        waiting.drop(id);
      }
      return original.dispose(id, force);
    };
    backend.read = async (id) => {
      this.watch.check();
      compute(id);
      // a read that fails with its device says so before the loss is told
      const values = await original.read(id).catch(async (error: unknown) => {
        await this.watch.settled();
        this.watch.check();
        throw error;
      });
      this.watch.check();
      return values;
    };
    backend.readSync = (id) => {
      this.watch.check();
      compute(id);
      return original.readSync(id);
    };
    backend.readToGPU = (id) => {
      this.watch.check();
      compute(id);
      return original.readToGPU(id);
    };
    // tfjs takes data without a buffer for data on the CPU
    backend.shouldExecuteOnCPU = (inputs, threshold) => !inputs.some(({ dataId }) => this.pending.has(dataId)) && original.onCpu(inputs, threshold);
    backend.submitQueue = () => {
      counters.submits += 1;
      original.submit();
      for (const buffer of this.#temporary.splice(0)) manager.releaseBuffer(buffer);
    };
    backend.recordAndSubmit = (...args) => {
      counters.stockDispatches += 1;
      return original.record(...args);
    };
    manager.acquireBuffer = (size, usage, ...rest) => {
      if ((usage & GPUBufferUsage.STORAGE) !== 0) this.#checkBytes(size, 'a buffer');
      const before = manager.numBytesAllocated;
      const buffer = original.acquire(size, usage, ...rest);
      counters.bytesAllocated += manager.numBytesAllocated - before;
      counters.peakBytes = Math.max(counters.peakBytes, manager.numBytesUsed);
      this.tape?.acquired(buffer, size, usage);
      return buffer;
    };
    manager.releaseBuffer = (buffer, ...rest) => {
      const held = this.#held.get(buffer);
      if (held === undefined) original.release(buffer, ...rest);
      else held.released = true;
    };
  }
}

/** So many workgroups, in two dimensions where one is not enough; the flat index is `group.x + group.y * groups.x`. */
export function spread(count: number): [number, number, number] {
  const most = 65_535;
  return count <= most ? [count, 1, 1] : [most, Math.ceil(count / most), 1];
}
