import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import { type Decision, parseGroups } from '@tinyfusion/sampler';
import { stateDictHash } from '@tinyfusion/weights';
import { checkWritable } from '@tinyfusion/weights/node';
import type { LatentDataset } from '../latents.js';
import { learnMasks } from '../learn-masks.js';
import type { Prunable } from '../objective.js';
import { chooseByBlockError, chooseByBlockInfluence, chooseBySensitivity, chooseByTaylor } from '../prune.js';
import { RunFolder } from '../runs/run-folder.js';
import { checkStacksStay, depthOf } from '../stacks.js';
import { type JobContext, leads, loadModel, write } from './context.js';
import type { StoredDecision } from './decision.js';
import { checkBatch, checkFits, openTrainingData } from './training-data.js';

/** Options of `tinyfusion learn-masks`. */
export interface LearnMasksJob {
  model?: string;
  groups: string;
  steps: number;
  batch: number;
  /** Parts that a batch is computed in. */
  parts?: number;
  /** Whether blocks are computed a second time for their gradients, for less memory. */
  recompute?: boolean;
  lr: number;
  gateLr: number;
  update: 'lora' | 'full' | 'frozen';
  images: number;
  /** A pack, or a folder of IDX files. Default: the embedded images. */
  data?: string;
  per?: 'sample' | 'batch';
  /** Confidence at which learning ends early, when the decision has also stood for a tenth of the steps. */
  stopAt?: number;
  /** A criterion whose scores the gates start from. */
  warmStart?: 'block-influence' | 'block-error' | 'sensitivity' | 'taylor';
  seed: number;
  /** Folder that the run is kept in. Default: it is not kept. */
  run?: string;
  saveEvery: number;
  keepEvery?: number;
  out: string;
}

/** Learns a decision and writes it, with its history, as JSON. */
export async function learnMasksJob(job: LearnMasksJob, context: JobContext): Promise<void> {
  await checkWritable(job.out);
  const { model, state, name } = await loadModel(job.model, context);
  const depth = depthOf(model);
  const groups = parseScheme(job.groups);
  checkStacksStay(model, parseGroups(groups, depth)); // a scheme that does not fit is an error before anything is computed
  if (job.stopAt !== undefined && !(job.stopAt >= 0 && job.stopAt <= 1)) throw new ArgumentError('--stop-at', job.stopAt, 'a confidence from 0 to 1');
  const { steps, batch, lr, gateLr, update, images, per, stopAt, warmStart, seed } = job;
  const sha256 = await stateDictHash(state);
  using data = await openTrainingData(job.data, { images }, context);
  checkFits(data, model);
  checkBatch(batch, data, context);
  await using run = job.run === undefined || !leads(context) ? undefined : await RunFolder.open(job.run, { task: 'learn-masks', data: data.hash, model: sha256, groups: job.groups, steps, batch, lr, gateLr, update, images, per: per ?? null, stopAt: stopAt ?? null, warmStart: warmStart ?? null, seed }, { command: context.command, every: job.saveEvery, ...(job.keepEvery === undefined ? {} : { keepEvery: job.keepEvery }) });
  const latents = await data.latents();
  const sizes = parseGroups(groups, depth).map(({ size }) => size);
  /** A decision as `prune` takes it. */
  const stored = (decision: Decision): StoredDecision => ({
    kept: decision.kept,
    depth,
    confidence: decision.groups.map((g) => g.confidence),
    groups: decision.groups.map((g, i) => [g.kept.length, sizes[i]!]),
    teacher: { name, sha256 },
    seed,
    command: context.command,
  });
  const store = async (decision: Decision): Promise<Uint8Array> => new TextEncoder().encode(JSON.stringify(stored(decision)));
  const { decision, history, losses } = await learnMasks(model, latents, { groups, steps: job.steps, batchSize: job.batch, parts: job.parts, recompute: job.recompute, lr: job.lr, gateLr: job.gateLr, update: job.update, ...(job.per === undefined ? {} : { per: job.per }), seed, ...(job.stopAt === undefined ? {} : { stop: { confidence: job.stopAt, stableSteps: job.steps / 10 } }), ...(job.warmStart === undefined ? {} : { warmStart: await scoresOf(job.warmStart, model, latents, job.seed, context) }), ...(run === undefined ? context : run.checkpointing(store, context, { name: 'masks.json' })), collective: context.collective });
  if (!leads(context)) return;
  await write(job.out, JSON.stringify({ ...stored(decision), history: history.rows, losses }));
  console.log(`keep ${decision.kept.join(',')} (confidence ${decision.groups.map((g) => g.confidence.toFixed(2)).join(' ')})`);
}

/** Scores of a criterion, high where a layer matters. */
async function scoresOf(criterion: NonNullable<LearnMasksJob['warmStart']>, model: Prunable, latents: LatentDataset, seed: number, context: LongTaskOptions): Promise<{ scores: number[]; keep: 'highest' | 'lowest' }> {
  const options = { count: 1, seed, ...context };
  switch (criterion) {
    case 'block-influence':
      return { scores: (await chooseByBlockInfluence(model, latents, options)).similarities, keep: 'lowest' };
    case 'block-error':
      return { scores: (await chooseByBlockError(model, latents, options)).errors, keep: 'highest' };
    case 'sensitivity':
      return { scores: (await chooseBySensitivity(model, latents, options)).losses, keep: 'highest' };
    case 'taylor':
      return { scores: (await chooseByTaylor(model, latents, options)).importance, keep: 'highest' };
  }
}

/** `'1:2'`, or `'2:4,3:4'`: one a group. */
function parseScheme(text: string): string | [number, number][] {
  if (!text.includes(',')) return text;
  return text.split(',').map((part) => {
    const match = /^(\d+):(\d+)$/.exec(part.trim());
    if (match === null) throw new ArgumentError('groups', text, "N:M, or a list such as '2:4,3:4'");
    return [Number(match[1]), Number(match[2])];
  });
}
