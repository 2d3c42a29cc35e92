import type * as tf from '@tensorflow/tfjs-core';
import type { Gpu } from './gpu.js';
import type { DataId } from './internals.js';
import { columnSums } from './column-sums.js';
import type { Operand } from './operands.js';
import { Pending } from './pending.js';
import type { Job, Step } from './product-code.js';
import { runJobs } from './run-jobs.js';

/** What a {@link Product} multiplies. */
export interface ProductOptions {
  m: number;
  n: number;
  k: number;
  /** Default 1. */
  batch?: number;
  a: Operand;
  b: Operand;
  bias?: tf.TensorInfo | undefined;
  /** The gradient that this product comes from; those that come from the same are computed together. */
  gradient?: DataId;
  /** Whether A is that gradient with its rows summed over, so that sums of its columns come along. */
  withColumnSums?: boolean;
}

/** A matrix product that waits for what is done to its result. */
export class Product extends Pending {
  readonly #options: ProductOptions;
  readonly #steps: Step[] = [];
  /** For each result the steps before it. */
  readonly #after = new Map<DataId, number>();
  /** Step counts whose results will be read by a gradient. */
  readonly #saved = new Set<number>();
  /** Buffers that the dispatch reads. */
  #read: number;
  #computed = false;

  constructor(gpu: Gpu, options: ProductOptions) {
    super(gpu);
    this.#options = options;
    const { a, b, bias } = options;
    this.hold(...a.tensors, ...b.tensors, bias);
    this.#read = a.tensors.length + b.tensors.length + (bias === undefined ? 0 : 1);
    if (options.gradient !== undefined) joinGradient(gpu, options.gradient, this);
  }

  /** The product itself, in any shape of its size. */
  start(shape: readonly number[]): tf.TensorInfo {
    const info = this.#next(shape, 0);
    this.gpu.enqueue(this);
    return info;
  }

