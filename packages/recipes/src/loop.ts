import { type LongTaskOptions, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { type AdamW, type Ema, type Schedule, clipFactor, globalNorm, lossAndGradients } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';

/** One group of parameters with its optimiser. */
export interface ParameterGroup {
  parameters: readonly tf.Variable[];
  optimizer: AdamW;
  lr: Schedule;
}

/** What {@link optimise} needs beside the loss. */
export interface OptimiseOptions extends LongTaskOptions {
  /** Name of the task in progress events. */
  task: string;
  /** First step; more than 0 when a run goes on. */
  from?: number;
  /** Total number of steps. */
  steps: number;
  groups: readonly ParameterGroup[];
  /** Largest norm of all gradients together. Default 1, as the paper. */
  maxNorm?: number;
  ema?: Ema;
  /** Called before each step, for what cannot be had inside of it. */
  beforeStep?: (step: number) => Promise<void>;
  /** Called after each step with the numbers that the loss reported; may save a checkpoint, or end the run by `'stop'`. */
  afterStep?: (step: number, values: Readonly<Record<string, number>>) => void | 'stop' | Promise<void | 'stop'>;
}

/** Steps skipped in a row, for a loss or gradient that is not finite, before the run ends. */
const MOST_SKIPPED = 20;

/**
 * Gradient descent over a loss: gradients, clipping, AdamW, averages, progress. A step whose loss or gradient is not
 * finite is skipped, as upstream does; the numbers are tested on the CPU.
 *
 * @param loss called once a step inside the gradient scope; `report` takes scalars to show, read back with the loss; a
 * vector's values have its name and their place, `'layer 0'`
 * @throws TinyFusionError `DIVERGED` after 20 skipped steps in a row
 */
export async function optimise(loss: (step: number, report: (name: string, value: tf.Scalar | tf.Tensor1D) => void) => tf.Scalar, options: OptimiseOptions): Promise<void> {
  const { task, from = 0, steps, groups, maxNorm = 1, ema, beforeStep, afterStep, signal, onProgress } = options;
  const parameters = groups.flatMap((g) => [...g.parameters]);
  let skipped = 0;
  for (let step = from; step < steps; step++) {
    throwIfCancelled(signal, task);
    await beforeStep?.(step);
    const reported: [string, tf.Tensor][] = [];
    const { loss: value, gradients } = lossAndGradients(() => loss(step, (name, value) => reported.push([name, tf.keep(tf.clone(value as tf.Tensor))])), parameters);
    const norm = await globalNorm(gradients);
    const values: Record<string, number> = { loss: (await value.data())[0]! };
    const parts: Record<string, number> = {};
    for (const [name, tensor] of reported) for (const [i, number] of (await tensor.data()).entries()) (tensor.rank === 0 ? values : parts)[tensor.rank === 0 ? name : `${name} ${i}`] = number;
    if (Number.isFinite(norm) && Number.isFinite(values['loss'])) {
      skipped = 0;
      const gradientScale = clipFactor(norm, maxNorm);
      let at = 0;
      for (const { parameters: own, optimizer, lr } of groups) {
        optimizer.step(gradients.slice(at, at + own.length), { lr: lr(step), gradientScale });
        at += own.length;
      }
      ema?.update();
    } else if (++skipped >= MOST_SKIPPED) {
      throw new TinyFusionError('DIVERGED', `${task}: loss or gradient was not finite in ${MOST_SKIPPED} steps in a row up to step ${step + 1}; lower the learning rate or the weight of the feature loss`);
    }
    tf.dispose([value, ...gradients, ...reported.map(([, scalar]) => scalar)]);
    onProgress?.({ task, step: step + 1, total: steps, unit: 'step', values });
    if ((await afterStep?.(step, { ...values, ...parts })) === 'stop') {
      onProgress?.({ task, step: step + 1, total: step + 1, unit: 'step', values });
      return;
    }
    await breathe();
  }
}

/** Lets timers and signals in between steps. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
