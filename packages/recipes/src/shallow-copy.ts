import { ArgumentError } from '@tinyfusion/core';
import { type BlockPart, type DiTConfig, MAR, partOf, withDepths } from '@tinyfusion/models';
import { loadState, readState, requireStorable } from '@tinyfusion/nn';
import { type DroppedBranches, type LinearReplacement, type PruneRecord, pruneState } from '@tinyfusion/pruning';
import { type StateDict, stateDictOf } from '@tinyfusion/weights';
import type { Prunable } from './objective.js';
import { keptByStack, stacksOf } from './stacks.js';

/** What is cut finer than whole layers; all by the teacher's indices, for DiT and SiT. */
export interface FinerCut {
  /** Branches that go from kept layers. */
  branches?: DroppedBranches | undefined;
  /** Linear layers in the place of removed runs; borrowed. */
  replacements?: readonly LinearReplacement[] | undefined;
}

/**
 * A new model with only the kept layers of the teacher, counted over all its stacks, with the teacher's weights. A linear
 * layer in the place of a run is a block of the new model.
 *
 * @throws ArgumentError where a stack would lose all of its layers, a finer cut does not fit the kept layers, the model of a finer cut is a MAR, or the teacher has adapters that are not merged
 */
export async function shallowCopy<M extends Prunable>(teacher: M, kept: readonly number[], { branches = {}, replacements = [] }: FinerCut = {}): Promise<M> {
  const finer = replacements.length > 0 || (branches.attention?.length ?? 0) > 0 || (branches.mlp?.length ?? 0) > 0;
  if (teacher instanceof MAR && finer) throw new ArgumentError('shallowCopy: branches and replacements', 'for a MAR', 'none: its blocks stay whole or go');
  requireStorable('shallowCopy', teacher);
  const state = await stateOf(teacher);
  if (!(teacher instanceof MAR) && finer) {
    const parts = leftOf(teacher, kept, { branches, replacements });
    const layers = [...parts.keys()];
    return filled(withDepths(teacher, [layers.length], partsByPlace(layers.map((layer) => parts.get(layer)))), pruneState(await withLinear(withoutParts(state, parts), replacements), 'blocks', layers));
  }
  const stacks = keptByStack(teacher, kept);
  const gone = stacks.find((stack) => stack.kept.length === 0);
  if (gone !== undefined) throw new ArgumentError('keep', kept, `at least one layer of each stack: ${stacksOf(teacher).map(({ name, start, depth }) => `${name} are layers ${start} to ${start + depth - 1}`).join(', ')}`);
  return filled(
    withDepths(teacher, stacks.map((stack) => stack.kept.length), thinnedOf(teacher, kept)),
    stacks.reduce((pruned, stack) => pruneState(pruned, stack.name, stack.kept), state),
  );
}

/** What the record of a finer cut says beside the kept layers: each block of the student follows the last of the layers that it stands for. */
export function finerRecord(kept: readonly number[], { branches, replacements = [] }: FinerCut): Pick<PruneRecord, 'branches' | 'replaced' | 'layerMap'> {
  const follows = [...kept.map((layer) => [layer, layer] as const), ...replacements.map(({ run: [start, end] }) => [start, end - 1] as const)].toSorted(([a], [b]) => a - b);
  return {
    ...(branches === undefined ? {} : { branches: { attention: [...(branches.attention ?? [])], mlp: [...(branches.mlp ?? [])] } }),
    ...(replacements.length === 0 ? {} : { replaced: replacements.map(({ run }) => [...run] as [number, number]) }),
    layerMap: follows.map(([, last], student) => [student, last]),
  };
}

/** A model's values as a state dict in memory. */
export async function stateOf(model: Prunable): Promise<StateDict> {
  return stateDictOf(await readState(model));
}

