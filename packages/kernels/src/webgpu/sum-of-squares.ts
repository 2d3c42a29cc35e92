import type * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Kernel, sizeOf } from './call.js';
import { type Gpu, spread } from './gpu.js';
import { totalOf } from './wgsl.js';

/** Elements that a workgroup sums at least, and workgroups of a tensor at most. */
const [SHARE, MOST_SHARES] = [4096, 256];

const sharesOf = (x: tf.TensorInfo): number => Math.max(1, Math.min(MOST_SHARES, Math.ceil(sizeOf(x.shape) / SHARE)));

/** Σ x² of one tensor, or of all that are given: sums of shares, as many tensors a dispatch as it can bind, then their sum. */
export const sumOfSquares: Kernel = (call) => {
  const { gpu } = call;
  const tensors = Object.values(call.inputs) as tf.TensorInfo[];
  for (const x of tensors) gpu.buffer(x);
  const shares = tensors.reduce((sum, x) => sum + sharesOf(x), 0);
  const partial = gpu.scratch(shares);
  const most = gpu.mostBindings - 1;
  let start = 0;
  for (let i = 0; i < tensors.length; i += most) start = sumShares(gpu, tensors.slice(i, i + most), partial, start);
  const out = call.output([]);
  const bindings = new Bindings();
  const from = bindings.read(partial);
  const to = bindings.write(out.buffer);
  gpu.pipelines.run({
    name: 'squaresTotal',
    bindings,
    numbers: { shares },
    workgroup: 256,
    groups: [1, 1, 1],
    code: () => ({
      declarations: totalOf('f32', 256),
      main: `
  var sum = 0.0;
  for (var i = thread; i < u.shares; i += 256u) { sum += ${from}[i]; }
  let all = total(sum, thread);
  if (thread == 0u) { ${to}[0] = all; }`,
    }),
  });
  gpu.free(partial);
  return out.info;
};

/** Writes the shares of some tensors from `start` on. @returns where the next begin */
function sumShares(gpu: Gpu, tensors: readonly tf.TensorInfo[], partial: GPUBuffer, start: number): number {
  const bindings = new Bindings();
  const numbers: Record<string, number> = {};
  let end = 0;
  const bodies = tensors.map((tensor, i) => {
    const x = bindings.read(gpu.buffer(tensor));
    Object.assign(numbers, { [`count${i}`]: sizeOf(tensor.shape), [`start${i}`]: end, [`end${i}`]: (end += sharesOf(tensor)) });
    return `if (share < u.end${i}) { for (var i = (share - u.start${i}) * 256u + thread; i < u.count${i}; i += (u.end${i} - u.start${i}) * 256u) { let v = ${x}[i]; sum += v * v; } }`;
  });
  const to = bindings.write(partial);
  gpu.pipelines.run({
    name: 'squares',
    bindings,
    numbers: { ...numbers, shares: end, offset: start },
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
  if (thread == 0u) { ${to}[u.offset + share] = all; }`,
    }),
  });
  return start + end;
}
