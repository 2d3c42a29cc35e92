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
export type { LongTaskOptions, OnProgress, ProgressEvent } from './progress.js';
export { createRng, type Rng, type RngState } from './rng.js';
