import { CheckpointError } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import { type StateDict, type TensorRecord, safetensorsOf, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { AdamW } from './adamw.js';
import type { Ema } from './ema.js';
import { parseProgress, progressText } from './progress-text.js';

/** Everything of a run that changes with its steps, but for what is plain JSON. */
export interface TrainingParts {
  /** A module, or parameters with names of their own. */
  model: Module | readonly (readonly [name: string, parameter: tf.Variable])[];
  optimizer: AdamW | readonly AdamW[];
  ema?: Ema;
}

const PROGRESS_KEY = 'tinyfusion.progress';

/**
 * A run as it is now, from which it goes on as if it had not stopped. Values are read from the device when they are asked
 * for, tensor by tensor, so that a run of any size can be written; they stay those of now until it is disposed of, whatever
 * parts are assigned meanwhile, but for a step of an optimiser.
 * @param progress plain JSON: step, positions of random streams and data, history
 */
export function trainingState(parts: TrainingParts, progress: object): StateDict & Disposable {
  const { optimizers, ema } = contentsOf(parts);
  const held: tf.Tensor[] = [];
  const tensors = new Map<string, TensorRecord>();
  for (const [name, tensor] of namedTensors(parts)) {
    // shares its values, and keeps them where the variable is given others
    const now = tf.keep(tf.clone(tensor));
    held.push(now);
    tensors.set(name, { dtype: 'F32', shape: tensor.shape, read: async () => bytesOf(await now.data()) });
  }
  const metadata = new Map([[PROGRESS_KEY, progressText({ optimizerSteps: optimizers.map((o) => o.steps), emaUpdates: ema?.updates ?? 0, progress })]]);
  return { tensors, metadata, [Symbol.dispose]: () => tf.dispose(held) };
}

const bytesOf = (values: tf.TypedArray): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** {@link trainingState} as a safetensors file in memory: below 4 GB, so of less than 268 M parameters with averages. */
export async function saveTrainingState(parts: TrainingParts, progress: object): Promise<Uint8Array<ArrayBuffer>> {
  using state = trainingState(parts, progress);
  return await safetensorsOf(state);
}

/** The progress of a saved run alone, for what has to be known before there are parts. @throws CheckpointError where the file is none */
export function trainingProgress<P extends object>(state: StateDict): P {
  return storedProgress<P>(state).progress;
}

interface Stored<P> {
  optimizerSteps: number[];
  emaUpdates: number;
  progress: P;
}

function storedProgress<P extends object>(state: StateDict): Stored<P> {
  const text = state.metadata.get(PROGRESS_KEY);
  if (text === undefined) throw new CheckpointError('the checkpoint is no saved run; resume from the file that the run itself wrote');
  let stored: Partial<Stored<P>> | null | undefined;
  try {
    stored = parseProgress(text) as Partial<Stored<P>> | null;
  } catch (cause) {
    throw new CheckpointError(`the saved run's ${PROGRESS_KEY} is damaged: it is no JSON`, { cause });
  }
  const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;
  const { optimizerSteps, emaUpdates, progress } = stored ?? {};
  if (!Array.isArray(optimizerSteps) || !optimizerSteps.every(isCount) || !isCount(emaUpdates) || typeof progress !== 'object' || progress === null) throw new CheckpointError(`the saved run's ${PROGRESS_KEY} is damaged: expected counts of steps and updates, and a progress`);
  return { optimizerSteps, emaUpdates: emaUpdates!, progress };
}

/**
 * Puts a saved run back into its parts.
 * @returns the progress that was saved with it
 * @throws CheckpointError where the file is of another model or another kind of run, or cannot be read; nothing is changed then
 */
export async function restoreTrainingState<P extends object>(state: StateDict, parts: TrainingParts): Promise<P> {
  const { optimizerSteps, emaUpdates, progress } = storedProgress<P>(state);
  const { parameters, optimizers, ema } = contentsOf(parts);
  if (optimizerSteps.length !== optimizers.length) throw new CheckpointError(`the saved run has ${optimizerSteps.length} optimisers, expected ${optimizers.length}. Was it made with another model or configuration?`);
  const wanted = namedTensors(parts).map(([name, { shape }]) => [name, shape] as const);
  for (const [name, shape] of wanted) {
    const found = state.tensors.get(name);
    if (found === undefined || String(found.shape) !== String(shape)) throw new CheckpointError(`the saved run does not fit: ${name} is ${found === undefined ? 'missing' : `[${found.shape.join(', ')}]`}, expected [${shape.join(', ')}]. Was it made with another model or configuration?`);
  }
  if (state.tensors.size !== wanted.length) throw new CheckpointError(`the saved run has ${state.tensors.size} tensors, expected ${wanted.length}. Was it made with another model or configuration?`);
  const read: tf.Tensor[] = [];
  try {
    for (const [name, shape] of wanted) read.push(tf.tensor(await toFloat32(state.tensors.get(name)!), [...shape], 'float32'));
    // in the order of their names
    const left = [...read];
    const next = (count: number): tf.Tensor[] => left.splice(0, count);
    for (const [i, value] of next(parameters.length).entries()) parameters[i]![1].assign(value);
    const counts = optimizers.map((o) => o.moments().m.length);
    const [first, second] = [counts.map(next), counts.map(next)];
    for (const [i, optimizer] of optimizers.entries()) optimizer.restore({ step: optimizerSteps[i]!, m: first[i]!, v: second[i]! });
    ema?.restore(left, emaUpdates);
  } finally {
    tf.dispose(read);
  }
  return progress;
}

/** All tensors of a run under their names in its file: parameters, first moments, second moments, averages. */
function namedTensors(parts: TrainingParts): (readonly [name: string, tensor: tf.Tensor])[] {
  const { parameters, m, v, ema } = contentsOf(parts);
  const numbered = (prefix: string, tensors: readonly tf.Tensor[]) => tensors.map((tensor, i) => [`${prefix}.${i}`, tensor] as const);
  return [...parameters.map(([name, parameter]) => [`model.${name}`, parameter as tf.Tensor] as const), ...numbered('optimizer.m', m), ...numbered('optimizer.v', v), ...numbered('ema', ema?.averages() ?? [])];
}

/** Parameters, optimisers and averages of a run, with all of the moments in order. */
export function contentsOf({ model, optimizer, ema }: TrainingParts): { parameters: (readonly [string, tf.Variable])[]; optimizers: readonly AdamW[]; m: tf.Tensor[]; v: tf.Tensor[]; ema: Ema | undefined } {
  const optimizers: readonly AdamW[] = Array.isArray(optimizer) ? optimizer : [optimizer as AdamW];
  const moments = optimizers.map((o) => o.moments());
  return { parameters: Array.isArray(model) ? [...(model as readonly (readonly [string, tf.Variable])[])] : [...(model as Module).namedParameters()], optimizers, m: moments.flatMap((o) => [...o.m]), v: moments.flatMap((o) => [...o.v]), ema };
}
