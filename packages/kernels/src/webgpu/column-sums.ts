import { Bindings } from './bindings.js';
import type { Gpu } from './gpu.js';

/** Rows that a workgroup sums. */
const SLICE = 512;

/** Sums over the rows of `[R, D]`, through sums of slices where there are many rows. */
export function columnSums(gpu: Gpu, x: GPUBuffer, result: GPUBuffer, [rows, width]: readonly [number, number]): void {
  const slices = Math.ceil(rows / SLICE);
  const partial = slices > 1 ? gpu.scratch(slices * width) : result;
  const bindings = new Bindings();
  const from = bindings.read(x);
  const to = bindings.write(partial);
  gpu.pipelines.run({
    name: 'columnSums',
    bindings,
    numbers: { rows, width },
    workgroup: 256,
    groups: [Math.ceil(width / 64), slices, 1],
    code: () => ({
      declarations: 'var<workgroup> partial : array<f32, 256>;',
      main: `
  let column = group.x * 64u + thread % 64u;
  var sum = 0.0;
  if (column < u.width) {
    let end = min(u.rows, (group.y + 1u) * ${SLICE}u);
    for (var row = group.y * ${SLICE}u + thread / 64u; row < end; row += 4u) { sum += ${from}[row * u.width + column]; }
  }
  partial[thread] = sum;
  workgroupBarrier();
  if (thread < 64u && column < u.width) { ${to}[group.y * u.width + column] = partial[thread] + partial[thread + 64u] + partial[thread + 128u] + partial[thread + 192u]; }`,
    }),
  });
  if (slices === 1) return;
  columnSums(gpu, partial, result, [slices, width]);
  gpu.free(partial);
}
