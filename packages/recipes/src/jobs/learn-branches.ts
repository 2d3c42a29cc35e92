import { ArgumentError } from '@tinyfusion/core';
import { MAR } from '@tinyfusion/models';
import type { BranchDecision } from '@tinyfusion/sampler';
import { stateDictHash } from '@tinyfusion/weights';
import { checkWritable } from '@tinyfusion/weights/node';
import { type LearnedBranches, checkWholeBlocks, learnBranches } from '../learn-branches.js';
import { RunFolder } from '../runs/run-folder.js';
import { type JobContext, leads, loadModel, write } from './context.js';
import { checkBatch, checkFits, openTrainingData } from './training-data.js';
import type { StoredDecision } from './decision.js';

/** Options of `tinyfusion learn-branches`. */
export interface LearnBranchesJob {
  model?: string;
  /** How many times as fast a forward pass is to be on this device. */
  faster: number;
  steps: number;
  batch: number;
  /** Parts of a batch that are computed one after another. Default: 1. */
  parts?: number;
  lr: number;
  gateLr: number;
  images: number;
  /** A pack, or a folder of IDX files. Default: the embedded images. */
  data?: string;
  seed: number;
  /** Folder that the run is kept in. Default: it is not kept. */
  run?: string;
  saveEvery: number;
  keepEvery?: number;
  out: string;
}

/** Learns which attention and MLP branches stay within a budget of time, and writes the decision as JSON. */
export async function learnBranchesJob({ faster, steps, batch, parts, lr, gateLr, images, seed, ...job }: LearnBranchesJob, context: JobContext): Promise<void> {
  await checkWritable(job.out);
  const { model, state, name } = await loadModel(job.model, context);
  if (model instanceof MAR) throw new ArgumentError('--model', name, 'a DiT or SiT: the blocks of a MAR stay whole');
  checkWholeBlocks(model);
  const sha256 = await stateDictHash(state);
  using data = await openTrainingData(job.data, { images }, context);
  checkFits(data, model);
  checkBatch(batch, data, context);
  await using run = job.run === undefined || !leads(context) ? undefined : await RunFolder.open(job.run, { task: 'learn-branches', data: data.hash, model: sha256, faster, steps, batch, lr, gateLr, images, seed }, { command: context.command, every: job.saveEvery, ...(job.keepEvery === undefined ? {} : { keepEvery: job.keepEvery }) });
  const latents = await data.latents();
  /** A decision as `prune` takes it. */
  const stored = ({ droppedBranches: { attention, mlp }, groups }: BranchDecision): StoredDecision & Required<Pick<StoredDecision, 'branches'>> => {
    const kept = model.blocks.map((_, i) => i).filter((i) => !attention.includes(i) || !mlp.includes(i));
    return { kept, branches: { attention: attention.filter((i) => kept.includes(i)), mlp: mlp.filter((i) => kept.includes(i)) }, depth: model.blocks.length, confidence: groups.map((g) => g.confidence), teacher: { name, sha256 }, seed, command: context.command };
  };
  const store = async (decision: BranchDecision): Promise<Uint8Array> => new TextEncoder().encode(JSON.stringify(stored(decision)));
  const learned = await learnBranches(model, latents, { faster, steps, batchSize: batch, parts, lr, gateLr, seed, ...(run === undefined ? context : run.checkpointing(store, context, { name: 'branches.json' })), collective: context.collective });
  if (!leads(context)) return;
  const decision = stored(learned.decision);
  const { kept, branches } = decision;
  const speed = { asked: faster, promised: learned.faster, ...(learned.measured === undefined ? {} : { measured: learned.measured }) };
  await write(job.out, JSON.stringify({ ...decision, speed, costs: learned.costs, losses: learned.losses }));
  console.log(`keep layers ${kept.join(',')}${branches.attention.length > 0 ? `, ${branches.attention.join(',')} without attention` : ''}${branches.mlp.length > 0 ? `, ${branches.mlp.join(',')} without the MLP` : ''}: ${speedOf(learned)}`);
}

/** What was promised by the blocks' times, and what was measured of the whole. */
function speedOf({ faster, measured }: LearnedBranches): string {
  const promised = `${faster.toFixed(2)} times as fast by the times of its blocks`;
  if (measured === undefined) return promised;
  const [lower, upper] = measured.quartiles;
  return `${promised}, ${measured.faster.toFixed(2)} (${lower.toFixed(2)} to ${upper.toFixed(2)}) as measured in turns with the whole: ${measured.hooked.toFixed(1)} ms in place of ${measured.whole.toFixed(1)}`;
}
