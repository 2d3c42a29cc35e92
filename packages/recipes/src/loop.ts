import { ArgumentError, BackendError, CancelledError, type LongTaskOptions, TinyFusionError } from '@tinyfusion/core';
import { type AdamW, type Collective, type Ema, type Schedule, anyRank, broadcastJson, broadcastTrainingState, clipFactor, globalNorm, lossAndGradients, reduceGradients, restoreTrainingState, singleCollective, trainingState } from '@tinyfusion/train';
import type { StateDict } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount } from './check-options.js';

/** One group of parameters with its optimiser. */
export interface ParameterGroup {
  parameters: readonly tf.Variable[];
  optimizer: AdamW;
  lr: Schedule;
}

/** Something of a run that changes with its steps, as plain JSON. */
export interface Resumable<S extends object = object> {
  save(): S;
  restore(saved: S): void;
}

/** A part of a step's batch: samples `start` to `start + size` of `of`. */
export interface BatchPart {
  start: number;
  size: number;
  of: number;
}

/** How a run is kept, so that it goes on after whatever ended it. */
export interface KeepOptions {
  /** A run that {@link KeepOptions.save} was given; it must be of the same options. Default: from the start. */
  resume?: StateDict | undefined;
  /** Steps between saves; the last step is saved too, and the one at which the run is cancelled or fails. */
  every: number;
  /** Stores a run, whose values are read meanwhile, and not after. @param step steps done */
  save(run: StateDict, step: number): Promise<void>;
}

/** Options of recipes whose steps can be shared. */
export interface Shared {
  /**
   * Ranks that share each step's batch: every one computes its own rows of it, and they agree on the rest, so that the run
   * is that of one rank but for rounding. Only rank 0 reports and keeps the run. Default: this one alone.
   */
  collective?: Collective | undefined;
}

/** What {@link optimise} needs beside the loss. */
export interface OptimiseOptions extends LongTaskOptions, Shared {
  /** Name of the task in progress events. */
  task: string;
  /** Total number of steps. */
  steps: number;
  groups: readonly ParameterGroup[];
  /** Largest norm of all gradients together. Default 1, as the paper. */
  maxNorm?: number;
  ema?: Ema;
  /** Positions of the random streams and in the data: all that a loss draws from. */
  streams?: Resumable;
  /** What else is to be kept with a run, such as curves. */
  history?: Resumable;
  /** Default: the run is not kept. */
  keep?: KeepOptions | undefined;
  /**
   * Lets a step be computed in parts whose gradients are averaged: by the ranks of a collective, and where there is not
   * memory enough for the whole batch, when parts are halved until it fits. Needs `streams`, as every part draws the whole
   * batch and takes its own share. Default: the batch is one.
   */
  micro?: { batchSize: number; parts?: number | undefined };
  /** Called after each step with the values of the vectors that the loss reported. */
  onDetail?: ((step: number, values: Readonly<Record<string, number>>) => void) | undefined;
  /** Called before each step, for what cannot be had inside of it. */
  beforeStep?: (step: number) => Promise<void> | undefined;
  /** Called after each step with the numbers that the loss reported; may end the run by `'stop'`. */
  afterStep?: (step: number, values: Readonly<Record<string, number>>) => void | 'stop' | Promise<void | 'stop'>;
  /** Says of the numbers that the loss reported what is wrong with them, where a run diverges; those of the first of the steps in a row. */
  explain?: (step: number, values: Readonly<Record<string, number>>) => string | undefined;
}

/** Steps skipped in a row, for a loss or gradient that is not finite, before the run ends. */
const MOST_SKIPPED = 20;

/** A loss over a part of the step's batch; `report` takes scalars to show, read back with the loss; a vector's values have its name and their place, `'layer 0'`. */
export type StepLoss = (step: number, report: (name: string, value: tf.Scalar | tf.Tensor1D) => void, part: BatchPart | undefined) => tf.Scalar;

