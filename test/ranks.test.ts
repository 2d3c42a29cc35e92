// Ranks that share each step's batch make the same run as one does. Here they are tasks of one thread that take turns.
import { createRng, restoreRng } from '@tinyfusion/core';
import type { ImageDataset } from '@tinyfusion/data';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL, DiT, type DiTConfig, type MARConfig } from '@tinyfusion/models';
import { type LatentDataset, distill, encodeDataset, fashionMar, learnBranches, learnMasks, optimise, shallowCopy, train } from '@tinyfusion/recipes';
import { AdamW, type Collective, constant, singleCollective, threadCollective, threadMemory } from '@tinyfusion/train';
import { parseSafetensors, safetensorsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const config: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
const marConfig: MARConfig = { ...fashionMar, inputSize: 4, encoderWidth: 16, encoderDepth: 2, encoderHeads: 2, decoderWidth: 16, decoderDepth: 2, decoderHeads: 2, mlpRatio: 2, numClasses: 3, headDepth: 1, headWidth: 16 };

function toyLatents(): LatentDataset {
  const labels = Int32Array.from({ length: 12 }, (_, i) => i % 3);
  return {
    shape: [4, 4, 4],
    labels,
    batches: (batchSize, from) => {
      const rng = 'epochStart' in from ? restoreRng(from.epochStart) : from;
      return {
        next: () => ({ latents: tf.tensor4d(rng.normal(batchSize * 64), [batchSize, 4, 4, 4]), labels: tf.tensor1d(rng.integers(0, 3, batchSize), 'int32') }),
        position: () => ({ epochStart: rng.state(), taken: 0 }),
      };
    },
  };
}

const onRanks = <T>(size: number, job: (collective: Collective) => Promise<T>): Promise<T[]> => {
  const memory = threadMemory(size);
  return Promise.all(Array.from({ length: size }, (_, rank) => job(threadCollective(memory, rank))));
};

const numbersOf = async (model: { parameters(): readonly tf.Variable[] }): Promise<number[]> => (await Promise.all(model.parameters().map((p) => p.data()))).flatMap((values) => [...values]);

/** Within rounding: sums are made in another order. */
function expectClose(numbers: readonly number[], wanted: readonly number[], relative = 1e-5): void {
  expect(numbers.length).toBe(wanted.length);
  for (const [i, value] of numbers.entries()) expect(Math.abs(value - wanted[i]!), `number ${i}: ${value} for ${wanted[i]}`).toBeLessThanOrEqual(relative * Math.abs(wanted[i]!));
}

const teacherOf = (): DiT => {
  const teacher = new DiT(config, { init: createRng(1) });
  for (const p of teacher.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.randomNormal(p.shape, 0, 0.05, 'float32', 4))));
  return teacher;
};

