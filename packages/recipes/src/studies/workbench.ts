import { type LongTaskOptions, createRng } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { type ExtractedFeatures, type FeatureNetwork, classifierFeatures, loadConvClassifier } from '@tinyfusion/eval';
import { type TeacherFamily, loadAutoencoder, loadFashionMnist, loadFeatureNetwork, loadTeacher } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, DiT, SiT, loadAutoencoderKL, loadModel } from '@tinyfusion/models';
import { type BlockHook, randomNormal } from '@tinyfusion/nn';
import { type MaskLoss, allMasks, maskHook, maskLosses, randomMasks } from '@tinyfusion/pruning';
import { stateDictHash } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { type DistillOptions, distill } from '../distill.js';
import { evaluateModel, referenceFeatures } from '../evaluate.js';
import { type LatentDataset, encodeDataset } from '../latents.js';
import { type Prunable, objectiveOf } from '../objective.js';
import { shallowCopy } from '../shallow-copy.js';
import { depthOf, keptByStack, overAllStacks } from '../stacks.js';

/** How much of everything a study takes. */
export interface StudySizes {
  /** Seeds of masks, recovery and random choices. */
  seeds: number[];
  maskSteps: number;
  recoverySteps: number;
  /** Embedded training images. */
  images: number;
  /** Samples that a model is measured by. */
  samples: number;
  samplingSteps: number;
}

export const studySizes: StudySizes = { seeds: [0, 1, 2], maskSteps: 600, recoverySteps: 400, images: 10_000, samples: 1000, samplingSteps: 10 };

/** A few steps of everything, to see that a study works. */
export const fastStudySizes: StudySizes = { seeds: [0], maskSteps: 2, recoverySteps: 2, images: 128, samples: 20, samplingSteps: 2 };

/** What a model is measured by, on the features of the embedded classifier: to be compared with each other. */
export type Measures = { fid: number; inceptionScore: number; precision: number; recall: number; agreement: number };

/** An embedded teacher with all that studies need of it. */
export interface Workbench<M extends Prunable = DiT> {
  readonly family: TeacherFamily;
  readonly teacher: M;
  readonly depth: number;
  readonly sha256: string;
  /** Encoded when it is first asked for. */
  data(): Promise<LatentDataset>;
  readonly sizes: StudySizes;
  readonly context: LongTaskOptions;
  /** Progress under a name of its own. */
  named(task: string): LongTaskOptions;
  measure(model: M, seed: number, task: string): Promise<Measures>;
  /** The teacher's blocks alone that are kept, recovered. The caller disposes of it. */
  recovered(kept: readonly number[], seed: number, task: string, options?: Partial<DistillOptions<M>> & { teacher?: M; source?: M }): Promise<M>;
  /** Training loss of a model under a hook, over the same draws at every call. */
  loss(model: M, hook?: BlockHook, batches?: number): Promise<number>;
  /** The same right after a cut. */
  calibrationLoss(kept: readonly number[]): Promise<number>;
  /** Losses of every mask that keeps half of the layers and some of each stack, in the order of `allMasks` (a few of them in a try); measured once. */
  losses(): Promise<readonly MaskLoss[]>;
  dispose(): void;
}

/** Learning rate of recovery at this size. */
const recoveryLr = 1e-3;

/** Loads everything embedded. */
export async function openWorkbench(sizes: StudySizes, context: LongTaskOptions, family: TeacherFamily = 'DiT'): Promise<Workbench<Prunable>> {
  const state = await loadTeacher(family);
  const teacher = (await loadModel(state)) as Prunable;
  const vae: AutoencoderKL = await loadAutoencoderKL(await loadAutoencoder());
  const network: FeatureNetwork = classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier');
  let encoded: Promise<LatentDataset> | undefined;
  const data = () => (encoded ??= loadFashionMnist('train').then((images) => encodeDataset(firstImages(images, sizes.images), vae, context)));
  let real: ExtractedFeatures | undefined;
  const depth = depthOf(teacher);
  const named = (task: string): LongTaskOptions => ({ signal: context.signal, onProgress: (event) => context.onProgress?.({ ...event, task }) });
  const loss: Workbench<Prunable>['loss'] = async (model, hook, batches = 8) => {
    const rng = createRng(0).split('calibration');
    const diffusion = new GaussianDiffusion();
    const drawn = (await data()).batches(64, rng.split('data'));
    let total = 0;
    for (let i = 0; i < batches; i++) {
      const mean = tf.tidy(() => {
        const batch = drawn.next();
        const hooked = hook === undefined ? {} : { hook: overAllStacks(model, hook) };
        if (!(model instanceof DiT) || model instanceof SiT) {
          const draw = objectiveOf(model).draw(model, batch, rng);
          return tf.mean(draw.terms(draw.forward(model, hooked)).loss);
        }
        const { latents, labels } = batch;
        const t = rng.integers(0, diffusion.steps, 64);
        const forward = (x: tf.Tensor, s: tf.Tensor1D) => model.forward(x as tf.Tensor4D, s, labels, hooked);
        return tf.mean(diffusion.trainingLosses(forward, latents, t, randomNormal<tf.Rank.R4>(rng, latents.shape)).loss);
      });
      total += (await mean.data())[0]! / batches;
      mean.dispose();
    }
    return total;
  };
  let everyLoss: Promise<MaskLoss[]> | undefined;
  const few = sizes.images < 1000; // a try
  // a stack has to keep a layer, or there is nothing to recover
  const masks = (): number[][] => (few ? randomMasks(depth, depth / 2, 16, createRng(0)) : allMasks(depth, depth / 2)).filter((kept) => keptByStack(teacher, kept).every((stack) => stack.kept.length > 0));
  return {
    family,
    teacher,
    depth,
    sha256: await stateDictHash(state),
    data,
    sizes,
    context,
    named,
    loss,
    calibrationLoss: (kept) => loss(teacher, maskHook(kept)),
    losses: () => (everyLoss ??= maskLosses(masks(), { depth, loss: (hook) => loss(teacher, hook, few ? 1 : 2) }, named('calibration losses'))),
    measure: async (model, seed, task) => {
      real ??= await referenceFeatures(network, await loadFashionMnist('test'), sizes.samples < 100 ? 100 : 10_000, context);
      const { fid, inceptionScore, precision, recall, agreement } = await evaluateModel(model, vae, network, real, { count: sizes.samples, steps: sizes.samplingSteps, guidance: 1.5, seed, ...named(task) });
      return { fid, inceptionScore, precision, recall, agreement };
    },
    recovered: async (kept, seed, task, { teacher: master = teacher, source = teacher, ...options } = {}) => {
      const student = await shallowCopy(source, kept);
      try {
        await distill(student, master, await data(), { steps: sizes.recoverySteps, lr: recoveryLr, seed, ...options, ...named(task) });
        return student;
      } catch (error) {
        student.dispose();
        throw error;
      }
    },
    dispose: () => {
      teacher.dispose();
      vae.dispose();
    },
  };
}
