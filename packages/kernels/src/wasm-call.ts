import { BackendError, invariant } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';
import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';

/** What assembly/ exports; pointers and counts are numbers, flags 0 or 1. */
export type Exports = Record<string, (...args: number[]) => number>;

let scratch = { at: 0, size: 0 };

/** One invocation of a kernel: addresses of its inputs, and outputs made for it. */
export class Call {
  constructor(
    readonly lib: Exports,
    readonly backend: BackendWasm,
    readonly inputs: Record<string, tf.TensorInfo>,
    readonly attributes: Record<string, never>,
  ) {}

  input(name: string): tf.TensorInfo {
    const info = this.inputs[name];
    invariant(info, `kernel input ${name}`);
    return info;
  }

  shape(name: string): number[] {
    return this.input(name).shape;
  }

  size(name: string): number {
    return sizeOf(this.shape(name));
  }

  number(name: string): number {
    return this.attributes[name] as unknown as number;
  }

  list(name: string): number[] {
    return this.attributes[name] as unknown as number[];
  }

  /** Address of a tensor's floats on the heap, or of packed words; 0 where the input is absent. @throws BackendError where it holds values of another type */
  at(tensor: string | tf.TensorInfo): number {
    const info = typeof tensor === 'string' ? this.inputs[tensor] : tensor;
    if (info === undefined) return 0;
    const wanted = tensor === 'words' ? 'int32' : 'float32';
    if (info.dtype !== wanted) throw new BackendError(`a kernel on wasm reads ${wanted} values, got ${info.dtype}${typeof tensor === 'string' ? ` as ${tensor}` : ''}; cast it first`);
    return addressOf(this.backend, info);
  }

  output(shape: readonly number[]): tf.TensorInfo {
    return this.backend.makeOutput([...shape], 'float32');
  }

  /** Scratch for `floats` values, then a matrix product, aligned to 16; valid until the next call. */
  scratch(floats = 0): number {
    const size = floats * 4 + gemmScratch(this.lib);
    if (scratch.size < size) {
      const wasm = this.backend.wasm as unknown as { _malloc(size: number): number; _free(at: number): void };
      if (scratch.at !== 0) wasm._free(scratch.at);
      const at = wasm._malloc(size);
      if (at === 0) throw new BackendError(`the WASM heap has no room for ${(size / 2 ** 20).toFixed(0)} MiB of scratch; it ends at 4 GiB. Use a smaller batch.`);
      scratch = { at, size };
    }
    return (scratch.at + 15) & ~15;
  }
}

/** Bytes that a matrix product needs as scratch, with room for alignment. */
export function gemmScratch(lib: Exports): number {
  return lib['gemmScratch']!() + 64;
}

/** What tfjs keeps of each tensor on its heap. */
const places = (backend: BackendWasm): Pick<Map<object, { memoryOffset: number }>, 'get' | 'has'> => (backend as unknown as { dataIdMap: Map<object, { memoryOffset: number }> }).dataIdMap;

/** Where a tensor's values begin on the heap. */
export const addressOf = (backend: BackendWasm, { dataId }: tf.TensorInfo): number => places(backend).get(dataId)!.memoryOffset;

/** Whether a tensor's values are there, and not on another backend. */
export const isOnHeap = (backend: BackendWasm, { dataId }: tf.TensorInfo): boolean => places(backend).has(dataId);

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
