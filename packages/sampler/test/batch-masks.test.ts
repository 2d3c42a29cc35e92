import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { type BlockHook, runBlocks } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type BatchDraw, LayerGates, RunningBaseline, gateHook, scoreFunction, skippingHook } from '../src/index.js';

type Block = (x: tf.Tensor3D) => tf.Tensor3D;
const adds = (value: number): Block => (x) => tf.add(x, value) as tf.Tensor3D;
const stays: Block = (x) => tf.clone(x);
const through = (blocks: readonly Block[], x: tf.Tensor3D, hook: BlockHook): tf.Tensor3D => runBlocks('blocks', blocks, x, (block, h) => block(h), { hook });
const zeros = (): tf.Tensor3D => tf.zeros([2, 1, 1]);
const squaredError = (blocks: readonly Block[], hook: BlockHook, target: number): tf.Scalar => tf.mean(tf.square(tf.sub(through(blocks, zeros(), hook), target)));

/** Trains gates from draws for whole batches. */
async function learn(gates: LayerGates, steps: number, loss: (draw: BatchDraw, baseline: number | undefined) => tf.Scalar, lag: 0 | 1 = 0): Promise<void> {
  const rng = createRng(5);
  const baseline = new RunningBaseline();
  const optimizer = tf.train.adam(0.003);
  for (let step = 0; step < steps; step++) {
    const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng, lag });
    const value = optimizer.minimize(() => loss(draw, baseline.value), true, gates.gates)!;
    baseline.update((await value.data())[0]!);
    value.dispose();
  }
  optimizer.dispose();
}

