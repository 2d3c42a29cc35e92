import { ArgumentError, type LongTaskOptions, printable } from '@tinyfusion/core';
import { type Naming, isDiffusersDiT, recognise, renamed } from '@tinyfusion/models';
import { MODEL_KEY } from '@tinyfusion/nn';
import { type PruneRecord, describeRecord, findStacks, readPruneRecord } from '@tinyfusion/pruning';
import { type StateDict, weightsOf, withDtype } from '@tinyfusion/weights';
import { writeCheckpoint } from '@tinyfusion/weights/node';
import { basename } from 'node:path';
import { type AdapterChoice, withAdapters } from './adapter-files.js';
import type { JobContext } from './context.js';
import { openFile, openWeights } from './weights-file.js';

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
  /** Stacks of blocks that can be cut, largest first. */
  stacks: { name: string; blocks: number; parameters: number }[];
  /** Names of what lies beside the tensors. */
  beside: string[];
}

/** Looks into a checkpoint without reading a tensor; one that is elsewhere is fetched into the cache. */
export async function inspect(path: string, context: LongTaskOptions = {}): Promise<Inspection> {
  await using checkpoint = await openWeights(path, context);
  await using file = await openFile(path, context);
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
  return { file: basename(path), bytes: file.size, tensors: checkpoint.tensors.size, parameters, types, parts, ...(model === undefined ? {} : { model }), ...(prune === undefined ? {} : { prune }), stacks: findStacks(weights).stacks.map(({ name, blocks, parameters: values }) => ({ name, blocks, parameters: values })), beside };
}

/** Options of `tinyfusion inspect`. */
export interface InspectJob {
  tensors?: boolean;
  json?: boolean;
}

/** Prints what is in a checkpoint. */
export async function inspectJob(path: string, { tensors = false, json = false }: InspectJob, context: LongTaskOptions = {}): Promise<void> {
  const found = await inspect(path, context);
  const listed = tensors ? await listOf(path, context) : [];
  if (json) console.log(JSON.stringify(tensors ? { ...found, list: listed } : found, null, 2));
  else {
    const { file, bytes, model, prune, parts, beside, stacks } = found;
    // names are what the file's writer wanted them to be
    const list = (names: readonly string[]): string => printable(names.join(', '));
    console.log(`${printable(file)}: ${(bytes / 1e6).toFixed(1)} MB, ${found.tensors} tensors, ${(found.parameters / 1e6).toFixed(2)} M values (${Object.entries(found.types).map(([type, n]) => `${type} ${(n / 1e6).toFixed(2)} M`).join(', ')})`);
    if (Object.keys(parts).length > 0) console.log(`parts: ${list(Object.entries(parts).map(([name, n]) => `${name} (${n})`))}`);
    if (model !== undefined) console.log(`model: ${model.summary}${model.presets.length > 0 ? `; the shape of ${model.presets.join(' or ')}` : ''}`);
    if (prune !== undefined) console.log(describeRecord(prune));
    if (model === undefined && stacks.length > 0) console.log(`stacks: ${list(stacks.map(({ name, blocks, parameters }) => `${name} (${blocks} blocks, ${(parameters / 1e6).toFixed(2)} M values)`))}`);
    if (beside.length > 0) console.log(`beside the tensors: ${list(beside)}`);
  }
  if (!json) for (const { name, dtype, shape } of listed) console.log(`${printable(name)} ${dtype} [${shape.join(', ')}]`);
}

/** Every tensor's name, type and shape. */
async function listOf(path: string, context: LongTaskOptions): Promise<{ name: string; dtype: string; shape: readonly number[] }[]> {
  await using checkpoint = await openWeights(path, context);
  return Array.from(checkpoint.tensors, ([name, { dtype, shape }]) => ({ name, dtype, shape }));
}

/** Options of `tinyfusion convert`. */
export interface ConvertJob extends AdapterChoice {
  dtype?: 'F32' | 'F16';
  weights?: string;
  whole?: boolean;
  /** Whose names a DiT's or an autoencoder's tensors get. Default: they keep theirs. */
  names?: Naming;
  /** Side of the images of a DiT that gets upstream's names, where its file does not tell: eight times its latents'. Default: 256. */
  imageSize?: number;
}

/** Writes a checkpoint in another format or type, tensor by tensor. */
export async function convertJob(from: string, to: string, { dtype, weights, whole = false, names, imageSize, lora }: ConvertJob, context: JobContext): Promise<void> {
  if (whole && weights !== undefined) throw new ArgumentError('--weights', weights, 'nothing where --whole keeps all');
  await using checkpoint = await openWeights(from, context);
  const own = await withAdapters(whole ? checkpoint : weightsOf(checkpoint, weights), lora, context);
  const chosen = names === undefined ? own : renamed(own, names, { inputSize: imageSize === undefined ? undefined : imageSize / 8 });
  if (names === 'upstream' && imageSize === undefined && isDiffusersDiT(own) && !own.tensors.has('pos_embed.pos_embed') && !own.metadata.has(MODEL_KEY)) console.error('note: the file does not tell the size of its images, which are taken for 256 × 256; for others say --image-size');
  await writeCheckpoint(to, dtype === undefined ? chosen : withDtype(chosen, dtype), context);
  console.log(`wrote ${to}`);
}
