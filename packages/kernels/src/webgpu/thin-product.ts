import type { BoundJob, Job } from './product-code.js';
import { type ProductForm, isThin } from './product-form.js';
import { activations } from './wgsl.js';

/** Rows that are computed for `m` of them. */
const thinRows = (m: number): number => Math.ceil(m / 4) * 4;

const common = { thin: true, tile: [16, 16], threads: 256, takes: isThin, variant: ({ m }: Job): string => String(thinRows(m)) } as const;

/** Adds to all rows' sums `s<row>`, from `k` on in steps of `step`. */
function sumUp({ prefix: p }: BoundJob, rows: readonly number[], step: string): string {
  return `for (var k = lane * 4u; k < u.${p}K; k += ${step}) {
    let w = ${p}B(batch, column, k);
    ${rows.map((r) => `s${r} += dot(w, ${p}A(batch, ${r}u, k));`).join('\n    ')}
  }`;
}

/** For at most 16 rows: 16 threads share a column, so that the weight is read once, and add up in workgroup memory. */
export const thin: ProductForm = {
  ...common,
  name: 'thin',
  memory: `${activations}
var<workgroup> partial : array<array<f32, 256>, 4>;`,
  code: (bound) => {
    const { job, prefix: p } = bound;
    const rows = Array.from({ length: thinRows(job.m) }, (_, r) => r);
    return `${bound.code()}
fn job_${p}(tile : u32, batch : u32, thread : u32) {
  let lane = thread % 16u;
  let column = tile * 16u + thread / 16u;
  ${rows.map((r) => `var s${r} = 0.0;`).join(' ')}
  ${sumUp(bound, rows, '64u')}
  ${rows
    .filter((r) => r % 4 === 0)
    .map(
      (first) => `
  ${[0, 1, 2, 3].map((r) => `partial[${r}][thread] = s${first + r};`).join(' ')}
  workgroupBarrier();
  if (thread < 16u) {
    let row = ${first}u + thread / 4u;
    let col = tile * 16u + thread % 4u * 4u;
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

/** The same with a subgroup of whatever size for a column, which adds up without memory, and one barrier for all. */
export const thinBySubgroups: ProductForm = {
  ...common,
  name: 'thin by subgroups',
  directives: 'enable subgroups;',
  subgroups: true,
  memory: `${activations}
var<workgroup> sums : array<array<f32, 16>, 16>;`,
  code: (bound) => {
    const { job, prefix: p } = bound;
    const rows = Array.from({ length: thinRows(job.m) }, (_, r) => r);
    return `${bound.code()}
fn job_${p}(tile : u32, batch : u32, thread : u32, subgroup : u32, lane : u32, lanes : u32) {
  for (var first = 0u; first < 16u; first += 256u / lanes) {
    let own = first + subgroup;
    let column = tile * 16u + own;
    ${rows.map((r) => `var s${r} = 0.0;`).join(' ')}
    if (own < 16u) {
      ${sumUp(bound, rows, 'lanes * 4u')}
    }
    ${rows.map((r) => `s${r} = subgroupAdd(s${r});`).join(' ')}
    if (lane == 0u && own < 16u) { ${rows.map((r) => `sums[${r}][own] = s${r};`).join(' ')} }
  }
  workgroupBarrier();
  let row = thread / 4u;
  let at = thread % 4u * 4u;
  let col = tile * 16u + at;
  if (row < u.${p}M && col < u.${p}N) { finish_${p}(batch, row, col, vec4f(sums[row][at], sums[row][at + 1u], sums[row][at + 2u], sums[row][at + 3u])); }
}`;
  },
};
