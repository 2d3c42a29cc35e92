import { ArgumentError, type LongTaskOptions, createRng, throwIfCancelled } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { DiT, MAR, SiT } from '@tinyfusion/models';
import { randomNormal } from '@tinyfusion/nn';
import { BlockError, BlockInfluence, BlockSimilarity, chooseIntervals, leastRedundant, type FittedReplacement, type Interval, ReplacementFit, sensitivities, taylorImportance } from '@tinyfusion/pruning';
import * as tf from '@tensorflow/tfjs-core';
import { diffusionOf } from './diffusion-of.js';
import type { LatentBatch, LatentDataset } from './latents.js';
import { breathe } from './loop.js';
import { type Prunable, type TrainingDraw, objectiveOf } from './objective.js';
import { blocksOf, depthOf, overAllStacks } from './stacks.js';

export interface ShortGptOptions extends LongTaskOptions {
  /** Layers to keep. */
  count: number;
  /** Images looked at; fewer where the data have fewer. Default 128, as the reference. */
  images?: number;
  seed: number;
}

/** ShortGPT's choice: keeps the blocks that change their input most, over latents at random timesteps. */
export async function chooseByBlockInfluence(teacher: Prunable, data: LatentDataset, { count, images = 128, seed, signal, onProgress }: ShortGptOptions): Promise<{ kept: number[]; similarities: number[] }> {
  const batch = Math.min(16, images, data.labels.length);
  const rng = createRng(seed);
  const diffusion = new GaussianDiffusion();
  const batches = data.batches(batch, rng.split('data'));
  const draws = rng.split('noise');
  const influence = new BlockInfluence();
  const hook = overAllStacks(teacher, influence.hook);
  try {
    for (let seen = 0; seen < images; seen += batch) {
      throwIfCancelled(signal, 'block influence');
      tf.tidy(() => {
        const next = batches.next();
        if (!isPlainDiT(teacher)) return void objectiveOf(teacher).draw(teacher, next, draws).forward(teacher, { hook });
        const t = draws.integers(0, diffusion.steps, batch);
        teacher.forward(next.latents, tf.tensor1d(Float32Array.from(t)), next.labels, { hook });
      });
      influence.endBatch();
      onProgress?.({ task: 'block influence', step: Math.min(images, seen + batch), total: images, unit: 'image' });
      await breathe();
    }
    const similarities = await influence.similarities();
    return { kept: leastRedundant(similarities, count), similarities };
  } finally {
    influence.dispose();
  }
}

/** Flux-Lite's choice: keeps the blocks that move their input most, over noisy latents as in training. */
export async function chooseByBlockError(teacher: Prunable, data: LatentDataset, { count, images = 128, seed, signal, onProgress }: ShortGptOptions): Promise<{ kept: number[]; errors: number[] }> {
  const error = new BlockError();
  try {
    await overBatches(teacher, data, { images, seed }, (draw, seen) => {
      throwIfCancelled(signal, 'block error');
      tf.tidy(() => void draw().forward(teacher, { hook: overAllStacks(teacher, error.hook) }));
      error.endBatch();
      onProgress?.({ task: 'block error', step: seen, total: images, unit: 'image' });
    });
    const errors = await error.errors();
    return { kept: leastRedundant(errors.map((e) => -e), count, { keepLast: false }), errors };
  } finally {
    error.dispose();
  }
}

/** The sensitivity choice: keeps the blocks without which the training loss is highest, each left out alone. */
export async function chooseBySensitivity(teacher: Prunable, data: LatentDataset, { count, images = 128, seed, signal, onProgress }: ShortGptOptions): Promise<{ kept: number[]; losses: number[] }> {
  const losses = await sensitivities(
    depthOf(teacher),
    async (hook) => {
      let [sum, batches] = [0, 0];
      await overBatches(teacher, data, { images, seed }, async (draw) => {
        const loss = tf.tidy(() => {
          const drawn = draw();
          return tf.mean(drawn.terms(drawn.forward(teacher, { hook: overAllStacks(teacher, hook) })).loss) as tf.Scalar;
        });
        sum += (await loss.data())[0]!;
        batches += 1;
        loss.dispose();
      });
      return sum / batches;
    },
    { signal, onProgress },
  );
  return { kept: leastRedundant(losses.map((l) => -l), count, { keepLast: false }), losses };
}

