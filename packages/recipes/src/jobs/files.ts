import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { type Naming, recognise, renamed } from '@tinyfusion/models';
import { PRUNE_RECORD_KEY, type PruneRecord, byIndex, oracle, pruneMetadata, pruneState, readPruneRecord, stackDepth } from '@tinyfusion/pruning';
import { type StateDict, stateDictHash, weightsOf, withDtype } from '@tinyfusion/weights';
import { openCheckpoint, writeCheckpoint } from '@tinyfusion/weights/node';
import { mkdir, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import type { JobContext } from './context.js';

/** Jobs on checkpoint files that run no model. */

/** What `tinyfusion inspect` says of a file; plain JSON. */
export interface Inspection {
  file: string;
  bytes: number;
  tensors: number;
  parameters: number;
  /** Values by type. */
  types: Record<string, number>;
  /** Tensors under each first name, where the file is a training run's. */
  parts: Record<string, number>;
  /** Presets of its shape, and what it is in words. */
  model?: { presets: string[]; summary: string };
  prune?: PruneRecord;
  /** Names of what lies beside the tensors. */
  beside: string[];
}

/** Looks into a checkpoint without reading a tensor. */
export async function inspect(path: string): Promise<Inspection> {
  const { size } = await stat(path).catch(() => ({ size: 0 }));
  await using checkpoint = await openCheckpoint(path);
  const types: Record<string, number> = {};
  let parameters = 0;
  for (const { dtype, shape } of checkpoint.tensors.values()) {
    const count = shape.reduce((a, b) => a * b, 1);
    parameters += count;
    types[dtype] = (types[dtype] ?? 0) + count;
  }
  const weights = weightsOf(checkpoint);
  const parts: Record<string, number> = {};
  if (weights !== checkpoint) for (const name of checkpoint.tensors.keys()) parts[name.split('.')[0]!] = (parts[name.split('.')[0]!] ?? 0) + 1;
  const model = recognise(weights);
  const prune = readPruneRecord(checkpoint.metadata);
  const { extra } = checkpoint as StateDict & { extra?: unknown };
  const beside = [...checkpoint.metadata.keys(), ...(typeof extra === 'object' && extra !== null ? Object.keys(extra) : [])];
  return { file: basename(path), bytes: size, tensors: checkpoint.tensors.size, parameters, types, parts, ...(model === undefined ? {} : { model }), ...(prune === undefined ? {} : { prune }), beside };
}

/** Options of `tinyfusion inspect`. */
export interface InspectJob {
  tensors?: boolean;
  json?: boolean;
}

/** Prints what is in a checkpoint. */
export async function inspectJob(path: string, { tensors = false, json = false }: InspectJob): Promise<void> {
  const found = await inspect(path);
  if (json) console.log(JSON.stringify(found, null, 2));
  else {
    const { file, bytes, model, prune, parts, beside } = found;
    console.log(`${file}: ${(bytes / 1e6).toFixed(1)} MB, ${found.tensors} tensors, ${(found.parameters / 1e6).toFixed(2)} M values (${Object.entries(found.types).map(([type, n]) => `${type} ${(n / 1e6).toFixed(2)} M`).join(', ')})`);
    if (Object.keys(parts).length > 0) console.log(`parts: ${Object.entries(parts).map(([name, n]) => `${name} (${n})`).join(', ')}`);
    if (model !== undefined) console.log(`model: ${model.summary}${model.presets.length > 0 ? `; the shape of ${model.presets.join(' or ')}` : ''}`);
    if (prune !== undefined) console.log(`pruned: layers ${prune.kept.join(',')} of ${prune.depth}, chosen by ${prune.criterion}, from ${prune.teacher.name}`);
    if (beside.length > 0) console.log(`beside the tensors: ${beside.join(', ')}`);
  }
  if (!tensors) return;
  await using checkpoint = await openCheckpoint(path);
  for (const [name, { dtype, shape }] of checkpoint.tensors) console.log(`${name} ${dtype} [${shape.join(', ')}]`);
}

/** Options of `tinyfusion convert`. */
export interface ConvertJob {
  dtype?: 'F32' | 'F16';
  weights?: string;
  whole?: boolean;
  /** Whose names a DiT's or an autoencoder's tensors get. Default: they keep theirs. */
  names?: Naming;
}

/** Writes a checkpoint in another format or type, tensor by tensor. */
export async function convertJob(from: string, to: string, { dtype, weights, whole = false, names }: ConvertJob, context: JobContext): Promise<void> {
  if (whole && weights !== undefined) throw new ArgumentError('--weights', weights, 'nothing where --whole keeps all');
  await using checkpoint = await openCheckpoint(from);
  const own = whole ? checkpoint : weightsOf(checkpoint, weights);
  const chosen = names === undefined ? own : renamed(own, names);
  await mkdir(dirname(to), { recursive: true });
  await writeCheckpoint(to, dtype === undefined ? chosen : withDtype(chosen, dtype), context);
  console.log(`wrote ${to}`);
}

/** Options of `tinyfusion prune --ckpt`. */
export interface PruneFileJob {
  ckpt: string;
  stack?: string;
  keep?: number[];
  method?: string;
  count?: number;
  weights?: string;
  out: string;
}

/** Cuts a checkpoint of any residual stack, without running it or holding it in memory. */
export async function pruneFileJob(job: PruneFileJob, context: JobContext): Promise<void> {
  await using checkpoint = await openCheckpoint(job.ckpt);
  const weights = weightsOf(checkpoint, job.weights);
  const stack = job.stack ?? 'blocks';
  const depth = stackDepth(weights, stack);
  if (job.method !== undefined && job.method !== 'oracle') throw new ArgumentError('--method', job.method, 'oracle, or --keep: other choices have to run the model');
  if ((job.keep === undefined) === (job.method === undefined)) throw new ArgumentError('one of --keep and --method', job.keep === undefined ? 'none' : 'both', 'exactly one');
  const kept = job.keep === undefined ? oracle(depth, job.count ?? Math.floor(depth / 2)) : byIndex(depth, job.keep);
  const from = readPruneRecord(checkpoint.metadata);
  const record: PruneRecord = {
    version: 1,
    stack,
    kept,
    depth,
    criterion: job.keep === undefined ? 'oracle' : 'index',
    teacher: { name: basename(job.ckpt), sha256: await stateDictHash(weights) },
    command: context.command,
    ...(from === undefined ? {} : { from }),
  };
  const pruned = pruneState(weights, stack, kept);
  if (pruned.tensors.size === weights.tensors.size) throw new CheckpointError(`${job.ckpt}: all ${depth} blocks of ${stack} would stay`);
  await mkdir(dirname(job.out), { recursive: true });
  await writeCheckpoint(job.out, pruned, { ...context, metadata: [...[...checkpoint.metadata].filter(([key]) => key !== PRUNE_RECORD_KEY), pruneMetadata(record)] });
  console.log(`kept ${kept.join(',')} of ${depth} blocks of ${stack}, wrote ${job.out}`);
}
