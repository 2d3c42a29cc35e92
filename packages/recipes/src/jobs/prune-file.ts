import { ArgumentError, CheckpointError, type Rng, createRng } from '@tinyfusion/core';
import { PRUNE_RECORD_KEY, type PruneRecord, byIndex, findStacks, pruneMetadata, prunedConfig, pruneStacks, readPruneRecord, stackDepth } from '@tinyfusion/pruning';
import { type StateDict, stateDictHash, weightsOf } from '@tinyfusion/weights';
import { writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type Rule, isRule, rules } from '../by-rule.js';
import type { JobContext } from './context.js';
import { checkModelPath } from './model-file.js';
import { withBlocks } from './rebuilt.js';
import { openWeights } from './weights-file.js';

/** Options of `tinyfusion prune --ckpt`. */
export interface PruneFileJob {
  ckpt: string;
  /** The stack to cut, or several with commas between. Default: those that the file's names tell. */
  stack?: string;
  /** Layers of the stack, or of each of several: `'double_blocks:0,2;single_blocks:1,3'`. */
  keep?: string;
  /** A rule that looks at nothing but the number of layers. */
  method?: string;
  /** Layers that `method` keeps of each stack. Default: half. */
  count?: number;
  /** Of `method` random. */
  seed: number;
  weights?: string;
  /** A `config.json` to change with it; written beside `out`. */
  config?: string;
  out: string;
}

/** Cuts a checkpoint of any residual stack, or of several, without running it or holding it in memory. */
export async function pruneFileJob(job: PruneFileJob, context: JobContext): Promise<void> {
  if (job.method !== undefined && !isRule(job.method)) throw new ArgumentError('--method', job.method, `${Object.keys(rules).join(', ')}, or --keep: other choices have to run the model`);
  checkPlaces(job);
  await checkModelPath('--out', job.out, { '--ckpt': job.ckpt });
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
    criterion: job.method ?? 'index',
    ...(job.method === 'random' ? { seed: job.seed } : {}),
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
  if (config !== undefined) await writeFileAtomic(configBeside(job.out), JSON.stringify(config, null, 2));
  for (const cut of cuts) console.log(`kept ${cut.kept.join(',')} of ${cut.depth} blocks${cut.stack === 'blocks' ? '' : ` of ${cut.stack}`}`);
  console.log(`wrote ${job.out}${config === undefined ? '' : ' and config.json beside it'}`);
}

/** @throws ArgumentError where the configuration that is read would be overwritten */
function checkPlaces({ config, out }: PruneFileJob): void {
  if (config !== undefined && resolve(configBeside(out)) === resolve(config)) throw new ArgumentError('--out', out, `a file in another folder: the changed configuration is written beside it, where it would overwrite ${config}`);
}

const configBeside = (out: string): string => join(dirname(out), 'config.json');

/** The stacks to cut and what stays of them. @throws ArgumentError or CheckpointError that lists what was found */
function cutsOf({ stack, keep, method, count, seed }: PruneFileJob, weights: StateDict): { stack: string; depth: number; kept: number[] }[] {
  const given = keep === undefined ? undefined : parseKeep(keep);
  const found = findStacks(weights).stacks;
  const whole = (name: string): string => wholeName(name, found.map((one) => one.name));
  const lists = given === undefined || Array.isArray(given) ? given : Object.fromEntries(Object.entries(given).map(([name, layers]) => [whole(name), layers]));
  const stacks = stack?.split(',').map(whole) ?? (lists !== undefined && !Array.isArray(lists) ? Object.keys(lists) : chosenStacks(weights));
  const others = lists === undefined || Array.isArray(lists) ? [] : Object.keys(lists).filter((name) => !stacks.includes(name));
  if (others.length > 0) throw new ArgumentError('--keep', keep, `layers of ${stacks.join(', ')} alone, which --stack names; not of ${others.join(', ')}`);
  const rng = createRng(seed);
  return stacks.map((name) => {
    const depth = stackDepth(weights, name);
    const fixedLast = found.find((one) => one.name === name)?.ownLast ?? false;
    if (lists === undefined) return { stack: name, depth, kept: byRule(method as Rule, { name, depth, count: count ?? Math.floor(depth / 2), fixedLast }, rng) };
    if (Array.isArray(lists) && stacks.length > 1) throw new ArgumentError('--keep', keep, `the layers of each stack: ${stacks.map((one) => `${one}:…`).join(';')}`);
    const own = Array.isArray(lists) ? lists : lists[name];
    if (own === undefined) throw new ArgumentError('--keep', keep, `layers of ${name} too, or another --stack`);
    const kept = byIndex(depth, own);
    if (fixedLast && kept.at(-1) !== depth - 1) throw new ArgumentError('--keep', keep, `layer ${depth - 1} of ${name} among them: it has other tensors than all others, as the last block of SD3 has no text output, and no loader takes another in its place`);
    return { stack: name, depth, kept };
  });
}

/** A stack's name with the file's prefix, where it was named without, as one alone can be meant. */
function wholeName(name: string, found: readonly string[]): string {
  const ending = found.filter((one) => one.endsWith(`.${name}`));
  return found.includes(name) || ending.length !== 1 ? name : ending[0]!;
}

/** A rule's choice; a last block that is unlike all others always stays. */
function byRule(rule: Rule, { name, depth, count, fixedLast }: { name: string; depth: number; count: number; fixedLast: boolean }, rng: Rng): number[] {
  if (count > depth) throw new ArgumentError('--count', count, `at most the ${depth} blocks of ${name}`);
  const kept = rules[rule](depth, count, rng);
  if (!fixedLast || kept.includes(depth - 1)) return kept;
  return count === 1 ? [depth - 1] : [...rules[rule](depth - 1, count - 1, rng), depth - 1];
}

function chosenStacks(weights: StateDict): string[] {
  const { chosen, note } = findStacks(weights);
  if (chosen.length === 0) throw new ArgumentError('--stack', undefined, `the name of the blocks to cut: ${note}`);
  return chosen;
}

/** `'0,2,4'`, or lists by stack: `'double_blocks:0,2;single_blocks:1,3'`. @throws ArgumentError where it is neither */
export function parseKeep(text: string): number[] | Record<string, number[]> {
  const list = (part: string): number[] => {
    const layers = part.split(',').map((layer) => layer.trim());
    if (!layers.every((layer) => /^\d+$/.test(layer))) throw new ArgumentError('--keep', text, 'layer numbers, e.g. 0,2,4, or such lists by stack, e.g. double_blocks:0,2;single_blocks:1,3');
    return layers.map(Number);
  };
  if (!text.includes(':')) return list(text);
  const lists: Record<string, number[]> = {};
  for (const part of text.split(';')) {
    const stack = part.slice(0, Math.max(0, part.indexOf(':'))).trim();
    if (Object.hasOwn(lists, stack)) throw new ArgumentError('--keep', text, `the layers of each stack once; ${stack} is there twice`);
    lists[stack] = list(part.slice(part.indexOf(':') + 1));
  }
  return lists;
}

async function readConfig(path: string): Promise<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new CheckpointError(`${path} cannot be read as a model's configuration: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new CheckpointError(`${path} is no model's configuration: it holds ${JSON.stringify(value)?.slice(0, 40)}, expected an object`);
  return value as Record<string, unknown>;
}
