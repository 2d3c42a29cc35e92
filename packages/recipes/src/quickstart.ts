import { type LongTaskOptions, TinyFusionError } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { type ExtractedFeatures, type FeatureNetwork, classifierFeatures, loadConvClassifier } from '@tinyfusion/eval';
import { loadAutoencoder, loadFashionMnist, loadFeatureNetwork, loadTeacher } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, type DiT, loadAutoencoderKL, loadDiT, saveModel } from '@tinyfusion/models';
import { type PruneRecord, oracle, pruneMetadata } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import { loadSafetensors, makeFolder, writeFileAtomic } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { access, readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { type RecoveryCurves, distill } from './distill.js';
import { type ModelEvaluation, evaluateModel, referenceFeatures } from './evaluate.js';
import { cropCentre } from './images.js';
import { type LatentDataset, encodeDataset } from './latents.js';
import { learnMasks } from './learn-masks.js';
import { gridPng } from './png.js';
import { chooseByBlockInfluence } from './prune.js';
import { shallowCopy } from './shallow-copy.js';
import { type Report, type ReportRow, renderReport } from './report/html.js';
import type { DecisionPoint } from './report/svg.js';
import { sampleImages } from './sample.js';

/**
 * The whole path on the embedded data: learn which 6 of the teacher's 12 layers to keep, remove the others, recover by
 * masked RepKD, sample, measure, report; beside two other choices recovered by the same number of steps.
 *
 * Command: `npm run quickstart` (`-- --fast` for the short form).
 * Cost: about 4 minutes on one core, 1 GB.
 */

/** Sizes of a run. */
export interface QuickstartSizes {
  /** Training images that are encoded. */
  images: number;
  maskSteps: number;
  recoverySteps: number;
  batchSize: number;
  /** Samples a model is measured by, and real test images they are compared with. */
  samples: number;
  references: number;
  samplingSteps: number;
}

/** The quickstart's sizes. */
export const quickstartSizes: QuickstartSizes = { images: 5000, maskSteps: 100, recoverySteps: 80, batchSize: 64, samples: 300, references: 2000, samplingSteps: 10 };

/** Sizes of the short form. */
export const fastSizes: QuickstartSizes = { images: 1000, maskSteps: 12, recoverySteps: 10, batchSize: 32, samples: 60, references: 500, samplingSteps: 5 };

export interface QuickstartOptions extends LongTaskOptions {
  /** Folder for everything that is made. */
  out: string;
  sizes?: QuickstartSizes;
  /** Default 0. */
  seed?: number;
  /** What the report says it was made by. */
  command: string;
  /** What runs it, for the report: `'wasm'`. */
  backend: string;
}

/** The files that a run leaves. */
export interface QuickstartResult {
  report: string;
  json: string;
  rows: ReportRow[];
}

// gates move at the paper's rate: faster, they decide before the adapters have made up for anything
const lr = { masks: 1e-3, gates: 1e-3, recovery: 1e-3 };
const guidance = 1.5;
const shownGuidance = 2.5;

type Choice = { name: string; criterion: string; kept: readonly number[]; groups?: [number, number][]; confidence?: number[] };

/** What is remembered between runs of the same settings. */
interface Stored {
  settings: string;
  /** That earlier runs took. */
  seconds?: number;
  masks?: { kept: number[]; confidence: number[]; decisions: DecisionPoint[]; losses: [number, number][] };
  curves: Record<string, RecoveryCurves>;
  evaluations: Record<string, ModelEvaluation>;
}

/** The same in a run, and when that began. */
type Memory = Stored & { started: number };

/** Runs what an earlier run with the same settings has not finished, and writes the report. */
export async function quickstart({ out, sizes = quickstartSizes, seed = 0, command, backend, signal, onProgress }: QuickstartOptions): Promise<QuickstartResult> {
  const started = performance.now();
  await makeFolder(out);
  const data = await loadFashionMnist('train');
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const network = classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier of @tinyfusion/fashion-mnist');
  const teacherState = await loadTeacher();
  const teacher = await loadDiT(teacherState);
  const teacherHash = await stateDictHash(teacherState);
  const memory = await recall(out, JSON.stringify({ sizes, seed, lr, guidance, teacherHash, backend }), started);
  const task = (name: string): LongTaskOptions => ({ signal, onProgress: (event) => onProgress?.({ ...event, task: name }) });

  const latents = await encodeDataset(firstImages(data, sizes.images), vae, task('encode images'));

  if (memory.masks === undefined) {
    const { decision, history, losses } = await learnMasks(teacher, latents, { groups: '1:2', steps: sizes.maskSteps, batchSize: sizes.batchSize, lr: lr.masks, gateLr: lr.gates, seed, ...task('learn masks') });
    memory.masks = { kept: decision.kept, confidence: decision.groups.map((g) => g.confidence), decisions: history.rows, losses };
    await remember(out, memory);
  }
  const half = teacher.blocks.length / 2;
  const choices: Choice[] = [
    { name: 'TinyFusion', criterion: 'learned', kept: memory.masks.kept, groups: Array.from({ length: half }, () => [1, 2]), confidence: memory.masks.confidence },
    { name: 'ShortGPT', criterion: 'block influence', kept: (await chooseByBlockInfluence(teacher, latents, { count: half, seed, ...task('block influence') })).kept },
    { name: 'Oracle', criterion: 'oracle', kept: oracle(teacher.blocks.length, half) },
  ];
  const students = new Map<string, DiT>();
  for (const choice of choices) students.set(choice.name, await recovered(choice, { teacher, teacherHash, latents, memory, out, sizes, seed, command, task: task(`recover ${choice.name}`) }));

  const test = await loadFashionMnist('test');
  const real = await referenceFeatures(network, test, sizes.references, task('features of real images'));
  const rows: ReportRow[] = [];
  for (const [name, model, kept] of [['Teacher', teacher, undefined], ...choices.map((c) => [c.name, students.get(c.name)!, c.kept] as const)] as const) {
    if (memory.evaluations[name] === undefined) {
      memory.evaluations[name] = await measured(model, vae, network, real, { sizes, seed, task: task(`measure ${name}`) });
      await remember(out, memory);
    }
    rows.push(toRow(name, model, memory.evaluations[name], kept));
  }

  const unrecovered = await shallowCopy(teacher, memory.masks.kept);
  const strips = [];
  for (const [name, file, model] of [
    [`Teacher, ${teacher.blocks.length} layers`, 'teacher', teacher],
    [`TinyFusion, ${half} layers, before recovery`, 'pruned', unrecovered],
    [`TinyFusion, ${half} layers, recovered in ${sizes.recoverySteps} steps`, 'recovered', students.get('TinyFusion')!],
  ] as const) {
    const png = await strip(model, vae, { seed, steps: Math.max(sizes.samplingSteps, 20), ...task(`sample ${file}`) });
    await writeFileAtomic(join(out, `samples-${file}.png`), png);
    strips.push({ name, png });
  }

  const report: Report = {
    title: 'A shallow diffusion transformer, learned',
    summary: `A ${teacher.blocks.length}-layer DiT trained on Fashion-MNIST was cut to ${half} layers. Which layers stay was learned in ${sizes.maskSteps} steps; then the shallow model was recovered by distillation with masked activations in ${sizes.recoverySteps} steps. ShortGPT's choice and BK-SDM's are recovered alike.`,
    command,
    seed,
    backend,
    machine: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.versions.node}`,
    date: new Date().toISOString().slice(0, 10),
    settings: {
      groups: '1:2',
      'mask learning': `${sizes.maskSteps} steps of ${sizes.batchSize}, learning rates ${lr.masks} (LoRA, rank 8) and ${lr.gates} (gates), τ 4 → 0.1, scaling 100`,
      recovery: `${sizes.recoverySteps} steps of ${sizes.batchSize}, learning rate ${lr.recovery} → ${lr.recovery / 2}, α 0.9, β 0.01 → 0, 2σ masks`,
      sampling: `DPM-Solver++, ${sizes.samplingSteps} steps, guidance ${guidance} (${shownGuidance} for the pictures)`,
      'measured on': `${sizes.samples} samples against ${sizes.references} test images`,
      teacher: teacherHash,
      seconds: Math.round(secondsOf(memory)),
    },
    depth: teacher.blocks.length,
    rows,
    strips,
    decisions: memory.masks.decisions,
    maskLoss: memory.masks.losses,
    recovery: choices.map(({ name }) => ({ name, points: smooth(memory.curves[name]!.mse) })),
    notes: [
      `Numbers are measured with a small classifier's features on ${sizes.samples} samples: compare them with each other, not with published ones.`,
      'Images per second include classifier-free guidance and the autoencoder, and were measured when each model was.',
      'One seed and few steps: which choice comes out ahead here is an anecdote; docs/results has several seeds and more steps.',
    ],
  };
  const [html, json] = [join(out, 'report.html'), join(out, 'report.json')];
  await writeFileAtomic(html, renderReport(report));
  await writeFileAtomic(json, JSON.stringify({ ...report, strips: strips.map(({ name }) => name) }, null, 2));
  for (const model of [teacher, vae, unrecovered, ...students.values()]) model.dispose();
  return { report: html, json, rows };
}

