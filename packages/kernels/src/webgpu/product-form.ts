import type { BoundJob, Job } from './product-code.js';

/** A way to compute products: all give the same, some need what not every device has, and which is fastest differs. */
export interface ProductForm {
  /** Tells shaders apart, and is shown. */
  readonly name: string;
  /** Rows and columns of the result that a workgroup computes. */
  readonly tile: readonly [rows: number, columns: number];
  /** Threads of a workgroup. */
  readonly threads: number;
  /** WGSL before all declarations. */
  readonly directives?: string;
  /** Whether jobs are told `subgroup`, `lane` and `lanes`: which subgroup of the workgroup, which thread of it, and how many it has. */
  readonly subgroups?: boolean;
  /** Whether it is for few rows, and for nothing else. */
  readonly thin?: boolean;
  /** Whether operands become float16, which only weights that are held so allow. */
  readonly half?: boolean;
  /** WGSL that all jobs of a dispatch share. */
  readonly memory: string;
  /** Whether it can compute a job. */
  takes(job: Job): boolean;
  /** What its code depends on beside the bound job. */
  variant?(job: Job): string;
  /** WGSL of `job_<prefix>(tile, batch, thread)`; tiles are numbered row by row, `u.<prefix>Columns` to a row. */
  code(bound: BoundJob): string;
}

/** float32 as float16. What is larger than any float16 becomes the largest, not infinity. */
export const toHalf = (vector: string): string => `vec4h(clamp(${vector}, vec4f(-65504.0), vec4f(65504.0)))`;

/** Most rows for the forms that read the weight once. */
const THIN_ROWS = 16;

/** Whether a job has so few rows that reading the weight is all there is to it. */
export function isThin({ m, batch, a, b, rowSums }: Job): boolean {
  return m <= THIN_ROWS && batch === 1 && a.summedInside && b.summedInside && rowSums === undefined;
}
