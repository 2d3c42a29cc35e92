import { ArgumentError, CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { MAR, saveModel } from '@tinyfusion/models';
import { byIndex, type LinearReplacement, pruneMetadata, type PruneRecord, removedRuns } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import { type Rule, chooseByRule, isRule } from '../by-rule.js';
import type { LatentDataset } from '../latents.js';
import type { Prunable } from '../objective.js';
import { chooseByBlockError, chooseByBlockInfluence, chooseByCka, chooseBySensitivity, chooseByTaylor, fitReplacements } from '../prune.js';
import { type FinerCut, finerRecord, shallowCopy } from '../shallow-copy.js';
import { depthOf, stacksOf } from '../stacks.js';
import { type JobContext, loadModel } from './context.js';
import { readDecision } from './decision.js';
import { checkModelPath, writeModel } from './model-file.js';
import { parseKeep, pruneFileJob } from './prune-file.js';
import { checkFits, openTrainingData } from './training-data.js';

/** Options of `tinyfusion prune`. */
export interface PruneJob {
  model?: string;
  masks?: string;
  /** Layers to keep, `'0,2,5'`; with `ckpt` also by stack. */
  keep?: string;
  method?: Criterion | Rule;
  /** A file to cut as it is, in place of a model. */
  ckpt?: string;
  stack?: string;
  weights?: string;
  config?: string;
  count?: number;
  /** `'linear'`: a linear layer in the place of each removed run. Default: nothing. */
  replace?: 'linear';
  /** A pack, or a folder of IDX files, that criteria and linear layers look at. Default: the embedded images. */
  data?: string;
  /** The first so many of images that are encoded here. Default 1000. */
  images?: number;
  seed: number;
  out: string;
}

/** Criteria that run the model, by their names in the command. */
const criteria = {
  'block-influence': { criterion: 'block influence', choose: chooseByBlockInfluence },
  'block-error': { criterion: 'block error', choose: chooseByBlockError },
  sensitivity: { criterion: 'sensitivity', choose: chooseBySensitivity },
  taylor: { criterion: 'taylor', choose: chooseByTaylor },
  cka: { criterion: 'CKA intervals', choose: chooseByCka },
} as const;
type Criterion = keyof typeof criteria;

/** Cuts a model and writes it with its record. */
export async function pruneJob(job: PruneJob, context: JobContext): Promise<void> {
  checkOptions(job);
  if (job.ckpt !== undefined) return pruneFileJob({ ...job, ckpt: job.ckpt }, context);
  await checkModelPath('--out', job.out, { '--model': job.model });
  const { model, state, name, record: from } = await loadModel(job.model, context);
  const depth = depthOf(model);
  const count = job.count ?? Math.floor(depth / 2);
  if (count > depth) throw new ArgumentError('--count', count, `at most the model's ${depth} layers`);
  if (model instanceof MAR && (job.method === 'cka' || job.replace !== undefined)) throw new ArgumentError(job.method === 'cka' ? '--method' : '--replace', job.method === 'cka' ? job.method : job.replace, 'another for a MAR: it looks at one stack of layers, and a MAR has two');
  const teacher = { name, sha256: await stateDictHash(state) };
  using data = measures(job) ? await openTrainingData(job.data, { images: job.images ?? 1000 }, context) : undefined;
  if (data !== undefined) checkFits(data, model);
  const latents = await data?.latents();
  let finer: FinerCut | undefined;
  let choice: Pick<PruneRecord, 'kept' | 'criterion' | 'groups' | 'confidence' | 'seed' | 'learnedBy'>;
  if (job.masks !== undefined) {
    const { kept, groups, branches, confidence, teacher: own, seed, command } = await readDecision(job.masks, depth);
    if (own.sha256 !== teacher.sha256) throw new CheckpointError(`${job.masks} was learned for ${own.name} (${own.sha256.slice(0, 12)}…), this model is ${name} (${teacher.sha256.slice(0, 12)}…); learn masks for this model`);
    choice = { kept, criterion: 'learned', ...(groups === undefined ? {} : { groups }), confidence, ...(seed === undefined ? {} : { seed }), ...(command === undefined ? {} : { learnedBy: command }) };
    if (branches !== undefined) finer = { branches };
  } else if (job.keep !== undefined) choice = { kept: byIndex(depth, ownLayers(job.keep)), criterion: 'index' };
  else if (isRule(job.method!)) choice = { kept: chooseByRule(model, job.method, { count, seed: job.seed }), criterion: job.method };
  else {
    const { criterion, choose } = criteria[job.method!];
    choice = { kept: (await choose(model, latents!, { count, seed: job.seed, ...context })).kept, criterion };
  }
  if (job.replace !== undefined) finer = { ...finer, replacements: await linearLayers(model, choice.kept, latents!, job.seed, context) };
  const student = await shallowCopy(model, choice.kept, finer);
  const record: PruneRecord = { version: 1, stack: stacksOf(model).map((stack) => stack.name).join(','), depth, teacher, seed: job.seed, command: context.command, ...choice, ...(finer === undefined ? {} : finerRecord(choice.kept, finer)), ...(from === undefined ? {} : { from }) };
  await writeModel(job.out, await saveModel(student, { metadata: [pruneMetadata(record)] }));
  const runs = finer?.replacements?.length ?? 0;
  console.log(`kept ${choice.kept.join(',')} of ${depth} layers${runs > 0 ? `, linear layers in the place of ${runs} runs` : ''}: ${(student.parameterCount() / 1e6).toFixed(2)} M of ${(model.parameterCount() / 1e6).toFixed(2)} M parameters`);
}

/** @throws ArgumentError where options do not go together: none is left out without a word */
function checkOptions(job: PruneJob): void {
  const given = (['masks', 'keep', 'method'] as const).filter((name) => job[name] !== undefined);
  if (given.length !== 1) throw new ArgumentError('one of --masks, --keep and --method', given.map((name) => `--${name}`), 'exactly one');
  const refuse = (name: keyof PruneJob, why: string): void => {
    if (job[name] !== undefined) throw new ArgumentError(`--${name}`, job[name], `to be left out ${why}`);
  };
  if (job.method === undefined) refuse('count', 'without --method, whose layers it counts');
  if (job.ckpt === undefined) for (const name of ['stack', 'config', 'weights'] as const) refuse(name, 'without --ckpt, whose file it is about');
  else {
    refuse('model', 'with --ckpt, which names the file to cut');
    refuse('masks', 'with --ckpt; give the layers with --keep');
    refuse('replace', 'with --ckpt: linear layers are fitted to what a model computes');
  }
  if (job.ckpt !== undefined || !measures(job)) for (const name of ['data', 'images'] as const) refuse(name, 'where nothing is measured: no criterion here looks at data');
}

/** Whether the job looks at data. */
const measures = ({ method, replace }: PruneJob): boolean => replace !== undefined || (method !== undefined && !isRule(method));

/** Linear layers for the removed runs, and how good they are. */
async function linearLayers(model: Prunable, kept: readonly number[], latents: LatentDataset, seed: number, context: LongTaskOptions): Promise<LinearReplacement[]> {
  const runs = removedRuns(depthOf(model), kept);
  if (runs.length === 0) return [];
  const fitted = await fitReplacements(model, latents, runs, { seed, ...context });
  for (const { replacement, error } of fitted) console.log(`layers ${replacement.run[0]} to ${replacement.run[1] - 1}: a linear layer leaves ${(100 * error).toFixed(0)} % of what they do`);
  return fitted.map(({ replacement }) => replacement);
}

function ownLayers(keep: string): number[] {
  const layers = parseKeep(keep);
  if (!Array.isArray(layers)) throw new ArgumentError('--keep', keep, 'layer numbers alone, counted over all stacks');
  return layers;
}