interface RecoverContext {
  teacher: DiT;
  teacherHash: string;
  latents: LatentDataset;
  memory: Memory;
  out: string;
  sizes: QuickstartSizes;
  seed: number;
  command: string;
  task: LongTaskOptions;
}

/** The recovered student of a choice: from its file where an earlier run made it. */
async function recovered({ name, criterion, kept, groups, confidence }: Choice, { teacher, teacherHash, latents, memory, out, sizes, seed, command, task }: RecoverContext): Promise<DiT> {
  const path = join(out, `student-${criterion.replace(' ', '-')}.safetensors`);
  if (memory.curves[name] !== undefined && (await exists(path))) return loadDiT(await loadSafetensors(path));
  const student = await shallowCopy(teacher, kept);
  const curves = await distill(student, teacher, latents, { steps: sizes.recoverySteps, batchSize: sizes.batchSize, lr: lr.recovery, seed, ...task });
  const record: PruneRecord = {
    version: 1,
    stack: 'blocks',
    kept: [...kept],
    depth: teacher.blocks.length,
    criterion,
    teacher: { name: 'fashion-mnist teacher', sha256: teacherHash },
    ...(groups === undefined ? {} : { groups }),
    ...(confidence === undefined ? {} : { confidence }),
    seed,
    command,
  };
  await writeFileAtomic(path, await saveModel(student, { dtype: 'F16', metadata: [pruneMetadata(record)] }));
  student.dispose();
  memory.curves[name] = curves;
  await remember(out, memory);
  // what is measured is what is in the file, whether the run was stopped here or not
  return loadDiT(await loadSafetensors(path));
}