/** Diff-Pruning's criterion for blocks: keeps those whose weights matter most to the loss, to first order, over timesteps. */
export async function chooseByTaylor(teacher: Prunable, data: LatentDataset, { count, images = 32, seed, signal, onProgress }: ShortGptOptions): Promise<{ kept: number[]; importance: number[] }> {
  const rng = createRng(seed);
  const batch = Math.min(images, data.labels.length);
  const diffusion = diffusionOf(teacher instanceof DiT ? teacher.config : { learnSigma: true });
  const { latents, labels } = data.batches(batch, rng.split('data')).next();
  const noise = randomNormal<tf.Rank.R4>(rng.split('noise'), latents.shape);
  const timesteps = 20; // evenly spread: every timestep of 1000 would tell little more
  try {
    const { importance } = await taylorImportance(
      blocksOf(teacher),
      (step) => {
        if (!isPlainDiT(teacher)) {
          const draw = objectiveOf(teacher).draw(teacher, { latents, labels }, rng.split(`step ${step}`));
          return tf.mean(draw.terms(draw.forward(teacher)).loss) as tf.Scalar;
        }
        const t = new Int32Array(batch).fill(Math.round((step * (diffusion.steps - 1)) / (timesteps - 1)));
        return tf.mean(diffusion.trainingLosses((x, s) => teacher.forward(x as tf.Tensor4D, s, labels), latents, t, noise).loss) as tf.Scalar;
      },
      { steps: timesteps, signal, onProgress },
    );
    return { kept: leastRedundant(importance.map((i) => -i), count, { keepLast: false }), importance };
  } finally {
    tf.dispose([latents, labels, noise]);
  }
}

/** The runs of blocks whose removal changes the representation least, by linear CKA between block boundaries. For models of one stack. */
export async function chooseByCka(teacher: Prunable, data: LatentDataset, { count, images = 128, seed, signal, onProgress }: ShortGptOptions): Promise<{ kept: number[]; similarity: number[][] }> {
  if (teacher instanceof MAR) throw new ArgumentError('chooseByCka: teacher', 'MAR', 'a model of one stack: the tokens of MAR’s decoder are others than those of its encoder');
  const measured = new BlockSimilarity();
  await overBatches(teacher, data, { images, seed }, async (draw, seen) => {
    throwIfCancelled(signal, 'CKA');
    tf.tidy(() => void draw().forward(teacher, { hook: measured.hook }));
    await measured.endBatch();
    onProgress?.({ task: 'CKA', step: seen, total: images, unit: 'image' });
  });
  const similarity = measured.similarity();
  return { kept: chooseIntervals(similarity, count).kept, similarity };
}

/**
 * Fits a linear layer for each removed run of layers, in closed form, over noisy latents as in training; for models of one
 * stack. `shallowCopy` puts them in the runs' place.
 *
 * @param runs of `removedRuns`
 */
export async function fitReplacements(teacher: Prunable, data: LatentDataset, runs: readonly Interval[], { images = 512, seed, signal, onProgress }: Omit<ShortGptOptions, 'count'>): Promise<FittedReplacement[]> {
  if (teacher instanceof MAR) throw new ArgumentError('fitReplacements: teacher', 'MAR', 'a model of one stack');
  const fit = new ReplacementFit(runs);
  try {
    await overBatches(teacher, data, { images, seed }, async (draw, seen) => {
      throwIfCancelled(signal, 'linear layers');
      tf.tidy(() => void draw().forward(teacher, { hook: fit.hook }));
      await fit.endBatch();
      onProgress?.({ task: 'linear layers', step: seen, total: images, unit: 'image' });
    });
    return await fit.solve();
  } finally {
    fit.dispose();
  }
}

/** The same training draws for every run with the same seed, in batches of at most 16; `draw` is called once, in a tidy. */
async function overBatches(model: Prunable, data: LatentDataset, { images, seed }: { images: number; seed: number }, each: (draw: () => TrainingDraw<Prunable>, seen: number) => void | Promise<void>): Promise<void> {
  const size = Math.min(16, images, data.labels.length);
  const rng = createRng(seed);
  const batches = data.batches(size, rng.split('data'));
  const draws = rng.split('noise');
  const objective = objectiveOf(model);
  for (let seen = 0; seen < images; seen += size) {
    const batch: LatentBatch = batches.next();
    try {
      await each(() => objective.draw(model, batch, draws), Math.min(images, seen + size));
    } finally {
      tf.dispose([batch.latents, batch.labels]);
    }
    await breathe();
  }
}

const isPlainDiT = (model: Prunable): model is DiT => model instanceof DiT && !(model instanceof SiT);
