import { ArgumentError } from '@tinyfusion/core';
import { type LayerPair, evenLayerMap, layerMapOfChoice, layerMapOfGroups } from '@tinyfusion/distill';
import { type BlockHook, type Module, captureFeatures, hooksByStack } from '@tinyfusion/nn';
import { type Group, gateHook, skippingHook } from '@tinyfusion/sampler';
import type * as tf from '@tensorflow/tfjs-core';
import { MAR } from '@tinyfusion/models';
import type { Prunable } from './objective.js';

/** A run of layers in the list of all of a model's layers: DiT and SiT have one stack, MAR its encoder and its decoder. */
export interface Stack {
  name: string;
  start: number;
  depth: number;
}

/** The stacks of a model, in the order in which they run. */
export function stacksOf(model: Prunable): Stack[] {
  if (!(model instanceof MAR)) return [{ name: 'blocks', start: 0, depth: model.blocks.length }];
  const encoder = model.encoder_blocks.length;
  return [
    { name: 'encoder_blocks', start: 0, depth: encoder },
    { name: 'decoder_blocks', start: encoder, depth: model.decoder_blocks.length },
  ];
}

/** Number of layers in all stacks. */
export const depthOf = (model: Prunable): number => stacksOf(model).reduce((sum, { depth }) => sum + depth, 0);

/** Width of the tokens of each layer of all stacks. */
export const widthsOf = (model: Prunable): number[] =>
  model instanceof MAR ? [...model.encoder_blocks.map(() => model.config.encoderWidth), ...model.decoder_blocks.map(() => model.config.decoderWidth)] : model.blocks.map(() => model.config.hiddenSize);

/** A hook for one stack of all layers, around a model that may have several: it sees one stack, `blocks`, and each layer's index among all. */
export function overAllStacks(model: Prunable, hook: BlockHook): BlockHook {
  const depth = depthOf(model);
  return hooksByStack(Object.fromEntries(stacksOf(model).map(({ name, start }) => [name, (site, x, run) => hook({ ...site, stack: 'blocks', index: start + site.index, depth }, x, run)])));
}

/** The blocks of all stacks, in the order in which they run. */
export const blocksOf = (model: Prunable): readonly Module[] => (model instanceof MAR ? [...model.encoder_blocks, ...model.decoder_blocks] : model.blocks);

/** Applies one mask a layer. */
export function gatesOverStacks(model: Prunable, masks: readonly tf.Tensor1D[]): BlockHook {
  return hooksByStack(Object.fromEntries(stacksOf(model).map(({ name, start, depth }) => [name, gateHook(masks.slice(start, start + depth))])));
}

/** Computes only the kept layers of one draw for the whole batch; with `masks` the gates learn from them. */
export function skippingOverStacks(model: Prunable, kept: readonly number[], masks?: readonly tf.Tensor1D[]): BlockHook {
  return hooksByStack(Object.fromEntries(stacksOf(model).map(({ name, start, depth }) => [name, skippingHook({ kept: kept.filter((l) => l >= start && l < start + depth).map((l) => l - start), units: depth }, masks?.slice(start, start + depth))])));
}

/** Captures the outputs of some layers of all stacks, by their index among all layers. */
export function captureOverStacks(model: Prunable, layers: readonly number[]): { hook: BlockHook; take: () => Map<number, tf.Tensor3D> } {
  const captures = stacksOf(model).map(({ name, start, depth }) => ({ name, start, capture: captureFeatures(layers.filter((l) => l >= start && l < start + depth).map((l) => l - start)) }));
  return {
    hook: hooksByStack(Object.fromEntries(captures.map(({ name, capture }) => [name, capture.hook]))),
    take: () => new Map(captures.flatMap(({ start, capture }) => [...capture.take()].map(([i, feature]) => [start + i, feature] as const))),
  };
}

/** The kept layers of each stack, counted from the stack's first. */
export function keptByStack(model: Prunable, kept: readonly number[]): { name: string; kept: number[] }[] {
  return stacksOf(model).map(({ name, start, depth }) => ({ name, kept: kept.filter((l) => l >= start && l < start + depth).map((l) => l - start) }));
}

/**
 * Whether a stack keeps a layer whatever is chosen of the groups.
 * @throws ArgumentError where one may lose all
 */
export function checkStacksStay(model: Prunable, groups: readonly Group[]): void {
  for (const { name, start, depth } of stacksOf(model)) {
    // of a group that goes on into another stack, all kept layers may lie there
    const stay = groups.map((group) => group.kept - group.size + Math.max(0, Math.min(start + depth, group.start + group.size) - Math.max(start, group.start)));
    if (stay.every((layers) => layers < 1)) throw new ArgumentError('groups', groups.map(({ kept, size }) => `${kept}:${size}`).join(','), `groups that keep a layer of ${name} (layers ${start} to ${start + depth - 1}) whatever is learned, such as 1:${depth}`);
  }
}

/** Which stack a layer is in, counted over all layers. */
export const stackOf = (model: Prunable, layer: number): Stack | undefined => stacksOf(model).find(({ start, depth }) => layer >= start && layer < start + depth);

/** {@link evenLayerMap} within each stack: layers of different stacks do different work, of other shapes with MAR. */
export function evenMapOverStacks(teacher: Prunable, student: Prunable): LayerPair[] {
  const own = stacksOf(student);
  return stacksOf(teacher).flatMap(({ start, depth }, i) => {
    const { start: first, depth: count } = own[i]!;
    return count === 0 ? [] : evenLayerMap(depth, count).map(([to, from]): LayerPair => [first + to, start + from]);
  });
}

/** {@link layerMapOfChoice} within each stack. */
export function choiceMapOverStacks(teacher: Prunable, kept: readonly number[]): LayerPair[] {
  const own = keptByStack(teacher, kept);
  let first = 0;
  return stacksOf(teacher).flatMap(({ start, depth }, i) => {
    const layers = own[i]!.kept;
    const pairs = layers.length === 0 ? [] : layerMapOfChoice(layers, depth).map(([to, from]): LayerPair => [first + to, start + from]);
    first += layers.length;
    return pairs;
  });
}

/**
 * {@link layerMapOfGroups}; a group that goes on into another stack ends, for its last kept layer, where that layer's stack does.
 * @throws ArgumentError where the groups keep other layers than `kept`
 */
export function groupMapOverStacks(teacher: Prunable, kept: readonly number[], groups: readonly (readonly [kept: number, size: number])[]): LayerPair[] {
  return layerMapOfGroups(groups.map(([own, size]) => ({ kept: own, size }))).map(([to, from]) => {
    const stack = stackOf(teacher, kept[to] ?? -1);
    if (stack === undefined) throw new ArgumentError('the groups of the choice', groups.map((group) => group.join(':')), `groups that keep the ${kept.length} layers ${kept.join(',')} of the teacher's ${depthOf(teacher)}`);
    return [to, Math.min(from, stack.start + stack.depth - 1)];
  });
}
