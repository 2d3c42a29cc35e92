import type * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Kernel, sizeOf } from './call.js';
import { type Gpu, spread } from './gpu.js';
import type { DataId } from './internals.js';
import { Pending } from './pending.js';
import { totalOf } from './wgsl.js';

/** Elements that a workgroup sums at least, and workgroups of a tensor at most. */
const [SHARE, MOST_SHARES] = [4096, 256];

/** Sums that wait, by device: those of many tensors take two dispatches. */
const waiting = new WeakMap<Gpu, Squares[]>();

class Squares extends Pending {
  constructor(
    gpu: Gpu,
    readonly x: tf.TensorInfo,
  ) {
    super(gpu);
    this.hold(x);
  }

  start(): tf.TensorInfo {
    return this.result([]);
  }

  override get due(): undefined {
    return undefined;
  }

  protected compute(_id: DataId): void {
    runSquares(this.gpu, waiting.get(this.gpu)!.splice(0));
  }

  take(): GPUBuffer {
    return this.fill([...this.live][0]!);
  }

  done(): void {
    this.settled();
  }
}

/** Σ x². */
export const sumOfSquares: Kernel = (call) => {
  const { gpu } = call;
  let queue = waiting.get(gpu);
  if (queue === undefined) waiting.set(gpu, (queue = []));
  if (queue.length >= gpu.mostBindings - 1) runSquares(gpu, queue.splice(0));
  const work = new Squares(gpu, call.info('x'));
  queue.push(work);
  return work.start();
};

function runSquares(gpu: Gpu, queue: readonly Squares[]): void {
  const wanted = queue.filter((work) => work.live.size > 0);
  const most = gpu.mostBindings - 1;
  for (let i = 0; i < wanted.length; i += most) runGroup(gpu, wanted.slice(i, i + most));
}

function runGroup(gpu: Gpu, group: readonly Squares[]): void {
  const first = new Bindings();
  const numbers: Record<string, number> = {};
  let end = 0;
  const bodies = group.map((work, i) => {
    const count = sizeOf(work.x.shape);
    const x = first.read(gpu.buffer(work.x));
    const shares = Math.max(1, Math.min(MOST_SHARES, Math.ceil(count / SHARE)));
    Object.assign(numbers, { [`count${i}`]: count, [`start${i}`]: end, [`end${i}`]: (end += shares) });
    return `if (share < u.end${i}) { for (var i = (share - u.start${i}) * 256u + thread; i < u.count${i}; i += (u.end${i} - u.start${i}) * 256u) { let v = ${x}[i]; sum += v * v; } }`;
  });
  const partial = gpu.scratch(end);
  const to = first.write(partial);
  gpu.pipelines.run({
    name: 'squares',
    bindings: first,
    numbers: { ...numbers, shares: end },
    workgroup: 256,
    groups: spread(end),
    code: () => ({
      declarations: totalOf('f32', 256),
      main: `
  let share = group.x + group.y * groups.x;
  if (share >= u.shares) { return; }
  var sum = 0.0;
  ${bodies.join(' else ')}
  let all = total(sum, thread);
  if (thread == 0u) { ${to}[share] = all; }`,
    }),
  });
  const second = new Bindings();
  const parts = second.read(partial);
  const outputs = group.map((work) => second.write(work.take()));
  gpu.pipelines.run({
    name: 'squaresTotal',
    bindings: second,
    numbers,
    workgroup: 64,
    groups: [group.length, 1, 1],
    code: () => ({
      declarations: totalOf('f32', 64),
      main: `
  var start = 0u; var end = 0u;
  ${outputs.map((_, i) => `if (group.x == ${i}u) { start = u.start${i}; end = u.end${i}; }`).join('\n  ')}
  var sum = 0.0;
  for (var i = start + thread; i < end; i += 64u) { sum += ${parts}[i]; }
  let all = total(sum, thread);
  ${outputs.map((name, i) => `if (group.x == ${i}u && thread == 0u) { ${name}[0] = all; }`).join('\n  ')}`,
    }),
  });
  gpu.free(partial);
  for (const work of group) work.done();
}
