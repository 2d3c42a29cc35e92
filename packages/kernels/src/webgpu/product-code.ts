// WGSL of matrix products C[m, n] = Σₖ A(m, k) · B(k, n): tiles for any size, and a form for few rows.
import type { Bindings } from './bindings.js';
import type { Gpu, RowView } from './gpu.js';
import type { Operand } from './operands.js';
import { activations } from './wgsl.js';

/** What happens to a product before it is written. */
export type Step =
  | { kind: 'gelu' | 'silu' }
  /** Times the derivative at x. */
  | { kind: 'geluGrad' | 'siluGrad' | 'add'; x: () => GPUBuffer }
  /** x + gate · product, gate one row for every `rows` rows. */
  | { kind: 'gate'; x: () => GPUBuffer; gate: () => RowView; rows: number };

/** One product of a dispatch. */
export interface Job {
  m: number;
  n: number;
  k: number;
  batch: number;
  a: Operand;
  b: Operand;
  bias?: GPUBuffer | undefined;
  steps: readonly Step[];
  /** Where to write what there is after so many steps. */
  outputs: readonly { after: number; buffer: GPUBuffer }[];
  /** Where to write Σₖ A(m, k). */
  rowSums?: GPUBuffer | undefined;
}

/** A {@link Job} in a shader. */
export interface BoundJob {
  variant: string;
  numbers: Record<string, number>;
  tiles: number;
  /** Tiles' code: `job_<prefix>(tile, batch, thread)`. */
  tiled(): string;
  /** Code for at most 16 rows: `job_<prefix>(tile, batch, thread)` for 16 columns. */
  thin(): string;
}

/**
 * Rows and columns of a tile, and what it sums at a time: two of them in 8 KiB of workgroup memory. (Software adapters
 * take a second to compile what zeroes 16.)
 */
const [TILE, DEPTH] = [64, 16];
/** Threads that load a tile. */
const LOADERS = (TILE / 4) * (DEPTH / 4);
/** Columns of a workgroup where rows are few. */
export const THIN_COLUMNS = 16;

/** Shared by all jobs of a tiled dispatch. */
export const tileMemory = `${activations}
var<workgroup> tileA : array<array<vec4f, ${TILE / 4}>, ${DEPTH}>;
var<workgroup> tileB : array<array<vec4f, ${TILE / 4}>, ${DEPTH}>;`;

export const thinMemory = `${activations}
var<workgroup> partial : array<array<f32, 256>, 4>;`;

