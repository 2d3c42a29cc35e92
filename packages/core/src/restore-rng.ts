import { ArgumentError } from './errors.js';
import { type PhiloxState, type Rng, createRng } from './rng.js';
import { type TorchCpuState, torchCpu } from './torch-cpu.js';
import { type TorchCudaState, torchCuda } from './torch-cuda.js';

/** Position of a stream of any kind; plain JSON. */
export type RngState = PhiloxState | TorchCpuState | TorchCudaState;

/** A stream that goes on where a saved one stood. @throws ArgumentError where the state is of no kind that there is */
export function restoreRng(state: RngState): Rng {
  switch (state.kind) {
    case 'philox4x32':
      return createRng(state);
    case 'torch-cpu':
      return torchCpu(state);
    case 'torch-cuda':
      return torchCuda(state);
    default:
      throw new ArgumentError('RngState.kind', (state as { kind?: unknown }).kind, "'philox4x32', 'torch-cpu' or 'torch-cuda'");
  }
}
