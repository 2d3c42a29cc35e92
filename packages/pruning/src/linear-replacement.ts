import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { type BlockHook, Linear, Module } from '@tinyfusion/nn';
import { type StateDict, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { Interval } from './intervals.js';

/**
 * One linear layer in the place of a removed run of blocks: y = x + (x Wᵀ + b). It is a module: recovery may train it,
 * adapters adapt it. {@link ReplacementFit} gives it its values.
 */
export class LinearReplacement extends Module {
  readonly linear: Linear;

  /** @param run the removed blocks, by the teacher's indices @param features D; the layer begins as zeros, the identity */
  constructor(
    readonly run: Interval,
    features: number,
  ) {
    super();
    const [start, end] = run;
    if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end <= start) throw new ArgumentError('LinearReplacement: run', run, 'a run of blocks [start, end) with 0 ≤ start < end');
    this.linear = new Linear(features, features, { init: 'zeros' });
  }

  /** @param x `[N, T, D]` @returns `[N, T, D]` */
  forward(x: tf.Tensor3D): tf.Tensor3D {
    return tf.tidy(() => tf.add(x, this.linear.forward(x)) as tf.Tensor3D);
  }
}

/** Options of {@link replacementHook}. */
export interface ReplacementHookOptions {
  /** The blocks that the model still has, by the teacher's indices, where it was cut. Default: the model is the teacher, whose blocks are passed over. */
  kept?: readonly number[];
}

/**
 * Runs a model with linear layers in the place of removed runs: the whole teacher, or one that was cut.
 * @param replacements borrowed while the hook is in use
 * @throws ArgumentError from the hook where a run does not fit the model
 */
export function replacementHook(replacements: readonly LinearReplacement[], { kept }: ReplacementHookOptions = {}): BlockHook {
  const sorted = replacements.toSorted((a, b) => a.run[0] - b.run[0]);
  for (const [i, { run }] of sorted.entries()) {
    if (i > 0 && run[0] < sorted[i - 1]!.run[1]) throw new ArgumentError('replacementHook: runs', sorted.map((r) => r.run), 'runs that do not overlap');
    if (kept?.some((k) => k >= run[0] && k < run[1]) === true) throw new ArgumentError('replacementHook: run', run, `blocks that are gone; ${kept.join(',')} are kept`);
  }
  if (kept === undefined) {
    return (site, x, run) => {
      const last = sorted.at(-1)?.run;
      if (last !== undefined && last[1] > site.depth) throw new ArgumentError('replacementHook: run', last, `blocks of the model's ${site.depth}; give the kept blocks of a model that was cut`);
      const replacement = sorted.find((r) => site.index >= r.run[0] && site.index < r.run[1]);
      if (replacement === undefined) return run(x);
      return site.index === replacement.run[0] ? replacement.forward(x) : x;
    };
  }
  // the run comes before the student's first block that is behind it in the teacher; at the end, after the last block
  const places = sorted.map((replacement) => ({ replacement, place: kept.filter((k) => k < replacement.run[0]).length }));
  const through = (x: tf.Tensor3D, place: number): tf.Tensor3D => places.reduce((y, { replacement, place: at }) => (at === place ? replacement.forward(y) : y), x);
  return (site, x, run) => {
    if (site.depth !== kept.length) throw new ArgumentError('replacementHook: kept', kept.length, `one index for each of the model's ${site.depth} blocks`);
    const y = run(through(x, site.index));
    return site.index === site.depth - 1 ? through(y, site.depth) : y;
  };
}

const PREFIX = 'linear_replacements';

/**
 * Replacements as tensors for a checkpoint beside the pruned model's, e.g. `linear_replacements.4-7.weight` for blocks 4
 * to 6 of the teacher.
 */
export async function replacementTensors(replacements: readonly LinearReplacement[]): Promise<[name: string, { shape: number[]; values: Float32Array }][]> {
  const out: [string, { shape: number[]; values: Float32Array }][] = [];
  for (const { run, linear } of replacements) {
    for (const part of ['weight', 'bias'] as const) {
      const values = (await linear[part]!.data()) as Float32Array;
      out.push([`${PREFIX}.${run[0]}-${run[1]}.${part}`, { shape: linear[part]!.shape, values: Float32Array.from(values) }]);
    }
  }
  return out;
}

/** The replacements in a checkpoint, in order; none where there are none. @throws CheckpointError where one is damaged */
export async function readReplacements(state: StateDict): Promise<LinearReplacement[]> {
  const found: LinearReplacement[] = [];
  try {
    for (const [name, record] of state.tensors) {
      const match = new RegExp(`^${PREFIX}\\.(\\d+)-(\\d+)\\.weight$`).exec(name);
      if (match === null) continue;
      const [start, end] = [Number(match[1]), Number(match[2])];
      const bias = state.tensors.get(`${PREFIX}.${start}-${end}.bias`);
      const [out, features] = record.shape;
      if (record.shape.length !== 2 || out !== features || String(bias?.shape) !== String([features]) || end <= start) throw new CheckpointError(`the linear replacement of blocks ${start} to ${end} is damaged: weight [${record.shape.join(', ')}], bias [${bias?.shape.join(', ') ?? 'missing'}], expected [D, D] and [D]`);
      const replacement = new LinearReplacement([start, end], features!);
      found.push(replacement);
      assign(replacement, await toFloat32(record), await toFloat32(bias!));
    }
  } catch (error) {
    for (const replacement of found) replacement.dispose();
    throw error;
  }
  return found.toSorted((a, b) => a.run[0] - b.run[0]);
}

/** Gives a replacement its values. @param weight `[D out, D in]` */
export function assign({ linear }: LinearReplacement, weight: Float32Array, bias: Float32Array): void {
  tf.tidy(() => {
    linear.weight.assign(tf.tensor2d(weight, [linear.outFeatures, linear.inFeatures]));
    linear.bias!.assign(tf.tensor1d(bias));
  });
}
