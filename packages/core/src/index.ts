export { concatenate } from './concatenate.js';
export {
  ArgumentError,
  BackendError,
  CancelledError,
  CheckpointError,
  DataError,
  ShapeError,
  TinyFusionError,
  invariant,
  throwIfCancelled,
  type TinyFusionErrorOptions,
} from './errors.js';
export { printable } from './printable.js';
export type { LongTaskOptions, OnProgress, ProgressEvent } from './progress.js';
export { numpyRandom, type NumpyRandom } from './numpy-random.js';
export { restoreRng, type RngState } from './restore-rng.js';
export { createRng, partOfNormal, type PhiloxRng, type PhiloxState, type Rng } from './rng.js';
export { torchCpu, type TorchCpuRng, type TorchCpuState } from './torch-cpu.js';
export { torchCuda, type TorchCudaOptions, type TorchCudaRng, type TorchCudaState } from './torch-cuda.js';