/** Parts that kept layers of a teacher have already lost, by their place among the kept. */
function thinnedOf(teacher: Prunable, kept: readonly number[]): DiTConfig['thinned'] {
  return teacher instanceof MAR ? undefined : partsByPlace(kept.toSorted((a, b) => a - b).map((layer) => partOf(teacher.blocks[layer]!)));
}

function partsByPlace(parts: readonly (BlockPart | undefined)[]): DiTConfig['thinned'] {
  const thinned = parts.flatMap((part, i): [number, BlockPart][] => (part === undefined ? [] : [[i, part]]));
  return thinned.length === 0 ? undefined : Object.fromEntries(thinned);
}

/** The student's blocks by the teacher's indices, ascending, with what is left of those that are not whole. */
function leftOf(teacher: Exclude<Prunable, MAR>, kept: readonly number[], { branches, replacements }: Required<FinerCut>): Map<number, BlockPart | undefined> {
  const depth = teacher.blocks.length;
  const runs = replacements!.map(({ run }) => run);
  const clash = runs.find(([start, end]) => end > depth || kept.some((k) => k >= start && k < end));
  if (clash !== undefined) throw new ArgumentError('shallowCopy: replacements', `of blocks ${clash[0]} to ${clash[1] - 1}`, `of removed blocks of the teacher's ${depth}; ${kept.join(',')} are kept`);
  const strange = [...(branches!.attention ?? []), ...(branches!.mlp ?? [])].find((layer) => !kept.includes(layer));
  if (strange !== undefined) throw new ArgumentError('shallowCopy: branches', `of layer ${strange}`, `of kept layers: ${kept.join(',')}`);
  const left = (layer: number): BlockPart | undefined => {
    const was = partOf(teacher.blocks[layer]!);
    const gone = (['attention', 'mlp'] as const).filter((branch) => branches![branch]?.includes(layer) === true);
    if (gone.length === 0) return was;
    if (gone.length === 2 || was !== undefined) throw new ArgumentError('shallowCopy: branches', `all that layer ${layer} has`, 'at least one branch of each kept layer; leave the layer out of the kept ones');
    return gone[0] === 'attention' ? 'mlp' : 'attention';
  };
  const parts: [number, BlockPart | undefined][] = [...kept.map((layer) => [layer, left(layer)] as [number, BlockPart | undefined]), ...runs.map(([start]) => [start, 'linear'] as [number, BlockPart])];
  return new Map(parts.toSorted(([a], [b]) => a - b));
}

/** Without the tensors of dropped branches, and of blocks that a linear layer stands for. */
function withoutParts({ tensors, metadata }: StateDict, parts: ReadonlyMap<number, BlockPart | undefined>): StateDict {
  const stays = (name: string): boolean => {
    const [, layer, field] = /^blocks\.(\d+)\.(\w+)/.exec(name) ?? [];
    const part = layer === undefined ? undefined : parts.get(Number(layer));
    return part === undefined || (part === 'attention' && field !== 'mlp') || (part === 'mlp' && field !== 'attn') || (part === 'linear' && field === 'linear');
  };
  // a block that loses all of its tensors gets others at once; its number has to stay
  return { tensors: new Map([...tensors].filter(([name]) => stays(name))), metadata };
}

/** With the tensors of linear layers, under the number of the first block of their run. */
async function withLinear({ tensors, metadata }: StateDict, replacements: readonly LinearReplacement[]): Promise<StateDict> {
  const added: [string, { shape: number[]; values: Float32Array }][] = [];
  for (const { run: [start], linear } of replacements) {
    for (const part of ['weight', 'bias'] as const) added.push([`blocks.${start}.linear.${part}`, { shape: linear[part]!.shape, values: Float32Array.from(await linear[part]!.data()) }]);
  }
  return { tensors: new Map([...tensors, ...stateDictOf(added).tensors]), metadata };
}

async function filled<M extends Prunable>(model: M, state: StateDict): Promise<M> {
  try {
    await loadState(model, state);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}
