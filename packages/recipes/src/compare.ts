import { CheckpointError, type LongTaskOptions, createRng } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { classifierFeatures, loadConvClassifier } from '@tinyfusion/eval';
import { loadAutoencoder, loadFashionMnist, loadFeatureNetwork, loadTeacher } from '@tinyfusion/fashion-mnist';
import { type DiT, loadAutoencoderKL, loadDiT } from '@tinyfusion/models';
import { randomNormal } from '@tinyfusion/nn';
import { atRandom, maskHook, oracle } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import { writeFileAtomic } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { mkdir, readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { distill } from './distill.js';
import { evaluateModel, referenceFeatures } from './evaluate.js';
import { type LatentDataset, encodeDataset } from './latents.js';
import { learnMasks } from './learn-masks.js';
import { chooseByBlockInfluence, shallowCopy } from './prune.js';

/**
 * Ways to choose half of the teacher's layers side by side, at equal recovery, over several seeds: the paper's tables 1
 * and 3 at small scale. The claim in question: the choice that hurts least right after the cut is not the one that
 * recovers best.
 *
 * Command: `tinyfusion compare`.
 * Cost: about 40 minutes on one core with the defaults. Goes on where it was stopped.
 */
export interface CompareJob {
  /** Seeds of masks, recovery and random choices. */
  seeds: number[];
  maskSteps: number;
  recoverySteps: number;
  images: number;
  samples: number;
  samplingSteps: number;
  out: string;
}

/** One choice, recovered and measured. */
export interface ComparedChoice {
  method: string;
  seed: number;
  kept: number[];
  /** Diffusion loss right after the cut. */
  calibrationLoss: number;
  fid: number;
  inceptionScore: number;
  precision: number;
  recall: number;
  agreement: number;
}

interface Stored {
  settings: string;
  command: string;
  machine: string;
  date: string;
  teacher: { sha256: string } & Omit<ComparedChoice, 'method' | 'seed' | 'kept'>;
  rows: ComparedChoice[];
}

const recoveryLr = 1e-3;

/** Fills `compare.json` row by row, and writes `compare.md` from it. */
export async function compareJob({ seeds, maskSteps, recoverySteps, images, samples, samplingSteps, out }: CompareJob, { command, ...context }: LongTaskOptions & { command: string }): Promise<void> {
  await mkdir(out, { recursive: true });
  const state = await loadTeacher();
  const teacher = await loadDiT(state);
  const sha256 = await stateDictHash(state);
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const network = classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier');
  const latents = await encodeDataset(firstImages(await loadFashionMnist('train'), images), vae, context);
  const real = await referenceFeatures(network, await loadFashionMnist('test'), 10_000, context);
  const depth = teacher.blocks.length;
  const count = depth / 2;
  const settings = JSON.stringify({ maskSteps, recoverySteps, images, samples, samplingSteps, recoveryLr, teacher: sha256 });
  const measure = async (model: DiT, seed: number, task: string) => {
    const e = await evaluateModel(model, vae, network, real, { count: samples, steps: samplingSteps, guidance: 1.5, seed, ...named(context, task) });
    return { fid: e.fid, inceptionScore: e.inceptionScore, precision: e.precision, recall: e.recall, agreement: e.agreement };
  };

  const path = join(out, 'compare.json');
  let stored = await readStored(path, settings);
  if (stored === undefined) {
    const calibrationLoss = await lossUnder(teacher, latents, Array.from({ length: depth }, (_, i) => i));
    stored = { settings, command, machine: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.versions.node}`, date: new Date().toISOString().slice(0, 10), teacher: { sha256, calibrationLoss, ...(await measure(teacher, 0, 'measure teacher')) }, rows: [] };
    await writeFileAtomic(path, JSON.stringify(stored, null, 2));
  }
  for (const seed of seeds) {
    for (const method of ['learned', 'ShortGPT', 'oracle', 'random']) {
      if (stored.rows.some((r) => r.method === method && r.seed === seed)) continue;
      const kept =
        method === 'learned'
          ? (await learnMasks(teacher, latents, { groups: '1:2', steps: maskSteps, lr: 1e-3, gateLr: 1e-3, seed, ...named(context, `learn masks, seed ${seed}`) })).decision.kept
          : method === 'ShortGPT'
            ? (await chooseByBlockInfluence(teacher, latents, { count, seed, ...context })).kept
            : method === 'oracle'
              ? oracle(depth, count)
              : atRandom(depth, count, createRng(seed).split('random choice'));
      const student = await shallowCopy(teacher, kept);
      const calibrationLoss = await lossUnder(teacher, latents, kept);
      await distill(student, teacher, latents, { steps: recoverySteps, lr: recoveryLr, seed, ...named(context, `recover ${method}, seed ${seed}`) });
      stored.rows.push({ method, seed, kept, calibrationLoss, ...(await measure(student, seed, `measure ${method}, seed ${seed}`)) });
      student.dispose();
      await writeFileAtomic(path, JSON.stringify(stored, null, 2));
      await writeFileAtomic(join(out, 'compare.md'), table(stored, { maskSteps, recoverySteps, samples, samplingSteps }));
    }
  }
  console.log(table(stored, { maskSteps, recoverySteps, samples, samplingSteps }));
}

/** Diffusion loss of the model with only some blocks, over 512 fixed draws. */
async function lossUnder(model: DiT, data: LatentDataset, kept: readonly number[]): Promise<number> {
  const rng = createRng(0).split('calibration');
  const diffusion = new GaussianDiffusion();
  const batches = data.batches(64, rng.split('data'));
  let total = 0;
  for (let i = 0; i < 8; i++) {
    const mean = tf.tidy(() => {
      const { latents, labels } = batches.next();
      const t = rng.integers(0, diffusion.steps, 64);
      return tf.mean(diffusion.trainingLosses((x, s) => model.forward(x as tf.Tensor4D, s, labels, { hook: maskHook(kept) }), latents, t, randomNormal<tf.Rank.R4>(rng, latents.shape)).loss);
    });
    total += (await mean.data())[0]! / 8;
    mean.dispose();
  }
  return total;
}

function named({ signal, onProgress }: LongTaskOptions, task: string): LongTaskOptions {
  return { signal, onProgress: (event) => onProgress?.({ ...event, task }) };
}

async function readStored(path: string, settings: string): Promise<Stored | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
  const stored = JSON.parse(text) as Stored;
  if (stored.settings !== settings) throw new CheckpointError(`${path} holds a comparison with other settings or another teacher; move it away or use another --out`);
  return stored;
}

/** Means and standard deviations over seeds, and every single row. */
function table({ rows, teacher, command, machine, date }: Stored, sizes: Record<string, number>): string {
  const metrics = ['calibrationLoss', 'fid', 'inceptionScore', 'precision', 'recall', 'agreement'] as const;
  const digits = { calibrationLoss: 3, fid: 2, inceptionScore: 2, precision: 3, recall: 3, agreement: 3 };
  const head = ['choice', 'seeds', 'loss after the cut', 'FID ↓', 'IS ↑', 'precision ↑', 'recall ↑', 'class agreement ↑'];
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  const methods = [...new Set(rows.map((r) => r.method))];
  const summary = methods.map((method) => {
    const own = rows.filter((r) => r.method === method);
    return line([
      method,
      own.length,
      ...metrics.map((m) => {
        const values = own.map((r) => r[m]);
        const mean = values.reduce((a, b) => a + b, 0) / values.length;
        const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / Math.max(1, values.length - 1));
        return `${mean.toFixed(digits[m])}${values.length > 1 ? ` ± ${deviation.toFixed(digits[m])}` : ''}`;
      }),
    ]);
  });
  return [
    '# Choices of layers at equal recovery',
    '',
    `Half of the embedded teacher's 12 layers are kept. Learned masks: ${sizes['maskSteps']} steps, 1:2 groups, LoRA. Every choice is recovered by the same ${sizes['recoverySteps']} steps of masked RepKD and measured on ${sizes['samples']} samples (DPM-Solver++, ${sizes['samplingSteps']} steps, guidance 1.5) against 10,000 test images, with the features of the embedded classifier: numbers compare with each other, not with published ones. Mean ± standard deviation over seeds.`,
    '',
    line(head),
    line(head.map(() => '---')),
    line(['teacher, 12 layers', 1, ...metrics.map((m) => teacher[m].toFixed(digits[m]))]),
    ...summary,
    '',
    '## Every run',
    '',
    line(['choice', 'seed', 'kept', ...head.slice(2)]),
    line(['---', '---', '---', ...head.slice(2).map(() => '---')]),
    ...rows.map((r) => line([r.method, r.seed, r.kept.join(' '), ...metrics.map((m) => r[m].toFixed(digits[m]))])),
    '',
    `Command: \`${command}\`. ${machine}, ${date}.`,
    '',
  ].join('\n');
}
