// The method on every family of models: learn masks, cut, recover, store, load, sample. No family has code of its own
// beyond its objective and its sampler.
import { createRng } from '@tinyfusion/core';
import { GaussianDiffusion, Transport, ddim, sampleOde, sampleToEnd } from '@tinyfusion/diffusion';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, type DiTConfig, MAR, type MARConfig, SiT, loadModel, sampleMAR, saveModel } from '@tinyfusion/models';
import { type PruneRecord, pruneMetadata, readPruneRecord } from '@tinyfusion/pruning';
import { type LatentDataset, type Prunable, depthOf, distill, learnMasks, objectiveOf, shallowCopy, stacksOf } from '@tinyfusion/recipes';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const shape: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
const marShape: MARConfig = {
  inputSize: 4,
  patchSize: 1,
  inChannels: 4,
  encoderWidth: 16,
  encoderDepth: 2,
  encoderHeads: 2,
  decoderWidth: 12,
  decoderDepth: 2,
  decoderHeads: 2,
  mlpRatio: 2,
  normEpsilon: 1e-6,
  numClasses: 3,
  bufferSize: 2,
  headDepth: 1,
  headWidth: 8,
  maskRatioMin: 0.7,
  labelDropProb: 0.1,
  attentionDropout: 0.1,
  projectionDropout: 0.1,
  diffusionBatchMul: 2,
};

/** A family: a fresh model, and a sample of it. */
interface Family {
  name: string;
  build: () => Prunable;
  sample: (model: Prunable) => Promise<tf.Tensor>;
}

const labels = [0, 2];
const conditioned = (model: DiT) => (x: tf.Tensor, t: tf.Tensor1D) => model.forward(x as tf.Tensor4D, t, tf.tensor1d(labels, 'int32'));

const families: Family[] = [
  {
    name: 'DiT',
    build: () => new DiT(shape, { init: createRng(1) }),
    sample: async (model) => {
      const noise = tf.tensor4d(createRng(2).normal(128), [2, 4, 4, 4]);
      const x = await sampleToEnd(ddim(new GaussianDiffusion({ respacing: '4' }), conditioned(model as DiT), { noise, rng: createRng(3) }));
      noise.dispose();
      return x;
    },
  },
  {
    name: 'SiT',
    build: () => new SiT(shape, { init: createRng(1) }),
    sample: async (model) => {
      const noise = tf.tensor4d(createRng(2).normal(128), [2, 4, 4, 4]);
      const x = await sampleToEnd(sampleOde(new Transport(), conditioned(model as SiT), { noise, method: 'heun2', steps: 4 }));
      noise.dispose();
      return x;
    },
  },
  {
    name: 'MAR',
    build: () => new MAR(marShape, { init: createRng(1) }),
    sample: (model) => sampleToEnd(sampleMAR(model as MAR, { labels, rng: createRng(2), iterations: 3, steps: '4', guidance: 2 })),
  },
];

/** Latents drawn afresh. */
function toyLatents(): LatentDataset {
  return {
    shape: [4, 4, 4],
    labels: Int32Array.from({ length: 12 }, (_, i) => i % 3),
    batches: (batchSize, from) => {
      const rng = createRng(typeof from === 'object' && 'epochStart' in from ? 0 : from.integers(0, 1000, 1)[0]!);
      return {
        next: () => ({ latents: tf.tensor4d(rng.normal(batchSize * 64), [batchSize, 4, 4, 4]), labels: tf.tensor1d(rng.integers(0, 3, batchSize), 'int32') }),
        position: () => ({ epochStart: rng.state(), taken: 0 }),
      };
    },
  };
}

async function values(model: Prunable): Promise<Map<string, number[]>> {
  const all = new Map<string, number[]>();
  for (const [name, parameter] of model.namedParameters()) all.set(name, [...(await parameter.data())]);
  return all;
}

describe.each(families)('$name', ({ build, sample }) => {
  it('goes from a teacher to samples of a shallow model that its file alone rebuilds', async () => {
    const teacher = build();
    const before = await values(teacher);
    const { decision, losses } = await learnMasks(teacher, toyLatents(), { groups: '1:2', steps: 4, batchSize: 4, seed: 0 });
    expect(decision.kept.length).toBe(2);
    expect(losses.every(([, loss]) => Number.isFinite(loss))).toBe(true);
    expect(await values(teacher), 'the teacher is as it was').toEqual(before);

    const student = await shallowCopy(teacher, decision.kept);
    expect(depthOf(student)).toBe(2);
    const curves = await distill(student, teacher, toyLatents(), { steps: 4, batchSize: 4, seed: 0 });
    expect(curves.mse.every(([, mse]) => Number.isFinite(mse))).toBe(true);

    const record: PruneRecord = { version: 1, stack: stacksOf(teacher).map((s) => s.name).join(','), kept: decision.kept, depth: depthOf(teacher), criterion: 'learned', teacher: { name: 'toy', sha256: '0'.repeat(64) } };
    const file = await saveModel(student, { metadata: [pruneMetadata(record)] });
    const state = await parseSafetensors(file);
    const loaded = (await loadModel(state)) as Prunable;
    expect(loaded.constructor).toBe(teacher.constructor);
    expect(await values(loaded)).toEqual(await values(student));
    expect(readPruneRecord(state.metadata)?.kept).toEqual(decision.kept);

    const [own, again] = [await sample(student), await sample(loaded)];
    expect(own.shape).toEqual([2, 4, 4, 4]);
    const drawn = [...(await own.data())];
    expect(drawn.every(Number.isFinite)).toBe(true);
    expect([...(await again.data())]).toEqual(drawn);
    tf.dispose([own, again]);
    for (const model of [teacher, student, loaded]) model.dispose();
  });

  it('leaves no tensor behind in fifty training steps and a sampling run', async () => {
    const model = build();
    const objective = objectiveOf(model);
    const rng = createRng(4);
    const batches = toyLatents().batches(2, rng);
    const step = (): void => {
      const { value, grads } = tf.variableGrads(() => {
        const draw = objective.draw(model, batches.next(), rng);
        return tf.mean(draw.terms(draw.forward(model)).loss) as tf.Scalar;
      }, model.parameters().filter((p) => !p.name.includes('fake')));
      tf.dispose([value, grads]);
    };
    step();
    (await sample(model)).dispose();
    const tensors = tf.memory().numTensors;
    for (let i = 0; i < 50; i++) step();
    (await sample(model)).dispose();
    expect(tf.memory().numTensors).toBe(tensors);
    model.dispose();
  });
});