  /**
   * A further step after result `x`.
   * @param inputs tensors that the step reads
   * @param save whether a gradient will read `x`
   * @returns `undefined` where `x` is not the last result, or too much would be bound
   */
  extend(x: tf.TensorInfo, inputs: readonly tf.TensorInfo[], save: boolean, step: () => Step): tf.TensorInfo | undefined {
    // inputs are computed now: one that waits for this very product computes it, and there is nothing to extend
    for (const input of inputs) this.gpu.rows(input);
    const at = this.#after.get(x.dataId);
    if (!this.live.has(x.dataId) || at !== this.#steps.length || this.#read + inputs.length + this.#saved.size + (save ? 3 : 2) > this.gpu.mostBindings) return undefined;
    this.hold(...inputs);
    this.#read += inputs.length;
    if (save) this.#saved.add(at);
    this.#steps.push(step());
    return this.#next(x.shape, this.#steps.length);
  }

  override plus(x: tf.TensorInfo, other: tf.TensorInfo): tf.TensorInfo | undefined {
    return this.extend(x, [other], false, () => ({ kind: 'add', x: () => this.gpu.buffer(other) }));
  }

  /** The longest chain; none where all that exists has been passed by. */
  override get due(): DataId | undefined {
    const last = [...this.live].find((id) => this.#after.get(id) === this.#steps.length);
    return last ?? (this.#computed ? undefined : super.due);
  }

  protected compute(id: DataId): void {
    const { gradient } = this.#options;
    const mates = gradient === undefined ? undefined : this.gpu.byGradient.get(gradient);
    runTogether(this.gpu, id, mates === undefined ? [this] : [this, ...[...mates].filter((mate) => mate !== this)]);
  }

  /** What to run so that `id`, or the last result where it is not given, is there, with where to write it. */
  job(id?: DataId): { job: () => Job; buffers: number } | undefined {
    const wanted = id ?? this.due;
    if (wanted === undefined || !this.live.has(wanted)) return undefined;
    const last = Math.max(...[...this.live].map((other) => this.#after.get(other)!));
    const written = [...this.live].filter((other) => other === wanted || this.#after.get(other) === last || this.#saved.has(this.#after.get(other)!));
    return {
      buffers: this.#read + written.length,
      job: () => {
        const { m, n, k, batch = 1, a, b, bias } = this.#options;
        this.#computed = true;
        const outputs = written.map((other) => ({ after: this.#after.get(other)!, buffer: this.fill(other) }));
        return { m, n, k, batch, a, b, bias: bias && this.gpu.buffer(bias), steps: this.#steps.slice(0, last), outputs };
      },
    };
  }

  get takesColumnSums(): boolean {
    return this.#options.withColumnSums === true;
  }

  /** Lets go of inputs where all is computed. */
  done(): void {
    this.settled();
    leaveGradient(this.gpu, this.#options.gradient, this);
  }

  override drop(id: DataId): void {
    super.drop(id);
    leaveGradient(this.gpu, this.#options.gradient, this);
  }

  /** Computes everything that this product reads, which may be pending itself. */
  ready(): void {
    const { a, b, bias } = this.#options;
    for (const info of [...a.tensors, ...b.tensors, ...(bias === undefined ? [] : [bias])]) this.gpu.backend.uploadToGPU(info.dataId);
  }

  #next(shape: readonly number[], after: number): tf.TensorInfo {
    const info = this.result(shape);
    this.#after.set(info.dataId, after);
    return info;
  }
}

/** Sums over rows, `[R, D]` to `[D]`, that a product with the same gradient may bring along. */
export class ColumnSums extends Pending {
  constructor(
    gpu: Gpu,
    readonly x: tf.TensorInfo,
  ) {
    super(gpu);
    this.hold(x);
    joinGradient(gpu, x.dataId, this);
  }

  start(): tf.TensorInfo {
    const info = this.result([this.x.shape[1]!]);
    this.gpu.enqueue(this);
    return info;
  }

  protected compute(id: DataId): void {
    const mates = [...(this.gpu.byGradient.get(this.x.dataId) ?? [])];
    const carrier = mates.find((mate) => mate instanceof Product && mate.takesColumnSums);
    if (carrier === undefined) {
      const x = this.gpu.buffer(this.x);
      columnSums(this.gpu, x, this.fill(id), this.x.shape as [number, number]);
    } else runTogether(this.gpu, undefined, [carrier, ...mates.filter((mate) => mate !== carrier)]);
    leaveGradient(this.gpu, this.x.dataId, this);
  }

  /** The buffer to be written by a product. */
  take(): GPUBuffer {
    return this.fill([...this.live][0]!);
  }

  done(): void {
    this.settled();
    leaveGradient(this.gpu, this.x.dataId, this);
  }

  override drop(id: DataId): void {
    super.drop(id);
    leaveGradient(this.gpu, this.x.dataId, this);
  }
}

function joinGradient(gpu: Gpu, id: DataId, work: Pending): void {
  const mates = gpu.byGradient.get(id);
  if (mates === undefined) gpu.byGradient.set(id, new Set([work]));
  else mates.add(work);
}

function leaveGradient(gpu: Gpu, id: DataId | undefined, work: Pending): void {
  if (id === undefined || work.live.size > 0) return;
  const mates = gpu.byGradient.get(id);
  mates?.delete(work);
  if (mates?.size === 0) gpu.byGradient.delete(id);
}

/**
 * Computes a result of the first, and what else fits into the same dispatch.
 * @param id a result of the first; its last where it is not given
 */
function runTogether(gpu: Gpu, id: DataId | undefined, work: readonly Pending[]): void {
  const all = work.filter((w) => w instanceof Product);
  for (const product of all) product.ready();
  const sums = work.find((w) => w instanceof ColumnSums && w.live.size > 0) as ColumnSums | undefined;
  const most = gpu.mostBindings - (sums === undefined ? 0 : 1);
  const jobs: { product: Product; job: Job }[] = [];
  let bound = 0;
  for (const [i, product] of all.entries()) {
    const found = product.job(i === 0 ? id : undefined);
    // what comes from one gradient reads it once
    const more = (found?.buffers ?? 0) - (jobs.length > 0 ? 1 : 0);
    if (found === undefined || (jobs.length > 0 && bound + more > most)) continue;
    bound += more;
    jobs.push({ product, job: found.job() });
  }
  if (jobs.length === 0) return;
  const carrier = jobs.find(({ product }) => product.takesColumnSums);
  const carried = carrier !== undefined && sums !== undefined && bound <= most;
  if (carried) carrier.job = { ...carrier.job, rowSums: sums.take() };
  runJobs(gpu, jobs.map(({ job }) => job));
  for (const { product } of jobs) product.done();
  if (carried) sums.done();
}
