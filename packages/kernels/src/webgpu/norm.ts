import type * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Kernel, sizeOf } from './call.js';
import { columnSums } from './column-sums.js';
import { type Gpu, spread } from './gpu.js';
import type { DataId } from './internals.js';
import { Pending } from './pending.js';
import { totalOf } from './wgsl.js';

/** Threads for a row. */
const threadsFor = (width: number): number => (width > 1024 ? 256 : width > 256 ? 128 : 64);

/** `mean` and `rstd` of a row: the variance from the mean, not from squares. */
const statistics = (x: string, threads: number): string => `
  var sum = 0.0;
  for (var c = thread; c < u.width; c += ${threads}u) { sum += ${x}[row * u.width + c]; }
  let mean = total(vec2f(sum, 0.0), thread).x / f32(u.width);
  var squares = 0.0;
  for (var c = thread; c < u.width; c += ${threads}u) { let d = ${x}[row * u.width + c] - mean; squares += d * d; }
  let rstd = inverseSqrt(total(vec2f(squares, 0.0), thread).x / f32(u.width) + f.epsilon);`;

/** x̂ · (one + gain) + shift, a workgroup a row. */
export const norm: Kernel = (call) => {
  const { gpu } = call;
  const [rows, width] = call.shape('x') as [number, number];
  const { gain, shift } = call.inputs;
  const bindings = new Bindings();
  const x = bindings.read(call.buffer('x'));
  const numbers: Record<string, number> = { rows, width, group: rows / ((gain ?? shift)?.shape[0] ?? 1) };
  const row = (name: string, info: tf.TensorInfo | undefined): string | undefined => {
    if (info === undefined) return undefined;
    const { buffer, offset, stride } = gpu.rows(info);
    Object.assign(numbers, { [`${name}Offset`]: offset, [`${name}Stride`]: stride });
    return `${bindings.read(buffer)}[u.${name}Offset + row / u.group * u.${name}Stride + c]`;
  };
  const [gains, shifts] = [row('gain', gain), row('shift', shift)];
  const out = call.output([rows, width]);
  const y = bindings.write(out.buffer);
  const threads = threadsFor(width);
  gpu.pipelines.run({
    name: 'norm',
    variant: `${threads}${gains}${shifts}`,
    bindings,
    numbers,
    reals: { one: call.number('one'), epsilon: call.number('epsilon') },
    workgroup: threads,
    groups: width === 0 ? [0, 0, 0] : spread(rows),
    code: () => ({
      declarations: totalOf('vec2f', threads),
      main: `
  let row = group.x + group.y * groups.x;
  if (row >= u.rows) { return; }
  ${statistics(x, threads)}
  for (var c = thread; c < u.width; c += ${threads}u) {
    ${y}[row * u.width + c] = (${x}[row * u.width + c] - mean) * rstd${gains === undefined ? '' : ` * (f.one + ${gains})`}${shifts === undefined ? '' : ` + ${shifts}`};
  }`,
    }),
  });
  return out.info;
};

/** Gradients of {@link norm}: by x with what else is added to it, and by gain and shift where they are read. */
class NormGradient extends Pending {
  #dx: DataId | undefined;
  #dGain: DataId | undefined;
  #dShift: DataId | undefined;
  /** dx + residual. */
  #sum: { id: DataId; residual: tf.TensorInfo } | undefined;

  constructor(
    gpu: Gpu,
    readonly inputs: { dy: tf.TensorInfo; x: tf.TensorInfo; gain: tf.TensorInfo | undefined },
    readonly reals: { one: number; epsilon: number },
  ) {
    super(gpu);
    this.hold(inputs.dy, inputs.x, inputs.gain);
  }