describe.each(['cpu', 'wasm'] as const)('one draw for a whole batch on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));

  it('is the same for every sample', async () => {
    const gates = new LayerGates('2:4', 8);
    const { masks, choices } = gates.sample(5, { tau: 1, scaling: 100, per: 'batch', rng: createRng(1) });
    expect(choices.map(({ shape }) => shape)).toEqual([[5, 6], [5, 6]]);
    const rows = await tf.stack(masks, 1).array() as number[][];
    for (const row of rows) expect(row).toEqual(rows[0]);
    expect(rows[0]!.reduce((a, b) => a + b)).toBe(4);
  });

  it('has the values and gradients that masks on the device have under the same noise', async () => {
    const gates = new LayerGates([[1, 3], [2, 4]], 7, { init: 0 });
    gates.gates[0]!.assign(tf.tensor2d([[0.01, -0.02, 0.005]]));
    const draw = await gates.sampleForBatch({ tau: 0.7, scaling: 100, rng: createRng(8) });
    const again = createRng(8);
    const gumbel = gates.groups.map(({ options }) => tf.tensor2d(again.gumbel(options.length), [1, options.length]));
    const weights = tf.tensor2d(createRng(9).normal(21), [3, 7]);
    const [ours, device] = [() => draw.masks(3), () => gates.sample(3, { tau: 0.7, scaling: 100, per: 'batch', gumbel }).masks].map((masks) => tf.variableGrads(() => tf.sum(tf.mul(tf.stack(masks(), 1), weights)) as tf.Scalar, gates.gates));
    expect((await ours!.value.data())[0]).toBeCloseTo((await device!.value.data())[0]!, 5);
    for (const { name } of gates.gates) {
      const [a, b] = [await ours!.grads[name]!.data(), await device!.grads[name]!.data()];
      for (const [i, g] of a.entries()) expect(g).toBeCloseTo(b[i]!, 4);
      expect(Math.max(...a.map(Math.abs))).toBeGreaterThan(0.01);
    }
    const values = await tf.stack(draw.masks(1)).data();
    expect(draw.kept).toEqual([...values.keys()].filter((i) => values[i] === 1));
  });

  it('follows softmax(scaling · gate), from the present gates or the draw before', async () => {
    const gates = new LayerGates([[1, 3]], 3, { init: 0 });
    gates.gates[0]!.assign(tf.tensor2d([[0.01, 0, -0.005]]));
    const weights = [1, 0, -0.5].map(Math.exp);
    const rng = createRng(2);
    const counts = [0, 0, 0];
    for (let i = 0; i < 6000; i++) counts[(await gates.sampleForBatch({ tau: 1, scaling: 100, rng })).kept[0]!]! += 1;
    for (const [i, w] of weights.entries()) expect(Math.abs(counts[i]! / 6000 - w / weights.reduce((a, b) => a + b))).toBeLessThan(0.02);
    const certain = (layer: number): void => gates.gates[0]!.assign(tf.tensor2d([[0, 1, 2].map((j) => (j === layer ? 1 : 0))]));
    const kept = async (lag?: 0 | 1): Promise<readonly number[]> => (await gates.sampleForBatch({ tau: 1, scaling: 100, rng, ...(lag === undefined ? {} : { lag }) })).kept;
    certain(2);
    expect(await kept()).toEqual([2]);
    certain(0);
    expect(await kept(1)).toEqual([2]);
    certain(1);
    gates.refresh();
    expect(await kept()).toEqual([1]);
  });

  it('knows the probability of what it drew', async () => {
    const gates = new LayerGates('2:4', 8, { init: 0 });
    gates.gates[0]!.assign(tf.tensor2d(createRng(4).normal(6), [1, 6]));
    const draw = await gates.sampleForBatch({ tau: 1, scaling: 2, rng: createRng(5) });
    const { probabilities } = (await gates.decide(2)).groups[0]!;
    const option = gates.groups[0]!.options.findIndex((kept) => kept.every((j) => draw.kept.includes(j)));
    expect((await draw.logProbability().data())[0]).toBeCloseTo(Math.log(probabilities[option]! / 6), 5);
  });

  it('runs kept blocks alone; their masks have (y − x) · dy, the others nothing', async () => {
    const factors = [2, 3, 0.5, -1];
    const blocks = factors.map((f): Block => (x) => tf.mul(x, f) as tf.Tensor3D);
    const x = tf.tensor3d(createRng(1).normal(12), [2, 3, 2]);
    const wanted = tf.tensor3d(createRng(2).normal(12), [2, 3, 2]);
    const masks = [1, 0, 0, 1].map((m) => tf.fill([2], m) as tf.Tensor1D);
    let runs = 0;
    const counting: Block[] = blocks.map((block) => (h) => ((runs += 1), block(h)));
    const loss = (hook: (m: tf.Tensor1D[]) => BlockHook, stack: Block[]) => (h: tf.Tensor, ...m: tf.Tensor[]): tf.Scalar => tf.add(tf.sum(tf.addN(m)), tf.sum(tf.mul(through(stack, h as tf.Tensor3D, hook(m as tf.Tensor1D[])), wanted))); // Σ m: 1 beside what comes through the blocks
    const ours = tf.grads(loss((m) => skippingHook({ kept: [0, 3], units: 4 }, m), counting) as never)([x, ...masks]);
    expect(runs).toBe(2);
    const full = tf.grads(loss(gateHook, blocks) as never)([x, ...masks]);
    for (const i of [0, 1, 4]) for (const [j, g] of (await full[i]!.data()).entries()) expect((await ours[i]!.data())[j]).toBeCloseTo(g, 4);
    for (const i of [2, 3]) {
      expect([...(await ours[i]!.data())]).toEqual([1, 1]);
      expect(Math.abs((await full[i]!.data())[0]! - 1)).toBeGreaterThan(0.01);
    }
    // to the bit what the shallow stack computes
    expect(await through(blocks, x, skippingHook({ kept: [0, 3], units: 4 }, masks)).data()).toEqual(await through([blocks[0]!, blocks[3]!], x, (_site, h, run) => run(h)).data());
  });

  it('finds harmful blocks by straight-through gradients', async () => {
    const blocks = [adds(3), stays, stays, adds(-2)];
    const gates = new LayerGates('1:2', 4);
    await learn(gates, 150, (draw) => squaredError(blocks, skippingHook(draw, draw.masks(2)), 0));
    expect((await gates.decide(100)).kept).toEqual([1, 2]);
  });

  it('finds a block that is exactly right by the score function, where straight-through gradients see nothing', async () => {
    const blocks = [adds(1), stays, stays, adds(3)]; // to reach 1: the first is all that is needed
    const straight = new LayerGates('1:2', 2);
    await learn(straight, 20, (draw) => squaredError(blocks.slice(0, 2), skippingHook(draw, draw.masks(2)), 1));
    expect(await straight.gates[0]!.array()).toEqual([[Math.fround(0.02), Math.fround(0.02)]]);
    for (const lag of [0, 1] as const) {
      const gates = new LayerGates('1:2', 4);
      await learn(gates, 250, (draw, baseline) => scoreFunction(squaredError(blocks, skippingHook(draw), 1), draw.logProbability(), baseline), lag);
      const decision = await gates.decide(100);
      expect(decision.kept).toEqual([0, 2]);
      for (const { confidence } of decision.groups) expect(confidence).toBeGreaterThan(0.8);
    }
  });

  it('has, by the score function, the gradient of the expected loss', async () => {
    const gates = new LayerGates([[1, 3]], 3, { init: 0 });
    gates.gates[0]!.assign(tf.tensor2d([[0.5, 0, -0.3]]));
    const losses = [4, 1, 2.5];
    const exact = await tf.variableGrads(() => tf.sum(tf.mul(tf.softmax(gates.gates[0]!), [losses])) as tf.Scalar, gates.gates).grads[gates.gates[0]!.name]!.data();
    const mean = [0, 0, 0];
    const rng = createRng(6);
    const draws = 3000;
    for (let i = 0; i < draws; i++) {
      const draw = await gates.sampleForBatch({ tau: 1, scaling: 1, rng });
      const gradient = tf.tidy(() => tf.variableGrads(() => scoreFunction(tf.scalar(losses[draw.kept[0]!]!), draw.logProbability(), 2), gates.gates).grads[gates.gates[0]!.name]!);
      for (const [j, g] of (await gradient.data()).entries()) mean[j]! += g / draws;
      gradient.dispose();
    }
    // standard deviation of one estimate is below 1.3
    for (const [j, g] of exact.entries()) expect(Math.abs(mean[j]! - g)).toBeLessThan((4 * 1.3) / Math.sqrt(draws));
  });

  it('leaves nothing behind, and says what does not fit', async () => {
    const blocks = [adds(1), stays];
    const x = zeros();
    const gates = new LayerGates('1:2', 2);
    const before = tf.memory().numTensors;
    for (let i = 0; i < 3; i++) {
      const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng: createRng(i), lag: 1 });
      const { value, grads } = tf.variableGrads(() => scoreFunction(tf.mean(through(blocks, x, skippingHook(draw, draw.masks(2)))), draw.logProbability(), 0), gates.gates);
      tf.dispose([value, grads]);
    }
    const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng: createRng(0) });
    expect(() => through([stays], x, skippingHook(draw))).toThrow(/one mask for each of the 1 blocks/);
    expect(() => skippingHook(draw, [])).toThrow(/each of the draw's 2 layers/);
    await expect(gates.sampleForBatch({ tau: 0, scaling: 1, rng: createRng(0) })).rejects.toThrow(/tau is 0/);
    await expect(gates.sampleForBatch({ tau: 1, scaling: Number.NaN, rng: createRng(0) })).rejects.toThrow(/scaling is NaN, expected a finite number from 0/);
    for (const mostOptions of [1, 100]) {
      // relaxed and listed
      const broken = new LayerGates('2:4', 4, { mostOptions });
      tf.tidy(() => broken.gates[0]!.assign(tf.fill(broken.gates[0]!.shape, Number.NaN)));
      await expect(broken.sampleForBatch({ tau: 1, scaling: 100, rng: createRng(0) })).rejects.toMatchObject({ code: 'ARGUMENT', message: expect.stringMatching(/gates of the group from layer 0.*expected finite numbers; learning has diverged/) as string });
      broken.dispose();
    }
    for (const layer of [9, 1.5, -1]) expect(() => skippingHook({ kept: [0, layer], units: 4 })).toThrow(`skippingHook: kept is ${layer}, expected layers from 0 to 3`);
    await expect(gates.sampleForBatch({ tau: 1, scaling: 1 })).rejects.toThrow(/an Rng/);
    expect(() => new RunningBaseline({ decay: 1 })).toThrow(/decay is 1/);
    expect(tf.memory().numTensors).toBe(before);
  });
});