export function bindJob(gpu: Gpu, job: Job, bindings: Bindings, p: string): BoundJob {
  const { m, n, k, steps, outputs, bias, rowSums } = job;
  const a = job.a.bind(gpu, bindings, `${p}A`);
  const b = job.b.bind(gpu, bindings, `${p}B`);
  const vec4 = n % 4 === 0;
  const biasName = bias && bindings.read(bias, { vec4 });
  const finish: string[] = biasName === undefined ? [] : [`v += get_${biasName}(col, left);`];
  const numbers: Record<string, number> = { ...a.numbers, ...b.numbers, [`${p}M`]: m, [`${p}N`]: n, [`${p}K`]: k, [`${p}Columns`]: Math.ceil(n / TILE) };
  const write = (after: number): void => {
    for (const output of outputs) if (output.after === after) finish.push(`put_${bindings.write(output.buffer, { vec4 })}(at, left, v);`);
  };
  write(0);
  for (const [i, step] of steps.entries()) {
    if (!('x' in step)) finish.push(`v = ${step.kind}4(v);`);
    else {
      const x = `get_${bindings.read(step.x(), { vec4 })}(at, left)`;
      if (step.kind === 'add') finish.push(`v += ${x};`);
      else if (step.kind === 'gate') {
        const { buffer, offset, stride } = step.gate();
        const gate = bindings.read(buffer, { vec4: vec4 && offset % 4 === 0 && stride % 4 === 0 });
        Object.assign(numbers, { [`${p}G${i}Rows`]: step.rows, [`${p}G${i}Offset`]: offset, [`${p}G${i}Stride`]: stride });
        finish.push(`v = ${x} + get_${gate}(u.${p}G${i}Offset + row / u.${p}G${i}Rows * u.${p}G${i}Stride + col, left) * v;`);
      } else finish.push(`v *= ${step.kind}4(${x});`);
    }
    write(i + 1);
  }
  const sums = rowSums && bindings.write(rowSums);
  const common = (): string => `${a.code()}${b.code()}
fn finish_${p}(batch : u32, row : u32, col : u32, value : vec4f) {
  var v = value;
  let left = u.${p}N - col;
  let at = (batch * u.${p}M + row) * u.${p}N + col;
  ${finish.join('\n  ')}
}`;
  return {
    variant: [a.variant, b.variant, ...finish, sums ?? ''].join(';'),
    numbers,
    tiles: Math.ceil(m / TILE) * Math.ceil(n / TILE),
    tiled: () => `${common()}
fn job_${p}(tile : u32, batch : u32, thread : u32) {
  let row0 = tile / u.${p}Columns * ${TILE}u;
  let col0 = tile % u.${p}Columns * ${TILE}u;
  let tx = thread % 16u;
  let ty = thread / 16u;
  var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
  ${sums === undefined ? '' : 'var rowSum = vec4f();'}
  for (var k0 = 0u; k0 < u.${p}K; k0 += ${DEPTH}u) {
    // the first threads load four by four values of A, the next of B
    if (thread < ${LOADERS}u) {
      ${loadBlock(job.a.summedInside, `${p}A`, 'thread', 'row0', 'tileA')}
    } else if (thread < ${2 * LOADERS}u) {
      ${loadBlock(job.b.summedInside, `${p}B`, `(thread - ${LOADERS}u)`, 'col0', 'tileB')}
    }
    workgroupBarrier();
    for (var k = 0u; k < ${DEPTH}u; k++) {
      let a = tileA[k][ty];
      let b = tileB[k][tx];
      s0 += a.x * b; s1 += a.y * b; s2 += a.z * b; s3 += a.w * b;
    }
    ${sums === undefined ? '' : `if (col0 == 0u && tx == 0u) { for (var k = 0u; k < ${DEPTH}u; k++) { rowSum += tileA[k][ty]; } }`}
    workgroupBarrier();
  }
  let row = row0 + ty * 4u;
  let col = col0 + tx * 4u;
  ${sums === undefined ? '' : `if (col0 == 0u && tx == 0u && row < u.${p}M) { put_${sums}(row, u.${p}M - row, rowSum); }`}
  if (col < u.${p}N) {
    ${[0, 1, 2, 3].map((r) => `if (row + ${r}u < u.${p}M) { finish_${p}(batch, row + ${r}u, col, s${r}); }`).join('\n    ')}
  }
}`,
    thin: () => {
      const rows = Array.from({ length: thinRows(m) }, (_, r) => r);
      return `${common()}
fn job_${p}(tile : u32, batch : u32, thread : u32) {
  let lane = thread % 16u;
  let column = tile * ${THIN_COLUMNS}u + thread / 16u;
  ${rows.map((r) => `var s${r} = 0.0;`).join(' ')}
  for (var k = lane * 4u; k < u.${p}K; k += 64u) {
    let w = ${p}B(batch, column, k);
    ${rows.map((r) => `s${r} += dot(w, ${p}A(batch, ${r}u, k));`).join('\n    ')}
  }
  ${rows
    .filter((r) => r % 4 === 0)
    .map(
      (first) => `
  ${[0, 1, 2, 3].map((r) => `partial[${r}][thread] = s${first + r};`).join(' ')}
  workgroupBarrier();
  if (thread < 16u) {
    let row = ${first}u + thread / 4u;
    let col = tile * ${THIN_COLUMNS}u + thread % 4u * 4u;
    if (row < u.${p}M && col < u.${p}N) {
      var v = vec4f();
      for (var i = 0u; i < 16u; i++) {
        let at = thread % 4u * 64u + i;
        v += vec4f(partial[thread / 4u][at], partial[thread / 4u][at + 16u], partial[thread / 4u][at + 32u], partial[thread / 4u][at + 48u]);
      }
      finish_${p}(batch, row, col, v);
    }
  }
  workgroupBarrier();`,
    )
    .join('')}
}`;
    },
  };
}

/** Rows that the thin form computes for `m` of them. */
export function thinRows(m: number): number {
  return Math.ceil(m / 4) * 4;
}

/** Four by four values into a tile, whose vectors lie along the axis that stays. */
function loadBlock(summedInside: boolean, load: string, thread: string, start: string, tile: string): string {
  const four = [0, 1, 2, 3];
  if (!summedInside) {
    return `let o = ${thread} % 16u;
      let kb = ${thread} / 16u * 4u;
      ${four.map((j) => `${tile}[kb + ${j}u][o] = ${load}(batch, k0 + kb + ${j}u, ${start} + o * 4u);`).join('\n      ')}`;
  }
  return `let kb = ${thread} % ${DEPTH / 4}u * 4u;
      let o = ${thread} / ${DEPTH / 4}u;
      ${four.map((r) => `let r${r} = ${load}(batch, ${start} + o * 4u + ${r}u, k0 + kb);`).join('\n      ')}
      ${four.map((j) => `${tile}[kb + ${j}u][o] = vec4f(r0[${j}], r1[${j}], r2[${j}], r3[${j}]);`).join('\n      ')}`;
}
