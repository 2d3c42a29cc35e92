import { ArgumentError, CheckpointError, createRng, type LongTaskOptions } from '@tinyfusion/core';
import { saveModel } from '@tinyfusion/models';
import { atRandom, byIndex, firstLayers, lastLayers, type LinearReplacement, oracle, pruneMetadata, type PruneRecord, removedRuns, uniformLayers } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import type { LatentDataset } from '../latents.js';
import type { Prunable } from '../objective.js';
import { chooseByBlockError, chooseByBlockInfluence, chooseByCka, chooseBySensitivity, chooseByTaylor, fitReplacements } from '../prune.js';
import { type FinerCut, finerRecord, shallowCopy } from '../shallow-copy.js';
import { depthOf, stacksOf } from '../stacks.js';
import { embeddedLatents, type JobContext, loadModel } from './context.js';
import { readDecision } from './decision.js';
import { parseKeep, pruneFileJob } from './files.js';
import { checkModelPath, writeModel } from './model-file.js';

/** Options of `tinyfusion prune`. */
export interface PruneJob {
  model?: string;
  masks?: string;
  /** Layers to keep, `'0,2,5'`; with `ckpt` also by stack. */
  keep?: string;
  method?: 'block-influence' | 'block-error' | 'sensitivity' | 'taylor' | 'cka' | 'oracle' | 'random' | 'first' | 'last' | 'uniform';
  /** A file to cut as it is, in place of a model. */
  ckpt?: string;
  stack?: string;
  weights?: string;
  config?: string;
  count?: number;
  /** `'linear'`: a linear layer in the place of each removed run. Default: nothing. */
  replace?: 'linear';
  seed: number;
  out: string;
}

/** Cuts a model and writes it with its record. */
export async function pruneJob(job: PruneJob, context: JobContext): Promise<void> {
  if (job.ckpt !== undefined && job.replace !== undefined) throw new ArgumentError('--replace', job.replace, 'to be left out with --ckpt: linear layers are fitted to what a model computes');
  if (job.ckpt !== undefined) return pruneFileJob({ ...job, ckpt: job.ckpt }, context);
  checkModelPath('--out', job.out);
  const given = (['masks', 'keep', 'method'] as const).filter((name) => job[name] !== undefined).map((name) => `--${name}`);
  if (given.length !== 1) throw new ArgumentError('one of --masks, --keep and --method', given, 'exactly one');
  const { model, state, name, record: from } = await loadModel(job.model);
  const depth = depthOf(model);
  const teacher = { name, sha256: await stateDictHash(state) };
  const count = job.count ?? Math.floor(depth / 2);
  if (count > depth) throw new ArgumentError('--count', count, `at most the model's ${depth} layers`);
  let finer: FinerCut | undefined;
  let choice: Pick<PruneRecord, 'kept' | 'criterion' | 'groups' | 'confidence'>;
  if (job.masks !== undefined) {
    const { kept, groups, branches, confidence, teacher: own } = await readDecision(job.masks, depth);
    if (own.sha256 !== teacher.sha256) throw new CheckpointError(`${job.masks} was learned for ${own.name} (${own.sha256.slice(0, 12)}…), this model is ${name} (${teacher.sha256.slice(0, 12)}…); learn masks for this model`);
    choice = { kept, criterion: 'learned', ...(groups === undefined ? {} : { groups }), confidence };
    if (branches !== undefined) finer = { branches };
  } else if (job.keep !== undefined) choice = { kept: byIndex(depth, ownLayers(job.keep)), criterion: 'index' };
  else choice = await choose(job.method!, model, { count, seed: job.seed, ...context });
  if (job.replace !== undefined) finer = { ...finer, replacements: await linearLayers(model, choice.kept, job.seed, context) };
  const student = await shallowCopy(model, choice.kept, finer);
  const record: PruneRecord = { version: 1, stack: stacksOf(model).map((stack) => stack.name).join(','), depth, teacher, seed: job.seed, command: context.command, ...choice, ...(finer === undefined ? {} : finerRecord(choice.kept, finer)), ...(from === undefined ? {} : { from }) };
  await writeModel(job.out, await saveModel(student, { metadata: [pruneMetadata(record)] }));
  const runs = finer?.replacements?.length ?? 0;
  console.log(`kept ${choice.kept.join(',')} of ${depth} layers${runs > 0 ? `, linear layers in the place of ${runs} runs` : ''}: ${(student.parameterCount() / 1e6).toFixed(2)} M of ${(model.parameterCount() / 1e6).toFixed(2)} M parameters`);
}

/** Linear layers for the removed runs, and how good they are. */
async function linearLayers(model: Prunable, kept: readonly number[], seed: number, context: LongTaskOptions): Promise<LinearReplacement[]> {
  const runs = removedRuns(depthOf(model), kept);
  if (runs.length === 0) return [];
  const fitted = await fitReplacements(model, await embeddedLatents(1000, context), runs, { seed, ...context });
  for (const { replacement, error } of fitted) console.log(`layers ${replacement.run[0]} to ${replacement.run[1] - 1}: a linear layer leaves ${(100 * error).toFixed(0)} % of what they do`);
  return fitted.map(({ replacement }) => replacement);
}

function ownLayers(keep: string): number[] {
  const layers = parseKeep(keep);
  if (!Array.isArray(layers)) throw new ArgumentError('--keep', keep, 'layer numbers alone, counted over all stacks');
  return layers;
}

/** A choice by one of the criteria to compare with. */
async function choose(method: NonNullable<PruneJob['method']>, model: Prunable, options: { count: number; seed: number } & LongTaskOptions): Promise<{ kept: number[]; criterion: string }> {
  const [depth, { count, seed }] = [depthOf(model), options];
  const measured = async (criterion: string, by: (model: Prunable, data: LatentDataset, options: { count: number; seed: number } & LongTaskOptions) => Promise<{ kept: number[] }>) => ({ kept: (await by(model, await embeddedLatents(1000, options), options)).kept, criterion });
  switch (method) {
    case 'block-influence':
      return measured('block influence', chooseByBlockInfluence);
    case 'block-error':
      return measured('block error', chooseByBlockError);
    case 'sensitivity':
      return measured('sensitivity', chooseBySensitivity);
    case 'taylor':
      return measured('taylor', chooseByTaylor);
    case 'cka':
      return measured('CKA intervals', chooseByCka);
    case 'random':
      return { kept: atRandom(depth, count, createRng(seed)), criterion: 'random' };
    case 'oracle':
      return { kept: oracle(depth, count), criterion: 'oracle' };
    case 'first':
      return { kept: firstLayers(depth, count), criterion: 'first' };
    case 'last':
      return { kept: lastLayers(depth, count), criterion: 'last' };
    case 'uniform':
      return { kept: uniformLayers(depth, count), criterion: 'uniform' };
  }
}