/**
 * Gradient descent over a loss: gradients, clipping, AdamW, averages, progress. A step whose loss or gradient is not
 * finite is skipped, as upstream does, and counted; the numbers are tested on the CPU. A run does not end with such a step as
 * if all were well. One that is kept can be killed at
 * any moment: with what was saved last it goes on to the same end, to the bit on the same backend.
 *
 * @param loss called once a step inside the gradient scope, or once for each part of its batch
 * @throws TinyFusionError `DIVERGED` after 20 skipped steps in a row, or where the last step is skipped; ArgumentError where a batch cannot be shared among the
 * ranks; what a step throws, after the run was saved where its state could still be read. BackendError where the device was
 * lost or has no room, which says from where a run that is kept goes on
 */
export async function optimise(loss: StepLoss, options: OptimiseOptions): Promise<void> {
  const { task, steps, groups, maxNorm = 1, ema, streams, history, micro, beforeStep, afterStep, explain, signal, collective = singleCollective() } = options;
  const [keep, onProgress, onDetail] = collective.rank === 0 ? [options.keep, options.onProgress, options.onDetail] : [];
  checkCount('steps', steps);
  const own = sharedRows(collective, micro, streams);
  const parameters = groups.flatMap((g) => [...g.parameters]);
  const parts = { model: parameters.map((p, i): [string, tf.Variable] => [`${i}`, p]), optimizer: groups.map((g) => g.optimizer), ...(ema === undefined ? {} : { ema }) };
  interface Progress {
    step: number;
    skipped: number;
    inRow: number;
    /** Whether it was ended before its last step: there is nothing to go on with. */
    stopped?: boolean;
    streams?: object | undefined;
    history?: object | undefined;
  }
  // rank 0 has the file, and gives the others what was in it
  const resumed = await broadcastJson(collective, keep?.resume === undefined ? undefined : await restoreTrainingState<Progress>(keep.resume, parts));
  await broadcastTrainingState(collective, parts);
  let { step: from, skipped, inRow } = resumed ?? { step: 0, skipped: 0, inRow: 0 };
  if (resumed?.streams !== undefined) streams?.restore(resumed.streams);
  if (resumed?.history !== undefined) history?.restore(resumed.history);
  if (resumed?.stopped === true) return;
  let savedAt = from;
  const save = async (step: number, stopped = false): Promise<void> => {
    if (keep === undefined || step === savedAt) return;
    const progress: Progress = { step, skipped, inRow, ...(stopped ? { stopped } : {}), streams: streams?.save(), history: history?.save() };
    using run = trainingState(parts, progress);
    await keep.save(run, step);
    savedAt = step;
  };
  /** What is thrown in the place of a device's error. */
  const ended = (error: unknown, step: number): unknown => {
    if (keep === undefined || !((TinyFusionError.isInstance(error) && error.code === 'BACKEND') || isOutOfMemory(error))) return error;
    const where = savedAt === 0 ? 'nothing was saved yet' : savedAt === step ? 'all steps before it are saved' : `it was saved at step ${savedAt}`;
    return new BackendError(`${task} ended in step ${step + 1}: ${(error as Error).message} Of the run ${where}; the same command goes on from there`, { cause: error });
  };
  if (micro?.parts !== undefined && !(Number.isInteger(micro.parts) && micro.parts > 0)) throw new ArgumentError('parts', micro.parts, 'a positive integer');
  let count = Math.min(micro?.parts ?? 1, own?.size ?? 1);
  let reason: string | undefined;
  // memory that does not do shows when the parts of a batch are computed for the first time
  let proven = 0;
  for (let step = from; step < steps; step++) {
    if (await anyRank(collective, signal?.aborted === true)) {
      await save(step);
      throw new CancelledError(task);
    }
    const start = streams?.save();
    await beforeStep?.(step);
    const before = streams?.save();
    let done: StepResult | undefined;
    let norm: number;
    try {
      while (done === undefined) {
        try {
          done = await gradientsInParts(loss, step, parameters, own === undefined ? [undefined] : partsOf(own, count), () => streams?.restore(before!));
        } catch (error) {
          if (own === undefined || before === undefined || 2 * count > own.size || !isOutOfMemory(error)) throw error;
          count *= 2;
          streams!.restore(before);
          onProgress?.({ task, step, total: steps, unit: 'step', values: { parts: count } });
        }
      }
      if (collective.size > 1) done = await overRanks(collective, done, own!.size / micro!.batchSize);
      norm = await globalNorm(done.gradients);
    } catch (error) {
      tf.dispose(done?.gradients ?? []);
      // parameters are those of the step before: what can be read of them is kept
      if (start !== undefined) streams!.restore(start);
      await save(step).catch(() => {});
      throw ended(error, step);
    }
    const { gradients, values, vectors } = done;
    if (!(await anyRank(collective, !(Number.isFinite(norm) && Number.isFinite(values['loss']))))) {
      inRow = 0;
      const gradientScale = clipFactor(norm, maxNorm);
      let at = 0;
      for (const { parameters: own, optimizer, lr } of groups) {
        optimizer.step(gradients.slice(at, at + own.length), { lr: lr(step), gradientScale, ema });
        at += own.length;
      }
      ema?.update();
      if (proven !== count) {
        // a device tells late that there was no room, and what it wrote is zeros then: weights that may be are not saved
        try {
          await parameters.at(-1)?.data();
          await ema?.averages().at(-1)?.data();
        } catch (error) {
          throw ended(error, step);
        }
        proven = count;
      }
    } else {
      skipped += 1;
      inRow += 1;
      if (inRow === 1) reason = explain?.(step + 1, { ...values, ...vectors });
      if (inRow >= MOST_SKIPPED || step + 1 === steps) {
        tf.dispose(gradients);
        throw new TinyFusionError('DIVERGED', `${task}: loss or gradient was not finite in ${inRow === 1 ? 'the last step' : `${inRow} steps in a row`}, up to step ${step + 1} of ${steps}; ${reason ?? 'lower the learning rate or the weight of the feature loss'}`);
      }
    }
    if (skipped > 0) values['skipped'] = skipped;
    tf.dispose(gradients);
    onProgress?.({ task, step: step + 1, total: steps, unit: 'step', values });
    if (Object.keys(vectors).length > 0) onDetail?.(step + 1, vectors);
    const stop = await anyRank(collective, (await afterStep?.(step, { ...values, ...vectors })) === 'stop');
    if (stop || (keep !== undefined && ((step + 1) % keep.every === 0 || step + 1 === steps))) {
      await save(step + 1, stop).catch((error: unknown) => {
        throw ended(error, step + 1);
      });
    }
    if (stop) {
      onProgress?.({ task, step: step + 1, total: step + 1, unit: 'step', values });
      return;
    }
    await breathe();
  }
}

