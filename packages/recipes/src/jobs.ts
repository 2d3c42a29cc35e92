import { ArgumentError, CheckpointError, DataError, type LongTaskOptions, createRng, throwIfCancelled, torchCpu, torchCuda } from '@tinyfusion/core';
import { type ImageDataset, firstImages } from '@tinyfusion/data';
import { loadIdxFolder } from '@tinyfusion/data/node';
import { type FeatureNetwork, Inception, classifierFeatures, loadConvClassifier } from '@tinyfusion/eval';
import { fashionMnistClassNames, loadAutoencoder, loadFashionMnist, loadFeatureNetwork, loadTeacher } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, type DiT, loadAutoencoderKL, loadDiT, loadReference, loadReferenceAutoencoder, presets, saveModel } from '@tinyfusion/models';
import { toSafetensors } from '@tinyfusion/nn';
import { type PruneRecord, atRandom, byIndex, firstLayers, lastLayers, oracle, pruneMetadata, readPruneRecord, uniformLayers } from '@tinyfusion/pruning';
import { parseGroups } from '@tinyfusion/sampler';
import { type StateDict, stateDictHash, weightsOf } from '@tinyfusion/weights';
import { loadSafetensors, openCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { access, mkdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pruneFileJob } from './checkpoint-jobs.js';
import { distill } from './distill.js';
import { evaluateModel, referenceFeatures } from './evaluate.js';
import { evaluateImages, imageSet } from './evaluate-images.js';
import { cropCentre } from './images.js';
import { type LatentDataset, encodeDataset } from './latents.js';
import { learnMasks } from './learn-masks.js';
import { gridPng } from './png.js';
import { chooseByBlockError, chooseByBlockInfluence, chooseBySensitivity, shallowCopy } from './prune.js';
import { breathe } from './loop.js';
import { sampleImages } from './sample.js';
import { type Solver, sampleReference } from './sample-reference.js';
import { train } from './train.js';
import { refineDecoder, trainAutoencoder } from './train-autoencoder.js';
import { classifierAccuracy, trainClassifier } from './train-classifier.js';

/** What a job gets beside its options. */
export interface JobContext extends LongTaskOptions {
  /** The command as it was typed, for records. */
  command: string;
}

interface Loaded {
  model: DiT;
  state: StateDict;
  name: string;
  record: PruneRecord | undefined;
}

/** A model from a file, or the embedded teacher. */
async function loadModel(path: string | undefined): Promise<Loaded> {
  const state = path === undefined ? await loadTeacher() : await loadSafetensors(path);
  return { state, model: await loadDiT(state), name: path === undefined ? 'fashion-mnist teacher' : basename(path), record: readPruneRecord(state.metadata) };
}

async function embeddedLatents(images: number, context: LongTaskOptions): Promise<LatentDataset> {
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const latents = await encodeDataset(firstImages(await loadFashionMnist('train'), images), vae, context);
  vae.dispose();
  return latents;
}

async function embeddedNetwork(): Promise<FeatureNetwork> {
  return classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier of @tinyfusion/fashion-mnist');
}

async function write(path: string, bytes: Uint8Array | string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomic(path, bytes);
  console.log(`wrote ${path}`);
}

/** Options of `tinyfusion learn-masks`. */
export interface LearnMasksJob {
  model?: string;
  groups: string;
  steps: number;
  batch: number;
  lr: number;
  gateLr: number;
  update: 'lora' | 'full' | 'frozen';
  images: number;
  seed: number;
  out: string;
}

/** A decision on disk. */
interface StoredDecision {
  kept: number[];
  depth: number;
  confidence: number[];
  groups: [number, number][];
  teacher: PruneRecord['teacher'];
}

/** Learns a decision and writes it, with its history, as JSON. */
export async function learnMasksJob(job: LearnMasksJob, context: JobContext): Promise<void> {
  const { model, state, name } = await loadModel(job.model);
  const depth = model.blocks.length;
  const groups = parseScheme(job.groups);
  parseGroups(groups, depth); // a scheme that does not fit is an error before anything is computed
  const latents = await embeddedLatents(job.images, context);
  const { decision, history, losses } = await learnMasks(model, latents, { groups, steps: job.steps, batchSize: job.batch, lr: job.lr, gateLr: job.gateLr, update: job.update, seed: job.seed, ...context });
  const kept = decision.groups.map((g) => g.kept.length);
  const sizes = typeof groups === 'string' ? decision.groups.map(() => Number(groups.split(':')[1])) : groups.map(([, size]) => size);
  const stored: StoredDecision & Record<string, unknown> = {
    kept: decision.kept,
    depth,
    confidence: decision.groups.map((g) => g.confidence),
    groups: kept.map((n, i) => [n, sizes[i]!]),
    teacher: { name, sha256: await stateDictHash(state) },
    seed: job.seed,
    command: context.command,
    history: history.rows,
    losses,
  };
  await write(job.out, JSON.stringify(stored));
  console.log(`keep ${decision.kept.join(',')} (confidence ${decision.groups.map((g) => g.confidence.toFixed(2)).join(' ')})`);
}

/** Options of `tinyfusion prune`. */
export interface PruneJob {
  model?: string;
  masks?: string;
  keep?: number[];
  method?: 'block-influence' | 'block-error' | 'sensitivity' | 'oracle' | 'random' | 'first' | 'last' | 'uniform';
  /** A file to cut as it is, in place of a model. */
  ckpt?: string;
  stack?: string;
  weights?: string;
  count?: number;
  seed: number;
  out: string;
}

/** Cuts a model and writes it with its record. */
export async function pruneJob(job: PruneJob, context: JobContext): Promise<void> {
  if (job.ckpt !== undefined) return pruneFileJob({ ...job, ckpt: job.ckpt }, context);
  const given = (['masks', 'keep', 'method'] as const).filter((name) => job[name] !== undefined).map((name) => `--${name}`);
  if (given.length !== 1) throw new ArgumentError('one of --masks, --keep and --method', given, 'exactly one');
  const { model, state, name, record: from } = await loadModel(job.model);
  const depth = model.blocks.length;
  const teacher = { name, sha256: await stateDictHash(state) };
  const count = job.count ?? Math.floor(depth / 2);
  let choice: Pick<PruneRecord, 'kept' | 'criterion' | 'groups' | 'confidence'>;
  if (job.masks !== undefined) {
    const { kept, groups, confidence, teacher: own } = await readDecision(job.masks, depth);
    if (own.sha256 !== teacher.sha256) throw new CheckpointError(`${job.masks} was learned for ${own.name} (${own.sha256.slice(0, 12)}…), this model is ${name} (${teacher.sha256.slice(0, 12)}…); learn masks for this model`);
    choice = { kept, criterion: 'learned', groups, confidence };
  } else if (job.keep !== undefined) choice = { kept: byIndex(depth, job.keep), criterion: 'index' };
  else choice = await choose(job.method!, model, { count, seed: job.seed, ...context });
  const student = await shallowCopy(model, choice.kept);
  const record: PruneRecord = { version: 1, stack: 'blocks', depth, teacher, seed: job.seed, command: context.command, ...choice, ...(from === undefined ? {} : { from }) };
  await write(job.out, await saveModel(student, { metadata: [pruneMetadata(record)] }));
  console.log(`kept ${choice.kept.join(',')} of ${depth} layers: ${(student.parameterCount() / 1e6).toFixed(2)} M of ${(model.parameterCount() / 1e6).toFixed(2)} M parameters`);
}

/** A choice by one of the criteria to compare with. */
async function choose(method: NonNullable<PruneJob['method']>, model: DiT, options: { count: number; seed: number } & LongTaskOptions): Promise<{ kept: number[]; criterion: string }> {
  const [depth, { count, seed }] = [model.blocks.length, options];
  const measured = async (criterion: string, by: typeof chooseByBlockInfluence | typeof chooseByBlockError | typeof chooseBySensitivity) => ({ kept: (await by(model, await embeddedLatents(1000, options), options)).kept, criterion });
  switch (method) {
    case 'block-influence':
      return measured('block influence', chooseByBlockInfluence);
    case 'block-error':
      return measured('block error', chooseByBlockError);
    case 'sensitivity':
      return measured('sensitivity', chooseBySensitivity);
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

async function readDecision(path: string, depth: number): Promise<StoredDecision> {
  let value: Partial<StoredDecision>;
  try {
    value = JSON.parse(await readFile(path, 'utf8')) as Partial<StoredDecision>;
  } catch (cause) {
    throw new DataError(`${path} cannot be read as a decision of learn-masks: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (!Array.isArray(value.kept) || value.depth !== depth || value.teacher === undefined || value.groups === undefined || value.confidence === undefined) {
    throw new DataError(`${path} is no decision for a model of ${depth} layers; it was made for ${String(value.depth ?? 'something else')}`);
  }
  byIndex(depth, value.kept);
  return value as StoredDecision;
}

/** Options of `tinyfusion distill`. */
export interface DistillJob {
  student: string;
  teacher?: string;
  steps: number;
  batch: number;
  lr: number;
  sigmas: number;
  beta: number;
  images: number;
  seed: number;
  out: string;
}

/** Recovers a shallow model and writes it with its record and curve. */
export async function distillJob(job: DistillJob, context: JobContext): Promise<void> {
  const [student, teacher] = [await loadModel(job.student), await loadModel(job.teacher)];
  const hash = await stateDictHash(teacher.state);
  if (student.record !== undefined && student.record.teacher.sha256 !== hash) {
    console.error(`note: ${student.name} was cut from ${student.record.teacher.name} (${student.record.teacher.sha256.slice(0, 12)}…), its teacher here is ${teacher.name} (${hash.slice(0, 12)}…)`);
  }
  if (student.model.blocks.length > teacher.model.blocks.length) throw new ArgumentError('distill: student', `${student.model.blocks.length} layers`, `at most the teacher's ${teacher.model.blocks.length}`);
  const latents = await embeddedLatents(job.images, context);
  const curves = await distill(student.model, teacher.model, latents, { steps: job.steps, batchSize: job.batch, lr: job.lr, sigmas: job.sigmas === 0 ? Infinity : job.sigmas, beta: job.beta, seed: job.seed, ...context });
  const metadata: [string, string][] = student.record === undefined ? [] : [pruneMetadata(student.record)];
  metadata.push(['tinyfusion.recovery', JSON.stringify({ command: context.command, seed: job.seed, steps: job.steps, teacher: { name: teacher.name, sha256: hash } })]);
  await write(job.out, await saveModel(student.model, { metadata }));
  await write(`${job.out}.curve.json`, JSON.stringify(curves));
}

/** Options of `tinyfusion sample`. */
export interface SampleJob {
  /** A checkpoint of ours, or with `ckpt` the name of a published model. */
  model?: string;
  ckpt?: string;
  weights?: string;
  vae?: string;
  rng: 'philox' | 'torch-cuda' | 'torch-cpu';
  classes?: number[];
  steps?: number;
  solver?: Solver;
  cfg?: number;
  seed: number;
  out: string;
}

/** Draws images and writes them as one picture. */
export async function sampleJob(job: SampleJob, context: JobContext): Promise<void> {
  if (job.ckpt !== undefined) return sampleReferenceJob(job, job.ckpt, context);
  if (job.model !== undefined && presets.includes(job.model)) throw new ArgumentError('--ckpt', undefined, `the file of ${job.model}'s weights (.pt, .safetensors or .npz)`);
  if (job.solver !== undefined && !isOwnSolver(job.solver)) throw new ArgumentError('--solver', job.solver, 'dpm, ddim or ddpm for this model');
  const { model } = await loadModel(job.model);
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const labels = job.classes ?? Array.from({ length: 2 * model.config.numClasses }, (_, i) => i % model.config.numClasses);
  const batches: tf.Tensor4D[] = [];
  for await (const images of sampleImages(model, vae, labels, { steps: job.steps ?? 20, solver: job.solver ?? 'dpm', guidance: job.cfg ?? 2.5, seed: job.seed, ...context })) batches.push(images);
  const all = tf.tidy(() => cropCentre(tf.concat(batches, 0), 28));
  await write(job.out, await gridPng(all, { columns: Math.min(10, labels.length) }));
  tf.dispose([all, ...batches]);
  console.log(`classes: ${[...new Set(labels)].map((l) => `${l} ${fashionMnistClassNames[l] ?? ''}`.trim()).join(', ')}`);
}

const isOwnSolver = (solver: Solver): solver is 'dpm' | 'ddim' | 'ddpm' => ['dpm', 'ddim', 'ddpm'].includes(solver);

/** The classes that DiT's `sample.py` shows. */
const shownClasses = [207, 360, 387, 974, 88, 979, 417, 279];

const streams = { philox: createRng, 'torch-cuda': torchCuda, 'torch-cpu': torchCpu };

/** Draws with the weights of a reference, as its `sample.py` does. */
async function sampleReferenceJob(job: SampleJob, path: string, context: JobContext): Promise<void> {
  if (job.model === undefined) throw new ArgumentError('--model', undefined, `the name of the checkpoint's model, one of ${presets.join(', ')}`);
  if (job.vae === undefined) throw new ArgumentError('--vae', undefined, 'the file of the autoencoder that turns latents into images: for DiT and SiT that of stabilityai/sd-vae-ft-ema, for MAR kl16.ckpt');
  await using checkpoint = await openCheckpoint(path);
  const model = await loadReference(job.model, weightsOf(checkpoint, job.weights));
  await using autoencoder = await openCheckpoint(job.vae);
  const vae = await loadReferenceAutoencoder(weightsOf(autoencoder));
  if (vae.config.latentChannels !== model.config.inChannels) throw new ArgumentError('--vae', job.vae, `an autoencoder of ${model.config.inChannels} latent channels; this one has ${vae.config.latentChannels}`);
  const labels = job.classes ?? shownClasses.filter((label) => label < model.config.numClasses);
  const options = { ...(job.solver === undefined ? {} : { solver: job.solver }), ...(job.steps === undefined ? {} : { steps: job.steps }), ...(job.cfg === undefined ? {} : { guidance: job.cfg }) };
  const latents = await sampleReference(model, labels, { ...options, rng: streams[job.rng](job.seed), ...context });
  const images: tf.Tensor4D[] = [];
  for (let i = 0; i < labels.length; i++) {
    throwIfCancelled(context.signal, 'decode');
    // one at a time: the autoencoder needs more memory than the transformer
    images.push(tf.tidy(() => vae.fromLatents(tf.slice(latents, [i, 0, 0, 0], [1, -1, -1, -1]))));
    context.onProgress?.({ task: 'decode', step: i + 1, total: labels.length, unit: 'image' });
    await breathe();
  }
  const all = tf.concat(images, 0);
  await write(job.out, await gridPng(all, { columns: 4, scale: 1, gap: 2 }));
  tf.dispose([latents, all, ...images]);
  for (const own of [model, vae]) own.dispose();
}

/** Options of `tinyfusion evaluate`. */
export interface EvaluateJob {
  inception?: string;
  model?: string;
  samples: number;
  steps: number;
  cfg: number;
  seed: number;
  json?: string;
}

/** Measures samples against a reference as ADM's evaluator does, on the features of FID's Inception. */
export async function evaluateImagesJob(reference: string, samples: string, { inception, json }: Pick<EvaluateJob, 'inception' | 'json'>, context: JobContext): Promise<void> {
  if (inception === undefined) throw new ArgumentError('--inception', undefined, "the weights of FID's Inception, pt_inception-2015-12-05 (.pth or .safetensors), as torch-fidelity and pytorch-fid publish them");
  await using weights = await openCheckpoint(inception);
  await using real = await openCheckpoint(reference);
  await using generated = await openCheckpoint(samples);
  const sets = [await imageSet(real, basename(reference)), await imageSet(generated, basename(samples))] as const;
  const net = await Inception.load(weightsOf(weights));
  const { warnings, ...numbers } = await evaluateImages(net, ...sets, context);
  net.dispose();
  console.log(JSON.stringify(numbers, null, 2));
  for (const warning of warnings) console.error(`note: ${warning}`);
  if (json !== undefined) await write(json, JSON.stringify({ ...numbers, warnings, command: context.command }, null, 2));
}

/** Measures a model against the embedded test images. */
export async function evaluateJob(job: EvaluateJob, context: JobContext): Promise<void> {
  const { model, name } = await loadModel(job.model);
  const [vae, network] = [await loadAutoencoderKL(await loadAutoencoder()), await embeddedNetwork()];
  const real = await referenceFeatures(network, await loadFashionMnist('test'), 10_000, context);
  const numbers = await evaluateModel(model, vae, network, real, { count: job.samples, steps: job.steps, guidance: job.cfg, seed: job.seed, ...context });
  const { warnings, ...shown } = numbers;
  console.log(JSON.stringify({ model: name, ...shown }, null, 2));
  for (const warning of warnings) console.error(`note: ${warning}`);
  if (job.json !== undefined) await write(job.json, JSON.stringify({ model: name, ...numbers, seed: job.seed, steps: job.steps, cfg: job.cfg, command: context.command }, null, 2));
}

/** Options of `tinyfusion train`. */
export interface TrainJob {
  data: string;
  out: string;
  steps: number;
  fast?: boolean;
}

/** Trains the embedded models from random weights: the autoencoder, the feature network, the teacher. */
export async function trainJob({ data: folder, out, steps, fast = false }: TrainJob, context: JobContext): Promise<void> {
  const options = { classNames: fashionMnistClassNames };
  const data: ImageDataset = await loadIdxFolder(folder, options);
  const test = await loadIdxFolder(folder, { ...options, split: 'test' });
  const short = (full: number): number => (fast ? 4 : full);
  const save = (name: string, model: DiT | AutoencoderKL | Awaited<ReturnType<typeof trainClassifier>>, type: string, recipe: string): Promise<Uint8Array> =>
    toSafetensors(model, { type, config: model.config, dtype: 'F16', metadata: [['tinyfusion.training', JSON.stringify({ data: basename(folder), recipe, command: context.command })]] }).then(async (bytes) => {
      await write(join(out, `${name}.safetensors`), bytes);
      return bytes;
    });

  // what an earlier run finished is taken as it is
  const earlier = async (name: string): Promise<StateDict | undefined> => {
    const path = join(out, `${name}.safetensors`);
    const there = await access(path).then(
      () => true,
      () => false,
    );
    return there ? loadSafetensors(path) : undefined;
  };
  const storedAutoencoder = await earlier('autoencoder');
  const vae = storedAutoencoder === undefined ? await trainAutoencoder(data, { steps: short(1000), seed: 1, ...context }) : await loadAutoencoderKL(storedAutoencoder);
  if (storedAutoencoder === undefined) {
    await refineDecoder(vae, data, { steps: short(1500), seed: 3, ...context });
    await save('autoencoder', vae, 'AutoencoderKL', 'trainAutoencoder, 1000 steps of 32, seed 1; refineDecoder, 1500 steps of 32, seed 3');
  }
  if ((await earlier('features')) === undefined) {
    const classifier = await trainClassifier(data, { steps: short(2500), seed: 2, ...context });
    const accuracy = await classifierAccuracy(classifier, test, context);
    console.log(`feature network: accuracy ${(100 * accuracy).toFixed(2)} % on the test images`);
    await save('features', classifier, 'ConvClassifier', `trainClassifier, 2500 steps of 128, seed 2; test accuracy ${accuracy.toFixed(4)}`);
  }
  const resume = await earlier('teacher.run');

  const latents = await encodeDataset(fast ? firstImages(data, 500) : data, vae, context);
  const curve: [number, number][] = [];
  const dit = await train(latents, {
    steps: short(steps),
    seed: 0,
    signal: context.signal,
    onProgress: (event) => {
      curve.push([event.step, event.values?.['mse'] ?? Number.NaN]);
      context.onProgress?.(event);
    },
    ...(resume === undefined ? {} : { resume }),
    checkpoint: {
      every: 1000,
      save: async (model, _step, run) => {
        await save('teacher', model, 'DiT', `train, ${steps} steps of 64, seed 0`);
        await write(join(out, 'teacher.run.safetensors'), run);
      },
    },
  });
  await save('teacher', dit, 'DiT', `train, ${steps} steps of 64, seed 0`);
  await write(join(out, 'teacher.curve.json'), JSON.stringify(curve));
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
