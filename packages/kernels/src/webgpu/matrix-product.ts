import type { ProductForm } from './product-form.js';
import { toHalf } from './product-form.js';
import { activations } from './wgsl.js';

/** An entry of `GPUAdapterInfo.subgroupMatrixConfigs`. */
export interface SubgroupMatrixConfig {
  componentType: string;
  resultComponentType: string;
  M: number;
  N: number;
  K: number;
}

/** Threads of a workgroup, a multiple of any subgroup's size. */
const THREADS = 128;
/** Rows and columns of a workgroup's tile. */
const TILE = 64;

/** The WGSL of subgroup matrices; tests put another in its place where there are none. */
export const subgroupMatrixWgsl = {
  directives: 'enable subgroups; enable chromium_experimental_subgroup_matrix; diagnostic(off, chromium.subgroup_matrix_uniformity);',
  left: (type: string, { M, K }: SubgroupMatrixConfig, from: string, at: string, stride: number): string => `subgroupMatrixLoad<subgroup_matrix_left<${type}, ${K}, ${M}>, row_major>(&${from}, ${at}, ${stride}u)`,
  right: (type: string, { N, K }: SubgroupMatrixConfig, from: string, at: string, stride: number): string => `subgroupMatrixLoad<subgroup_matrix_right<${type}, ${N}, ${K}>, col_major>(&${from}, ${at}, ${stride}u)`,
  sum: ({ M, N }: SubgroupMatrixConfig): string => `subgroup_matrix_result<f32, ${N}, ${M}>`,
  add: (left: string, right: string, sum: string): string => `${sum} = subgroupMatrixMultiplyAccumulate(${left}, ${right}, ${sum});`,
  store: ({ N }: SubgroupMatrixConfig, to: string, at: string, sum: string): string => `subgroupMatrixStore<row_major>(&${to}, ${at}, ${sum}, ${N}u);`,
};

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/**
 * Products by the matrix units of the device, which subgroups use together: `chromium_experimental_subgroup_matrix`. Sums
 * are float32; float16 operands are only for weights that are held so.
 * @param lanes most threads of a subgroup; where there are fewer, some subgroups compute the same
 * @returns `undefined` where tiles cannot be made of such matrices
 */
export function byMatrices(config: SubgroupMatrixConfig, lanes: number, wgsl = subgroupMatrixWgsl): ProductForm | undefined {
  const { componentType: type, resultComponentType, M, N, K } = config;
  const half = type === 'f16';
  const depth = half ? 32 : 16;
  // subgroups that work, side by side and below each other, each on a part of the tile
  const workers = THREADS / lanes;
  const below = Math.min(2, workers);
  const beside = workers / below;
  const [height, width] = [TILE / below, TILE / beside];
  const whole = [workers, height / M, width / N, depth / K, N / 4].every(Number.isInteger);
  if (!whole || resultComponentType !== 'f32' || (type !== 'f16' && type !== 'f32')) return undefined;
  // eight more, so that rows do not all lie in the same banks
  const stride = depth + 8;
  const blocks = (TILE * depth) / 16;
  const [rows, columns] = [upTo(height / M), upTo(width / N)];
  return {
    name: `${M}×${N}×${K} matrices of ${type === 'f16' ? 'float16' : 'float32'}`,
    tile: [TILE, TILE],
    threads: THREADS,
    directives: `${half ? 'enable f16; ' : ''}${wgsl.directives}`,
    subgroups: true,
    half,
    memory: `${activations}
var<workgroup> tileA : array<${type}, ${TILE * stride}>;
var<workgroup> tileB : array<${type}, ${TILE * stride}>;
var<workgroup> results : array<f32, ${workers * M * N}>;`,
    takes: ({ b, rowSums }) => rowSums === undefined && (!half || b.half === true),
    code: ({ job, prefix: p, code }) => `${code()}
fn job_${p}(tile : u32, batch : u32, thread : u32, subgroup : u32, lane : u32, lanes : u32) {
  let row0 = tile / u.${p}Columns * ${TILE}u;
  let col0 = tile % u.${p}Columns * ${TILE}u;
  let worker = subgroup % ${workers}u;
  let down = worker / ${beside}u * ${height}u;
  let right = worker % ${beside}u * ${width}u;
  ${rows.flatMap((i) => columns.map((j) => `var s${i}_${j} : ${wgsl.sum(config)};`)).join(' ')}
  for (var k0 = 0u; k0 < u.${p}K; k0 += ${depth}u) {
    for (var i = thread; i < ${2 * blocks}u; i += ${THREADS}u) {
      if (i < ${blocks}u) {
        ${loadBlock(job.a.summedInside, `${p}A`, 'i', 'row0', 'tileA')}
      } else {
        ${loadBlock(job.b.summedInside, `${p}B`, `(i - ${blocks}u)`, 'col0', 'tileB')}
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < ${depth}u; k += ${K}u) {
      ${rows.map((i) => `let a${i} = ${wgsl.left(type, config, 'tileA', `(down + ${i * M}u) * ${stride}u + k`, stride)};`).join('\n      ')}
      ${columns.map((j) => `let b${j} = ${wgsl.right(type, config, 'tileB', `(right + ${j * N}u) * ${stride}u + k`, stride)};`).join('\n      ')}
      ${rows.flatMap((i) => columns.map((j) => wgsl.add(`a${i}`, `b${j}`, `s${i}_${j}`))).join('\n      ')}
    }
    workgroupBarrier();
  }
  ${rows.flatMap((i) => columns.map((j) => `${wgsl.store(config, 'results', `worker * ${M * N}u`, `s${i}_${j}`)}
  workgroupBarrier();
  for (var i = thread; i < ${(workers * M * N) / 4}u; i += ${THREADS}u) {
    let whose = i / ${(M * N) / 4}u;
    let row = row0 + whose / ${beside}u * ${height}u + ${i * M}u + i % ${(M * N) / 4}u / ${N / 4}u;
    let col = col0 + whose % ${beside}u * ${width}u + ${j * N}u + i % ${N / 4}u * 4u;
    if (row < u.${p}M && col < u.${p}N) { finish_${p}(batch, row, col, vec4f(results[4u * i], results[4u * i + 1u], results[4u * i + 2u], results[4u * i + 3u])); }
  }
  workgroupBarrier();`)).join('\n  ')}
}`,
  };

  /** Four by four values into a tile, whose rows lie along the axis that is summed over. */
  function loadBlock(summedInside: boolean, load: string, block: string, start: string, tile: string): string {
    const four = [0, 1, 2, 3];
    const value = (vector: string): string => (half ? toHalf(vector) : vector);
    const [k, o] = summedInside ? [`${block} % ${depth / 4}u * 4u`, `${block} / ${depth / 4}u * 4u`] : [`${block} / ${TILE / 4}u * 4u`, `${block} % ${TILE / 4}u * 4u`];
    const at = (outer: number, inner: number): string => `${tile}[(o + ${outer}u) * ${stride}u + kb + ${inner}u]`;
    return `let kb = ${k};
        let o = ${o};
        ${four
          .map((r) =>
            summedInside
              ? `let v${r} = ${value(`${load}(batch, ${start} + o + ${r}u, k0 + kb)`)}; ${four.map((j) => `${at(r, j)} = v${r}[${j}];`).join(' ')}`
              : `let v${r} = ${value(`${load}(batch, k0 + kb + ${r}u, ${start} + o)`)}; ${four.map((j) => `${at(j, r)} = v${r}[${j}];`).join(' ')}`,
          )
          .join('\n        ')}`;
  }
}
