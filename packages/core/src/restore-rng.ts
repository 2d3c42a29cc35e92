import { ArgumentError } from './errors.js';
import { type PhiloxState, type Rng, createRng } from './rng.js';
import { type TorchCpuState, torchCpu } from './torch-cpu.js';
import { type TorchCudaState, torchCuda } from './torch-cuda.js';

/** Position of a stream of any kind; plain JSON. */
export type RngState = PhiloxState | TorchCpuState | TorchCudaState;

/** A stream that goes on where a saved one stood. @throws ArgumentError where the state is of no kind that there is, or broken */
export function restoreRng(state: RngState): Rng {
  switch ((state as RngState | null | undefined)?.kind) {
    case 'philox4x32':
      return createRng(state as PhiloxState);
    case 'torch-cpu':
      return torchCpu(state as TorchCpuState);
    case 'torch-cuda':
      return torchCuda(state as TorchCudaState);
    default:
      throw new ArgumentError('RngState.kind', (state as { kind?: unknown } | null | undefined)?.kind, "'philox4x32', 'torch-cpu' or 'torch-cuda'");
  }
}