interface StepResult {
  gradients: tf.Tensor[];
  values: Record<string, number>;
  vectors: Record<string, number>;
}

/** The mean gradients and numbers over all parts of a batch; `undefined` is the whole of it. */
async function gradientsInParts(loss: StepLoss, step: number, parameters: readonly tf.Variable[], parts: readonly (BatchPart | undefined)[], rewind: () => void): Promise<StepResult> {
  const total = parts.reduce((sum, part) => sum + (part?.size ?? 1), 0);
  const [values, vectors]: Record<string, number>[] = [{}, {}];
  const add = (into: Record<string, number>, name: string, value: number): void => void (into[name] = (into[name] ?? 0) + value);
  let gradients: tf.Tensor[] | undefined;
  let reported: [string, tf.Tensor][] = [];
  try {
    for (const [i, part] of parts.entries()) {
      if (i > 0) rewind();
      const weight = (part?.size ?? 1) / total;
      reported = [];
      const own = lossAndGradients(() => loss(step, (name, value) => reported.push([name, tf.keep(tf.clone(value as tf.Tensor))]), part), parameters);
      gradients = weight === 1 ? own.gradients : averaged(gradients, own.gradients, weight);
      add(values!, 'loss', weight * (await own.loss.data())[0]!);
      for (const [name, tensor] of reported) for (const [k, number] of (await tensor.data()).entries()) add((tensor.rank === 0 ? values : vectors)!, tensor.rank === 0 ? name : `${name} ${k}`, weight * number);
      tf.dispose([own.loss, ...reported.map(([, tensor]) => tensor)]);
    }
    return { gradients: gradients!, values: values!, vectors: vectors! };
  } catch (error) {
    tf.dispose([...(gradients ?? []), ...reported.map(([, tensor]) => tensor)]);
    throw error;
  }
}