function measured(model: DiT, vae: AutoencoderKL, network: FeatureNetwork, real: ExtractedFeatures, { sizes, seed, task }: { sizes: QuickstartSizes; seed: number; task: LongTaskOptions }): Promise<ModelEvaluation> {
  return evaluateModel(model, vae, network, real, { count: sizes.samples, steps: sizes.samplingSteps, guidance, seed, ...task });
}

/** Two rows of samples, classes in order, from the noise that the seed names. */
async function strip(model: DiT, vae: AutoencoderKL, { seed, steps, ...task }: LongTaskOptions & { seed: number; steps: number }): Promise<Uint8Array> {
  const labels = Array.from({ length: 20 }, (_, i) => i % 10);
  for await (const images of sampleImages(model, vae, labels, { seed, steps, guidance: shownGuidance, ...task })) {
    const inner = tf.tidy(() => cropCentre(images, 28));
    const png = await gridPng(inner);
    tf.dispose([images, inner]);
    return png;
  }
  throw new TinyFusionError('INTERNAL', 'no sample was drawn');
}

function toRow(name: string, model: DiT, e: ModelEvaluation, kept: readonly number[] | undefined): ReportRow {
  return {
    name,
    layers: model.blocks.length,
    parameters: model.parameterCount(),
    imagesPerSecond: e.imagesPerSecond,
    fid: e.fid,
    inceptionScore: e.inceptionScore,
    precision: e.precision,
    recall: e.recall,
    agreement: e.agreement,
    ...(kept === undefined ? {} : { kept }),
  };
}

/** Means of neighbouring points, about sixty of them: single steps jump with their timesteps. */
function smooth(points: readonly (readonly [number, number])[]): [number, number][] {
  const width = Math.max(1, Math.floor(points.length / 60));
  const out: [number, number][] = [];
  for (let at = 0; at + width <= points.length; at += width) {
    const part = points.slice(at, at + width);
    out.push([part.at(-1)![0], part.reduce((sum, [, y]) => sum + y, 0) / width]);
  }
  return out;
}

async function recall(out: string, settings: string, started: number): Promise<Memory> {
  const fresh: Stored = { settings, curves: {}, evaluations: {} };
  try {
    const stored = JSON.parse(await readFile(join(out, 'progress.json'), 'utf8')) as Stored;
    return { ...(stored.settings === settings ? stored : fresh), started };
  } catch {
    return { ...fresh, started }; // the first run, or one that was made by something else
  }
}

/** Seconds of this run and of those before it. */
const secondsOf = ({ seconds = 0, started }: Memory): number => seconds + (performance.now() - started) / 1000;

function remember(out: string, memory: Memory): Promise<void> {
  const { started: _, ...kept } = memory;
  return writeFileAtomic(join(out, 'progress.json'), JSON.stringify({ ...kept, seconds: secondsOf(memory) }));
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
