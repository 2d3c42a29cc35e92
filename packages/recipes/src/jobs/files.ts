import { ArgumentError, CheckpointError, printable } from '@tinyfusion/core';
import { type Naming, recognise, renamed } from '@tinyfusion/models';
import { PRUNE_RECORD_KEY, type PruneRecord, byIndex, describeRecord, findStacks, oracle, pruneMetadata, prunedConfig, pruneStacks, readPruneRecord, stackDepth } from '@tinyfusion/pruning';
import { type StateDict, stateDictHash, weightsOf, withDtype } from '@tinyfusion/weights';
import { openCheckpoint, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import { readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { JobContext } from './context.js';
import { withBlocks } from './rebuilt.js';
import { openWeights } from './weights-file.js';

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
  return { file: basename(path), bytes: size, tensors: checkpoint.tensors.size, parameters, types, parts, ...(model === undefined ? {} : { model }), ...(prune === undefined ? {} : { prune }), stacks: findStacks(weights).stacks.map(({ name, blocks, parameters: values }) => ({ name, blocks, parameters: values })), beside };
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
  if (!tensors) return;
  await using checkpoint = await openCheckpoint(path);
  for (const [name, { dtype, shape }] of checkpoint.tensors) console.log(`${printable(name)} ${dtype} [${shape.join(', ')}]`);
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
  await using checkpoint = await openWeights(from, context);
  const own = whole ? checkpoint : weightsOf(checkpoint, weights);
  const chosen = names === undefined ? own : renamed(own, names);
  await writeCheckpoint(to, dtype === undefined ? chosen : withDtype(chosen, dtype), context);
  console.log(`wrote ${to}`);
}

/** Options of `tinyfusion prune --ckpt`. */
export interface PruneFileJob {
  ckpt: string;
  /** The stack to cut, or several with commas between. Default: those that the file's names tell. */
  stack?: string;
  /** Layers of the stack, or of each of several: `'double_blocks:0,2;single_blocks:1,3'`. */
  keep?: string;
  method?: string;
  /** Layers that `method` keeps of each stack. Default: half. */
  count?: number;
  weights?: string;
  /** A `config.json` to change with it; written beside `out`. */
  config?: string;
  out: string;
}

/** Cuts a checkpoint of any residual stack, or of several, without running it or holding it in memory. */
export async function pruneFileJob(job: PruneFileJob, context: JobContext): Promise<void> {
  if (job.method !== undefined && job.method !== 'oracle') throw new ArgumentError('--method', job.method, 'oracle, or --keep: other choices have to run the model');
  if ((job.keep === undefined) === (job.method === undefined)) throw new ArgumentError('one of --keep and --method', job.keep === undefined ? 'none' : 'both', 'exactly one');
  await using checkpoint = await openWeights(job.ckpt, context);
  const weights = weightsOf(checkpoint, job.weights);
  const cuts = cutsOf(job, weights);
  const from = readPruneRecord(checkpoint.metadata);
  // layers are counted over all stacks
  let start = 0;
  const kept = cuts.flatMap((cut) => {
    const own = cut.kept.map((layer) => start + layer);
    start += cut.depth;
    return own;
  });
  const record = (sha256: string): PruneRecord => ({
    version: 1,
    stack: cuts.map(({ stack }) => stack).join(','),
    kept,
    depth: start,
    criterion: job.keep === undefined ? 'oracle' : 'index',
    teacher: { name: basename(job.ckpt), sha256 },
    command: context.command,
    ...(from === undefined ? {} : { from }),
  });
  const pruned = pruneStacks(weights, Object.fromEntries(cuts.map((cut) => [cut.stack, cut.kept])));
  if (pruned.tensors.size === weights.tensors.size) throw new CheckpointError(`${job.ckpt}: all ${start} blocks of ${cuts.map(({ stack }) => stack).join(', ')} would stay`);
  const config = job.config === undefined ? undefined : cuts.reduce((value, cut) => prunedConfig(value, cut.stack, cut.kept), await readConfig(job.config));
  const others = [...withBlocks(checkpoint.metadata, Object.fromEntries(cuts.map((cut) => [cut.stack, cut.kept])))].filter(([key]) => key !== PRUNE_RECORD_KEY);
  const metadata = (sha256: string): [string, string][] => [...others, pruneMetadata(record(sha256))];
  // the whole file is hashed while its half is written: the hash has its place in the header before it is known
  await writeCheckpoint(job.out, pruned, { ...context, metadata: metadata('0'.repeat(64)), finalMetadata: stateDictHash(weights).then(metadata) });
  if (config !== undefined) await writeFileAtomic(join(dirname(job.out), 'config.json'), JSON.stringify(config, null, 2));
  for (const cut of cuts) console.log(`kept ${cut.kept.join(',')} of ${cut.depth} blocks of ${cut.stack}`);
  console.log(`wrote ${job.out}${config === undefined ? '' : ' and config.json beside it'}`);
}

/** The stacks to cut and what stays of them. @throws ArgumentError or CheckpointError that lists what was found */
function cutsOf({ stack, keep, count }: PruneFileJob, weights: StateDict): { stack: string; depth: number; kept: number[] }[] {
  const lists = keep === undefined ? undefined : parseKeep(keep);
  const named = stack?.split(',') ?? (lists !== undefined && !Array.isArray(lists) ? Object.keys(lists) : undefined);
  const stacks = named ?? chosenStacks(weights);
  return stacks.map((name) => {
    const depth = stackDepth(weights, name);
    if (lists === undefined) return { stack: name, depth, kept: oracle(depth, count ?? Math.floor(depth / 2)) };
    if (Array.isArray(lists) && stacks.length > 1) throw new ArgumentError('--keep', keep, `the layers of each stack: ${stacks.map((one) => `${one}:…`).join(';')}`);
    const own = Array.isArray(lists) ? lists : lists[name];
    if (own === undefined) throw new ArgumentError('--keep', keep, `layers of ${name} too, or another --stack`);
    return { stack: name, depth, kept: byIndex(depth, own) };
  });
}

function chosenStacks(weights: StateDict): string[] {
  const { chosen, note } = findStacks(weights);
  if (chosen.length === 0) throw new ArgumentError('--stack', undefined, `the name of the blocks to cut: ${note}`);
  return chosen;
}

/** `'0,2,4'`, or lists by stack: `'double_blocks:0,2;single_blocks:1,3'`. @throws ArgumentError where it is neither */
export function parseKeep(text: string): number[] | Record<string, number[]> {
  const list = (part: string): number[] => {
    const layers = part.split(',').map(Number);
    if (part.trim() === '' || layers.some((layer) => !Number.isInteger(layer))) throw new ArgumentError('--keep', text, 'layer numbers, e.g. 0,2,4, or such lists by stack, e.g. double_blocks:0,2;single_blocks:1,3');
    return layers;
  };
  if (!text.includes(':')) return list(text);
  return Object.fromEntries(text.split(';').map((part) => [part.slice(0, part.indexOf(':')).trim(), list(part.slice(part.indexOf(':') + 1))]));
}

async function readConfig(path: string): Promise<Record<string, unknown>> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw new CheckpointError(`${path} cannot be read as a model's configuration: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}
