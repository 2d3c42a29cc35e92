import { BackendError } from '@tinyfusion/core';
import { linearAlgebraBinary } from './linear-algebra.generated.js';

/** What assembly/ exports beside its memory; addresses are in bytes, counts in values, flags 0 or 1. */
interface Exports {
  readonly memory: WebAssembly.Memory;
  gemm(alpha: number, a: number, aRow: number, aColumn: number, b: number, bRow: number, bColumn: number, c: number, ldc: number, m: number, n: number, k: number, accumulate: number, triangle: number, scratch: number): void;
  gemmScratch(): number;
  pivotedCholesky(a: number, ld: number, n: number, least: number, order: number, variances: number, scratch: number): number;
  largestLeft(a: number, ld: number, n: number, from: number): number;
  factorProduct(l1: number, ld1: number, rank1: number, order1: number, l2: number, ld2: number, rank2: number, order2: number, n: number, rows: number, places: number, out: number, ldOut: number, scratch: number): void;
  reduceToBand(a: number, m: number, n: number, ld: number, band: number, v: number, y: number, w: number, t: number, scratch: number): void;
  bandToBidiagonal(s: number, n: number, band: number, ld: number, diagonal: number, above: number, v: number): void;
  bidiagonalValues(d: number, e: number, n: number): number;
  singleProducts(a: number, aPanels: number, aFrom: number, aTo: number, b: number, bPanels: number, bFrom: number, bTo: number, features: number, out: number, ldOut: number): void;
}

/** Memory that is kept for the next computation; more is given back. */
const keptBytes = 32 * 2 ** 20;
const pageBytes = 65_536;

let compiled: WebAssembly.Module | undefined;
let idle: LinearAlgebra | undefined;

/** float64 linear algebra in WebAssembly, with a memory of its own: matrices are put into it and read out again. */
export class LinearAlgebra {
  readonly exports: Exports;
  #end = 0;
  #scratch = 0;

  /** @throws BackendError where the engine has no WebAssembly SIMD */
  constructor() {
    try {
      // 8 KB: engines compile that at once, in pages as well
      compiled ??= new WebAssembly.Module(Uint8Array.from(atob(linearAlgebraBinary), (c) => c.charCodeAt(0)));
      this.exports = new WebAssembly.Instance(compiled).exports as unknown as Exports;
    } catch (cause) {
      throw new BackendError('the linear algebra did not compile; an engine with WebAssembly SIMD is needed (Node 16.4, Chrome 91, Firefox 89, Safari 16.4 or newer)', { cause });
    }
    this.reset();
  }

  /** Bytes of memory, used or not. */
  get size(): number {
    return this.exports.memory.buffer.byteLength;
  }

  /** Address of gemm's scratch. */
  get scratch(): number {
    return this.#scratch;
  }

  /** Forgets everything that was allocated. */
  reset(): void {
    this.#end = 1024;
    this.#scratch = this.allocate(this.exports.gemmScratch());
  }

  /** Address of room for so many bytes; what is there is left over from before. Views made earlier may end with it. */
  allocate(bytes: number): number {
    const at = this.#end;
    this.#end = at + Math.ceil(bytes / 64) * 64;
    if (this.#end > this.size) {
      try {
        this.exports.memory.grow(Math.ceil((this.#end - this.size) / pageBytes));
      } catch (cause) {
        throw new BackendError(`a computation needs ${Math.ceil(this.#end / 2 ** 20)} MB of WebAssembly memory, which this engine does not give (the limit of the format is 4096 MB); use features of fewer dimensions`, { cause });
      }
    }
    return at;
  }

  /** Address of room for `count` float64 values. */
  allocateDoubles(count: number): number {
    return this.allocate(8 * count);
  }

  /** The float64 values at an address; valid until something is allocated. */
  doubles(at: number, count: number): Float64Array<ArrayBuffer> {
    return new Float64Array(this.exports.memory.buffer as ArrayBuffer, at, count);
  }

  /** The float32 values at an address; valid until something is allocated. */
  singles(at: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.exports.memory.buffer as ArrayBuffer, at, count);
  }

  /** The int32 values at an address; valid until something is allocated. */
  integers(at: number, count: number): Int32Array<ArrayBuffer> {
    return new Int32Array(this.exports.memory.buffer as ArrayBuffer, at, count);
  }

  /** Puts a matrix into the memory with rows `ld` values apart, and says where. */
  putMatrix(values: Float64Array, rows: number, columns: number, ld: number): number {
    const at = this.allocateDoubles(rows * ld);
    const to = this.doubles(at, rows * ld);
    for (let i = 0; i < rows; i++) to.set(values.subarray(i * columns, (i + 1) * columns), i * ld);
    return at;
  }
}

/** Distance of rows: even, and no multiple of 64 values, which would put a column's values into the same lines of a cache. */
export function leadingDimension(columns: number): number {
  const even = columns + (columns % 2);
  return even % 64 === 0 ? even + 8 : even;
}

/** Runs a computation with a {@link LinearAlgebra} that is its own until it returns; nothing in it outlives that. */
export function withLinearAlgebra<T>(compute: (algebra: LinearAlgebra) => T): T {
  const algebra = idle ?? new LinearAlgebra();
  idle = undefined;
  algebra.reset();
  const result = compute(algebra);
  // not after an error: then a memory is made anew
  if (algebra.size <= keptBytes) idle = algebra;
  return result;
}
