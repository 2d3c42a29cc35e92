import { CheckpointError } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import { type StateDict, type WritableTensor, toFloat32, writableTensor, writeSafetensors } from '@tinyfusion/weights';
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
 * A run as a safetensors file, from which it goes on as if it had not stopped.
 * @param progress plain JSON: step, positions of random streams and data, history
 */
export async function saveTrainingState(parts: TrainingParts, progress: object): Promise<Uint8Array<ArrayBuffer>> {
  const { parameters, optimizers, m, v, ema } = contentsOf(parts);
  const tensors: [string, tf.Tensor][] = [
    ...parameters.map(([name, p]): [string, tf.Tensor] => [`model.${name}`, p]),
    ...m.map((t, i): [string, tf.Tensor] => [`optimizer.m.${i}`, t]),
    ...v.map((t, i): [string, tf.Tensor] => [`optimizer.v.${i}`, t]),
    ...(ema?.averages() ?? []).map((t, i): [string, tf.Tensor] => [`ema.${i}`, t]),
  ];
  const written: [string, WritableTensor][] = [];
  for (const [name, tensor] of tensors) written.push([name, writableTensor(Float32Array.from(await tensor.data()), tensor.shape)]);
  return writeSafetensors(written, [[PROGRESS_KEY, progressText({ optimizerSteps: optimizers.map((o) => o.steps), emaUpdates: ema?.updates ?? 0, progress })]]);
}

/** The progress of a saved run alone, for what has to be known before there are parts. @throws CheckpointError where the file is none */
export function trainingProgress<P extends object>(state: StateDict): P {
  return storedProgress<P>(state).progress;
}

function storedProgress<P extends object>(state: StateDict): { optimizerSteps: number[]; emaUpdates: number; progress: P } {
  const text = state.metadata.get(PROGRESS_KEY);
  if (text === undefined) throw new CheckpointError('the checkpoint is no saved run; resume from the file that the run itself wrote');
  return parseProgress(text) as { optimizerSteps: number[]; emaUpdates: number; progress: P };
}

/**
 * Puts a saved run back into its parts.
 * @returns the progress that was saved with it
 * @throws CheckpointError where the file is of another model or another kind of run; nothing is changed then
 */
export async function restoreTrainingState<P extends object>(state: StateDict, parts: TrainingParts): Promise<P> {
  const { optimizerSteps, emaUpdates, progress } = storedProgress<P>(state);
  const { parameters, optimizers, m, v, ema } = contentsOf(parts);
  if (optimizerSteps.length !== optimizers.length) throw new CheckpointError(`the saved run has ${optimizerSteps.length} optimisers, expected ${optimizers.length}. Was it made with another model or configuration?`);
  const wanted = new Map<string, readonly number[]>([
    ...parameters.map(([name, p]): [string, readonly number[]] => [`model.${name}`, p.shape]),
    ...m.map((t, i): [string, readonly number[]] => [`optimizer.m.${i}`, t.shape]),
    ...v.map((t, i): [string, readonly number[]] => [`optimizer.v.${i}`, t.shape]),
    ...(ema?.averages() ?? []).map((t, i): [string, readonly number[]] => [`ema.${i}`, t.shape]),
  ]);
  for (const [name, shape] of wanted) {
    const found = state.tensors.get(name);
    if (found === undefined || String(found.shape) !== String(shape)) throw new CheckpointError(`the saved run does not fit: ${name} is ${found === undefined ? 'missing' : `[${found.shape.join(', ')}]`}, expected [${shape.join(', ')}]. Was it made with another model or configuration?`);
  }
  if (state.tensors.size !== wanted.size) throw new CheckpointError(`the saved run has ${state.tensors.size} tensors, expected ${wanted.size}. Was it made with another model or configuration?`);
  const read = async (name: string): Promise<tf.Tensor> => tf.tensor(await toFloat32(state.tensors.get(name)!), [...wanted.get(name)!]);
  for (const [name, parameter] of parameters) {
    const value = await read(`model.${name}`);
    parameter.assign(value);
    value.dispose();
  }
  const saved = async (prefix: string, count: number): Promise<tf.Tensor[]> => Promise.all(Array.from({ length: count }, (_, i) => read(`${prefix}.${i}`)));
  const [first, second, averages] = [await saved('optimizer.m', m.length), await saved('optimizer.v', v.length), await saved('ema', ema?.averages().length ?? 0)];
  let at = 0;
  for (const [i, optimizer] of optimizers.entries()) {
    const count = optimizer.moments().m.length;
    optimizer.restore({ step: optimizerSteps[i]!, m: first.slice(at, at + count), v: second.slice(at, at + count) });
    at += count;
  }
  ema?.restore(averages, emaUpdates);
  tf.dispose([...first, ...second, ...averages]);
  return progress;
}

/** Parameters, optimisers and averages of a run, with all of the moments in order. */
export function contentsOf({ model, optimizer, ema }: TrainingParts): { parameters: (readonly [string, tf.Variable])[]; optimizers: readonly AdamW[]; m: tf.Tensor[]; v: tf.Tensor[]; ema: Ema | undefined } {
  const optimizers: readonly AdamW[] = Array.isArray(optimizer) ? optimizer : [optimizer as AdamW];
  const moments = optimizers.map((o) => o.moments());
  return { parameters: Array.isArray(model) ? [...(model as readonly (readonly [string, tf.Variable])[])] : [...(model as Module).namedParameters()], optimizers, m: moments.flatMap((o) => [...o.m]), v: moments.flatMap((o) => [...o.v]), ema };
}