describe('ranks that share a batch', () => {
  it.each([
    ['DiT', config, 2],
    ['DiT', config, 3], // 7 samples: shares differ
    ['SiT', config, 2],
    ['MAR', marConfig, 2],
    ['MAR', marConfig, 3],
  ] as const)('train a %s as one rank does (%#)', async (family, modelConfig, size) => {
    const run = async (collective: Collective): Promise<{ losses: number[]; end: number[] }> => {
      const losses: number[] = [];
      const model = await train<'DiT' | 'SiT' | 'MAR'>(toyLatents(), { family, config: modelConfig as never, steps: 20, batchSize: 7, seed: 5, lr: 0.02, collective, onProgress: ({ values }) => losses.push(values!['loss']!) });
      const end = await numbersOf(model);
      model.dispose();
      return { losses, end };
    };
    const [one, all] = [await run(singleCollective()), await onRanks(size, run)];
    expect(new Set(one.losses).size).toBe(20);
    expectClose(all[0]!.losses, one.losses);
    for (const { losses, end } of all.slice(1)) {
      expect(losses).toEqual([]); // rank 0 reports
      expect(end).toEqual(all[0]!.end); // all ranks have the same model, to the bit
    }
  });

  it('recover and learn masks as one rank does, each kind of mask', async () => {
    const teacher = teacherOf();
    const recover = async (collective: Collective): Promise<number[]> => {
      const student = await shallowCopy(teacher, [0, 2]);
      const { mse, loss } = await distill(student, teacher, toyLatents(), { steps: 12, batchSize: 6, seed: 2, lr: 0.01, sigmas: Infinity, collective });
      student.dispose();
      return [...mse, ...loss].map(([, value]) => value);
    };
    const learn = (per: 'sample' | 'batch', estimator: 'straight-through' | 'score-function') => async (collective: Collective): Promise<number[]> => {
      const { losses, decision } = await learnMasks(teacher, toyLatents(), { steps: 12, batchSize: 6, seed: 2, update: 'frozen', gateLr: 0.01, per, estimator, collective });
      return [...losses.map(([, value]) => value), ...decision.kept, ...decision.groups.map((g) => g.confidence)];
    };
    for (const run of [recover, learn('sample', 'straight-through'), learn('batch', 'straight-through'), learn('batch', 'score-function')]) {
      const one = await run(singleCollective());
      for (const numbers of await onRanks(2, run)) expectClose(numbers, one, 3e-5);
    }
    teacher.dispose();
  });

  it('learn branches as one rank does, by the times that rank 0 has', async () => {
    const costs = { unit: 'ms', rest: 1, blocks: [3, 3, 3, 3], attention: [1, 1, 1, 1], mlp: [2, 2, 2, 2] };
    const learn = (given: object) => async (collective: Collective): Promise<number[]> => {
      const teacher = teacherOf(); // adapters are put into it
      const { losses, decision, costs: used } = await learnBranches(teacher, toyLatents(), { steps: 8, batchSize: 6, seed: 2, faster: 1.5, lr: 0.01, collective, ...given });
      teacher.dispose();
      return [...losses.map(([, value]) => value), decision.cost!, ...decision.groups.map((g) => Math.log(g.confidence)), ...('costs' in given ? [] : used.blocks)];
    };
    const one = await learn({ costs })(singleCollective());
    for (const numbers of await onRanks(2, learn({ costs }))) expectClose(numbers, one, 3e-5);
    // what is measured differs from run to run, and not from rank to rank
    const [first, second] = await onRanks(2, learn({ faster: 1.05 }));
    expect(second).toEqual(first);
  });

  it('go on from rank 0’s file, other numbers of ranks too, to the bit with the same', async () => {
    const options = { config, steps: 6, batchSize: 4, seed: 5 };
    const part = async (collective: Collective): Promise<Uint8Array | undefined> => {
      let saved: Uint8Array | undefined;
      const model = await train(toyLatents(), { ...options, collective, checkpoint: { every: 3, save: async (_, step, run) => void (step === 3 && (saved = await safetensorsOf(run))) } });
      model.dispose();
      return saved;
    };
    const rest = (file: Uint8Array | undefined) => async (collective: Collective): Promise<number[]> => {
      const resume = file !== undefined && collective.rank === 0 ? await parseSafetensors(file) : undefined;
      const model = await train(toyLatents(), { ...options, collective, ...(resume === undefined ? {} : { resume }) });
      const numbers = await numbersOf(model);
      model.dispose();
      return numbers;
    };
    const files = await onRanks(2, part);
    expect(files.map((file) => file === undefined)).toEqual([false, true]);
    const whole = await onRanks(2, rest(undefined));
    expect(await onRanks(2, rest(files[0]))).toEqual(whole);
    const [alone] = await onRanks(1, rest(files[0]));
    for (const [i, value] of alone!.entries()) expect(value).toBeCloseTo(whole[0]![i]!, 4);
  });

  it('stop together when one of them is asked to, with what is done saved', async () => {
    const steps: number[] = [];
    const ends = await onRanks(3, async (collective) => {
      const stop = new AbortController();
      let seen = 0;
      const parameter = tf.variable(tf.scalar(1));
      const optimizer = new AdamW([parameter]);
      const run = optimise((_, report, part) => (report('rows', tf.scalar(part!.size)), tf.square(parameter) as tf.Scalar), {
        task: 'test',
        steps: 50,
        groups: [{ parameters: [parameter], optimizer, lr: constant(0.1) }],
        micro: { batchSize: 6 },
        streams: { save: () => ({}), restore: () => {} },
        collective,
        signal: stop.signal,
        keep: { every: 100, save: async (_, step) => void steps.push(step) },
        afterStep: (step) => {
          seen = step + 1;
          if (collective.rank === 2 && step === 4) stop.abort();
        },
      });
      const error = await run.then(() => undefined, (e: { code: string }) => e.code);
      optimizer.dispose();
      parameter.dispose();
      return { error, seen };
    });
    expect(ends).toEqual(Array(3).fill({ error: 'CANCELLED', seen: 5 }));
    expect(steps).toEqual([5]);
  });

  it('skip a step together where one of them has no finite loss', async () => {
    const ends = await onRanks(2, async (collective) => {
      const parameter = tf.variable(tf.scalar(1));
      const optimizer = new AdamW([parameter]);
      await optimise((step) => tf.mul(tf.square(parameter), step === 1 && collective.rank === 1 ? Number.NaN : 1) as tf.Scalar, {
        task: 'test',
        steps: 3,
        groups: [{ parameters: [parameter], optimizer, lr: constant(0.1) }],
        micro: { batchSize: 2 },
        streams: { save: () => ({}), restore: () => {} },
        collective,
      });
      const end = { steps: optimizer.steps, value: (await parameter.data())[0] };
      optimizer.dispose();
      parameter.dispose();
      return end;
    });
    expect(ends[0]!.steps).toBe(2);
    expect(ends[1]).toEqual(ends[0]);
  });

  it('encode a data set in shares that make the same whole', async () => {
    const vae = new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 2, groups: 4, scalingFactor: 0.5 }, { init: createRng(3) });
    const count = 600; // three batches: shares differ
    const data: ImageDataset = { images: Uint8Array.from(createRng(7).integers(0, 256, count * 16)), height: 4, width: 4, channels: 1, numClasses: 10, labels: Int32Array.from({ length: count }, (_, i) => i % 10), classNames: [] };
    const first = async (latents: LatentDataset): Promise<Float32Array> => {
      const batch = latents.batches(count, createRng(1)).next();
      const values = (await batch.latents.data()) as Float32Array;
      tf.dispose([batch.latents, batch.labels]);
      return values;
    };
    const one = await first(await encodeDataset(data, vae));
    for (const size of [2, 5]) for (const values of await onRanks(size, async (collective) => first(await encodeDataset(data, vae, { collective })))) expect(values).toEqual(one);
    vae.dispose();
  });

  it('cannot be more than samples, nor share a batch that has no parts', async () => {
    const errors = await onRanks(3, (collective) => train(toyLatents(), { config, steps: 1, batchSize: 2, seed: 0, collective }).catch((error: Error) => error.message));
    expect(errors).toEqual(Array(3).fill('batchSize is 2, expected at least a sample for each of the 3 ranks'));
    const unshared = await onRanks(2, (collective) => optimise(() => tf.scalar(1), { task: 'test', steps: 1, groups: [], collective }).catch((error: Error) => error.message));
    expect(unshared[0]).toMatch(/one rank, as this run does not compute its batch in parts/);
  });
});

it('ranks leave no tensors behind', async () => {
  const run = async (): Promise<void> => void (await onRanks(2, async (collective) => (await train(toyLatents(), { config, steps: 3, batchSize: 4, seed: 5, collective })).dispose()));
  await run();
  const before = tf.memory().numTensors;
  await run();
  expect(tf.memory().numTensors).toBe(before);
});