/** The same over all ranks, this one counting for `weight`; in the place of what is given. */
async function overRanks(collective: Collective, { gradients, values, vectors }: StepResult, weight: number): Promise<StepResult> {
  try {
    const numbers = Float64Array.from([...Object.values(values), ...Object.values(vectors)], (value) => weight * value);
    const shared = collective.allReduce(numbers, 'sum');
    shared.catch(() => {}); // it is awaited below, maybe after the gradients failed
    const reduced = await reduceGradients(collective, gradients, { weight });
    await shared;
    const named = (names: string[], at: number): Record<string, number> => Object.fromEntries(names.map((name, i) => [name, numbers[at + i]!]));
    return { gradients: reduced, values: named(Object.keys(values), 0), vectors: named(Object.keys(vectors), Object.keys(values).length) };
  } finally {
    tf.dispose(gradients);
  }
}

/** sum + weight · next, which takes the place of both. */
function averaged(sum: tf.Tensor[] | undefined, next: tf.Tensor[], weight: number): tf.Tensor[] {
  const result = next.map((gradient, i) => tf.tidy(() => (sum === undefined ? tf.mul(gradient, weight) : tf.add(sum[i]!, tf.mul(gradient, weight)))));
  tf.dispose([...(sum ?? []), ...next]);
  return result;
}

/** The same for a run; `undefined` where a batch has no parts. */
function sharedRows(collective: Collective, micro: OptimiseOptions['micro'], streams: Resumable | undefined): BatchPart | undefined {
  if (collective.size > 1 && (micro === undefined || streams === undefined)) throw new ArgumentError('collective', `${collective.size} ranks`, 'one rank, as this run does not compute its batch in parts');
  return micro && rowsOfRank(collective, micro.batchSize);
}

/** The rows of a step's batch that a rank computes: all with one rank. @throws ArgumentError where there is none for each */
export function rowsOfRank({ rank, size }: Collective, of: number): BatchPart {
  if (of < size) throw new ArgumentError('batchSize', of, `at least a sample for each of the ${size} ranks`);
  const start = Math.floor((rank * of) / size);
  return { start, size: Math.floor(((rank + 1) * of) / size) - start, of };
}

/** Rows in `count` parts of nearly equal size; `undefined` is the whole batch. */
function partsOf({ start, size, of }: BatchPart, count: number): (BatchPart | undefined)[] {
  const starts = Array.from({ length: count + 1 }, (_, i) => start + Math.floor((i * size) / count));
  return starts.slice(0, -1).map((first, i) => (size === of && count === 1 ? undefined : { start: first, size: starts[i + 1]! - first, of }));
}

/** The rows of a part: all where the batch is one. */
export function rowsOf<T extends tf.Tensor>(x: T, part: BatchPart | undefined): T {
  return part === undefined ? x : (tf.slice(x as tf.Tensor, [part.start, ...x.shape.slice(1).map(() => 0)], [part.size, ...x.shape.slice(1)]) as T);
}

/** Whether a step failed for want of memory, on whatever backend. */
function isOutOfMemory(error: unknown): boolean {
  // Node's own, which have a code, tell of arguments
  return (error instanceof RangeError && !('code' in error)) || (error instanceof Error && /out of memory|allocat|enlarge memory|exceeds? (the )?(max|limit)|binds .* at most/i.test(error.message));
}

/** Lets timers and signals in between steps. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