  start(): tf.TensorInfo[] {
    const { x, gain } = this.inputs;
    const [rows, width] = x.shape as [number, number];
    const groups = gain?.shape[0] ?? 1;
    const results = [this.result([rows, width]), this.result([groups, width]), this.result([groups, width])];
    [this.#dx, this.#dGain, this.#dShift] = results.map(({ dataId }) => dataId);
    this.gpu.enqueue(this);
    return results;
  }

  override get due(): DataId | undefined {
    return [this.#sum?.id, ...(this.#sum === undefined ? [this.#dx] : []), this.#dGain, this.#dShift].find((id) => id !== undefined && this.live.has(id));
  }

  override plus(x: tf.TensorInfo, other: tf.TensorInfo): tf.TensorInfo | undefined {
    this.gpu.buffer(other);
    if (x.dataId !== this.#dx || !this.live.has(x.dataId) || this.#sum !== undefined) return undefined;
    this.hold(other);
    const info = this.result(x.shape);
    this.#sum = { id: info.dataId, residual: other };
    return info;
  }

  protected compute(id: DataId): void {
    const { dy, x, gain } = this.inputs;
    const [rows, width] = x.shape as [number, number];
    const groups = gain?.shape[0] ?? 1;
    for (const info of [dy, x]) this.gpu.buffer(info);
    if (gain !== undefined) this.gpu.rows(gain);
    if (!this.live.has(id)) return;
    // dx alone is written where it is asked for, or where nothing stands for it
    const sum = this.#sum !== undefined && this.live.has(this.#sum.id) && id !== this.#dx ? this.#sum : undefined;
    const alone = id === this.#dx || (this.#sum === undefined && this.live.has(this.#dx!)) ? this.#dx : undefined;
    const byX = sum?.id ?? alone;
    const byGain = this.live.has(this.#dGain!) || this.live.has(this.#dShift!);
    const statistics = this.gpu.scratch(2 * rows);
    const residual = sum === undefined ? undefined : this.gpu.buffer(sum.residual);
    rowGradient(this, byX === undefined ? undefined : this.fill(byX), residual, statistics);
    if (byGain) {
      const targets = [this.#dGain!, this.#dShift!].map((target) => (this.live.has(target) ? this.fill(target) : undefined));
      gainGradient(this, targets as [GPUBuffer | undefined, GPUBuffer | undefined], statistics, [groups, rows / groups, width]);
    }
    this.gpu.free(statistics);
  }
}

/** dx = rstd · (h − mean(h) − x̂ · mean(h x̂)) with h = dy · (one + gain), and the rows' statistics. */
function rowGradient({ gpu, inputs, reals }: NormGradient, target: GPUBuffer | undefined, residual: GPUBuffer | undefined, statisticsTo: GPUBuffer): void {
  const [rows, width] = inputs.x.shape as [number, number];
  const bindings = new Bindings();
  const [dy, x] = [bindings.read(gpu.buffer(inputs.dy)), bindings.read(gpu.buffer(inputs.x))];
  const numbers: Record<string, number> = { rows, width };
  let factor = '';
  if (inputs.gain !== undefined) {
    const { buffer, offset, stride } = gpu.rows(inputs.gain);
    Object.assign(numbers, { group: rows / inputs.gain.shape[0]!, offset, stride });
    factor = ` * (f.one + ${bindings.read(buffer)}[u.offset + row / u.group * u.stride + c])`;
  }
  const added = residual === undefined ? '' : ` + ${bindings.read(residual)}[row * u.width + c]`;
  const to = bindings.write(statisticsTo);
  const dx = target && bindings.write(target);
  const threads = threadsFor(width);
  gpu.pipelines.run({
    name: 'normGrad',
    variant: `${threads}${factor}${added}${dx}`,
    bindings,
    numbers,
    reals,
    workgroup: threads,
    groups: spread(rows),
    code: () => ({
      declarations: totalOf('vec2f', threads),
      main: `
  let row = group.x + group.y * groups.x;
  if (row >= u.rows) { return; }
  ${statistics(x, threads)}
  if (thread == 0u) { ${to}[2u * row] = mean; ${to}[2u * row + 1u] = rstd; }
  ${
    dx === undefined
      ? ''
      : `var sums = vec2f();
  for (var c = thread; c < u.width; c += ${threads}u) {
    let h = ${dy}[row * u.width + c]${factor};
    sums += vec2f(h, h * (${x}[row * u.width + c] - mean) * rstd);
  }
  let means = total(sums, thread) / f32(u.width);
  for (var c = thread; c < u.width; c += ${threads}u) {
    let h = ${dy}[row * u.width + c]${factor};
    ${dx}[row * u.width + c] = rstd * (h - means.x - (${x}[row * u.width + c] - mean) * rstd * means.y)${added};
  }`
  }`,
    }),
  });
}

/** Rows that a workgroup sums. */
const SLICE = 256;

/** Σ dy · x̂ and Σ dy over the rows of each group; in slices, then over the slices, where groups are long. */
function gainGradient({ gpu, inputs }: NormGradient, targets: [GPUBuffer | undefined, GPUBuffer | undefined], statisticsFrom: GPUBuffer, [groups, rows, width]: readonly [number, number, number]): void {
  const slices = Math.ceil(rows / SLICE);
  // several groups of several slices would need a sum over the middle axis
  const slice = groups > 1 || slices === 1 ? rows : SLICE;
  const count = slice === rows ? 1 : slices;
  const partial = targets.map((target) => (target === undefined ? undefined : count === 1 ? target : gpu.scratch(count * width)));
  const bindings = new Bindings();
  const [dy, x, stats] = [bindings.read(gpu.buffer(inputs.dy)), bindings.read(gpu.buffer(inputs.x)), bindings.read(statisticsFrom)];
  const [toGain, toShift] = partial.map((buffer) => buffer && bindings.write(buffer));
  const at = '[(group.y + group.z) * u.width + column]';
  gpu.pipelines.run({
    name: 'normGainGrad',
    variant: `${toGain}${toShift}`,
    bindings,
    numbers: { rows, width, slice },
    workgroup: 256,
    groups: [Math.ceil(width / 64), groups, count],
    code: () => ({
      declarations: 'var<workgroup> partial : array<vec2f, 256>;',
      main: `
  let column = group.x * 64u + thread % 64u;
  var sum = vec2f();
  if (column < u.width) {
    let end = min(u.rows, (group.z + 1u) * u.slice);
    for (var i = group.z * u.slice + thread / 64u; i < end; i += 4u) {
      let row = group.y * u.rows + i;
      let d = ${dy}[row * u.width + column];
      sum += vec2f(d * (${x}[row * u.width + column] - ${stats}[2u * row]) * ${stats}[2u * row + 1u], d);
    }
  }
  partial[thread] = sum;
  workgroupBarrier();
  if (thread < 64u && column < u.width) {
    let all = partial[thread] + partial[thread + 64u] + partial[thread + 128u] + partial[thread + 192u];
    ${toGain === undefined ? '' : `${toGain}${at} = all.x;`}
    ${toShift === undefined ? '' : `${toShift}${at} = all.y;`}
  }`,
    }),
  });
  if (count === 1) return;
  for (const [i, target] of targets.entries()) {
    if (target === undefined) continue;
    columnSums(gpu, partial[i]!, target, [count, width]);
    gpu.free(partial[i]!);
  }
}

export const normGradient: Kernel = (call) => {
  const [dy, x, gain] = [call.info('dy'), call.info('x'), call.inputs['gain']];
  const [rows, width] = x.shape as [number, number];
  const groups = gain?.shape[0] ?? 1;
  if (sizeOf(x.shape) === 0) return [call.output([rows, width]).info, call.output([groups, width]).info, call.output([groups, width]).info];
  return new NormGradient(call.gpu, { dy, x, gain }, { one: call.number('one'), epsilon: call.number('epsilon') }).start();
};
