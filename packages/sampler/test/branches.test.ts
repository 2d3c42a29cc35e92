import { type Rng, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, type DiTBlock } from '@tinyfusion/models';
import { type BlockHook, randomNormal } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { BranchGates, LayerGates, type OptionGroup, branchCosts, branchDecision, branchGateHook, decideWithin, expectedCost, parseGroups, skippingHook } from '../src/index.js';

const costsOf = (depth: number, seed: number): { attention: number[]; mlp: number[] } => {
  const draws = Array.from(createRng(seed).uniform(2 * depth), (u) => 0.5 + u);
  return { attention: draws.slice(0, depth), mlp: draws.slice(depth) };
};

/** Every combination of options that keeps something: cost and Σ log p. `own` is paid for each block of which a branch is kept. */
function everything(groups: readonly OptionGroup[], gates: readonly ArrayLike<number>[], costs: readonly number[], own: readonly number[] = []): { kept: number[]; cost: number; logP: number }[] {
  let all = [{ kept: [] as number[], cost: 0, logP: 0 }];
  for (const [i, { start, options }] of groups.entries()) {
    const logTotal = Math.log(Array.from(gates[i]!).reduce((sum, g) => sum + Math.exp(g), 0));
    all = all.flatMap(({ kept, cost, logP }) => options.map((option, o) => ({ kept: [...kept, ...option.map((j) => start + j)], cost: cost + option.reduce((sum, j) => sum + costs[start + j]!, 0), logP: logP + gates[i]![o]! - logTotal })));
  }
  const blocks = (kept: readonly number[]): number[] => [...new Set(kept.map((unit) => unit >> 1))];
  return all.filter(({ kept }) => kept.length > 0).map((choice) => ({ ...choice, cost: choice.cost + blocks(choice.kept).reduce((sum, block) => sum + (own[block] ?? 0), 0) }));
}

describe('a decision under a budget', () => {
  const depth = 5;
  const costs = branchCosts(costsOf(depth, 1)).units;
  const total = costs.reduce((a, b) => a + b, 0);
  const groupings: [string, OptionGroup[]][] = [
    ['within blocks', new BranchGates('block', depth).groups.slice()],
    ['of N:M groups', parseGroups([[2, 4], [1, 3], [2, 3]], 2 * depth) as OptionGroup[]],
  ];

  it.each(groupings)('is the most likely combination, %s', (_name, groups) => {
    const rng = createRng(2);
    let bound = 0;
    for (let trial = 0; trial < 20; trial++) {
      const gates = groups.map(({ options }) => Array.from(rng.normal(options.length), (g) => 2 * g));
      const all = everything(groups, gates, costs);
      const cheapest = Math.min(...all.map(({ cost }) => cost));
      for (const budget of [cheapest, cheapest + 0.2 * (total - cheapest), 0.5 * total, total]) {
        const best = all.filter(({ cost }) => cost <= budget + 1e-9).toSorted((a, b) => b.logP - a.logP)[0]!;
        const decision = decideWithin(groups, gates, 1, { costs, budget });
        expect(decision.kept).toEqual(best.kept);
        expect(decision.cost).toBeCloseTo(best.cost, 10);
        expect(decision.groups.reduce((sum, { confidence }) => sum + Math.log(confidence), 0)).toBeCloseTo(best.logP, 8);
        if (best.logP < Math.max(...all.map(({ logP }) => logP)) - 1e-9) bound += 1;
      }
    }
    expect(bound).toBeGreaterThan(20); // budgets that changed the choice
  });

  it('counts what a block costs of its own until both of its branches are gone', () => {
    const blocks = Array.from(createRng(5).uniform(depth), (u, b) => costs[2 * b]! + costs[2 * b + 1]! + 0.2 + u);
    const { units, own } = branchCosts({ ...costsOf(depth, 1), blocks });
    expect(units).toEqual(costs);
    const rng = createRng(6);
    for (const groups of [new BranchGates('block', depth).groups, parseGroups([[2, 4], [3, 4], [1, 2]], 2 * depth) as OptionGroup[]]) {
      for (let trial = 0; trial < 20; trial++) {
        const gates = groups.map(({ options }) => Array.from(rng.normal(options.length), (g) => 2 * g));
        const all = everything(groups, gates, costs, own);
        const cheapest = Math.min(...all.map(({ cost }) => cost));
        for (const budget of [cheapest, 1.5 * cheapest, 0.5 * (total + 2), 0.8 * (total + 2)].filter((b) => b >= cheapest)) {
          const best = all.filter(({ cost }) => cost <= budget + 1e-9).toSorted((a, b) => b.logP - a.logP)[0]!;
          const decision = decideWithin(groups, gates, 1, { costs: { units, own }, budget });
          expect(decision.kept).toEqual(best.kept);
          expect(decision.cost).toBeCloseTo(best.cost, 10);
        }
        expect(() => decideWithin(groups, gates, 1, { costs: { units, own }, budget: 0.99 * cheapest })).toThrow(/expected at least/);
      }
    }
    const split = parseGroups([[2, 3], [2, 3], [2, 4]], 2 * depth) as OptionGroup[];
    expect(() => decideWithin(split, [[0, 0, 0], [0, 0, 0], [0, 0, 0, 0, 0, 0]], 1, { costs: { units, own }, budget: 9 })).toThrow(/begins inside block 1", expected groups that hold both branches/);
  });

  it('keeps as much as the budget allows where gates are alike, and never nothing', async () => {
    const gates = new BranchGates('block', 3);
    const table = { attention: [1, 1, 1], mlp: [2, 2, 2], blocks: [4, 4, 4] };
    expect((await gates.decideBranches(100, { costs: table, budget: Infinity })).keptBranches).toEqual({ attention: [0, 1, 2], mlp: [0, 1, 2] });
    const half = await gates.decideBranches(100, { costs: table, budget: 6 });
    expect(half.cost).toBe(6);
    // all for nothing: the cheapest that is something
    const none = await gates.decideBranches(100, { costs: table, budget: 2 });
    expect([none.kept.length, none.cost]).toEqual([1, 2]);
    await expect(gates.decideBranches(100, { costs: table, budget: 1.9 })).rejects.toThrow(/at least 2,/);
    for (const gate of gates.gates) gate.assign(tf.tensor2d([[0, 0, 0, 9]]));
    expect((await gates.decideBranches(100, { costs: table, budget: Infinity })).kept.length).toBeGreaterThan(0);
    gates.dispose();
  });

  /** Gates whose options are the likelier the more they cost, but for some noise. */
  const byCost = (groups: readonly OptionGroup[], units: readonly number[], rng: Rng, noise = 0.01): number[][] => groups.map(({ start, options }) => options.map((option) => option.reduce((sum, j) => sum + units[start + j]!, 0) * (1 + noise * rng.normal(1)[0]!)));

  it('uses the budget where asked to, by the likeliest that costs as much', () => {
    const rng = createRng(9);
    const { groups } = new BranchGates('block', depth);
    for (let trial = 0; trial < 20; trial++) {
      // a penalty has made it likely in every block that nothing stays
      const gates = groups.map(({ options }) => Array.from(rng.normal(options.length), (g, o) => g + 3 * o));
      const all = everything(groups, gates, costs);
      const budget = (0.3 + 0.6 * rng.uniform(1)[0]!) * total;
      const logPOf = ({ groups: decided }: { groups: { confidence: number }[] }): number => decided.reduce((sum, { confidence }) => sum + Math.log(confidence), 0);
      const [plain, used] = [0, 0.9].map((use) => decideWithin(groups, gates, 1, { costs, budget, use }));
      expect(plain!.cost).toBeLessThan(0.6 * budget);
      expect(used!.cost).toBeGreaterThan(0.9 * budget);
      expect(used!.cost).toBeLessThanOrEqual(budget * (1 + 1e-9));
      const best = all.filter(({ cost }) => cost >= used!.cost - 1e-9 && cost <= budget).reduce((top, { logP }) => Math.max(top, logP), -Infinity);
      expect(logPOf(used!)).toBeCloseTo(best, 6);
    }
    // one branch alone is all that there is room for
    expect(decideWithin(groups.slice(0, 1), [[0, 0, 0, 9]], 1, { costs: [2, 3], budget: 4.9, use: 0.95 }).kept).toEqual([1]);
  });

  it.each([28, 57])('is found in a moment for %i blocks where likelihood follows cost', (blocks) => {
    const { groups } = new BranchGates('block', blocks);
    const { units } = branchCosts(costsOf(blocks, 8));
    const all = units.reduce((a, b) => a + b, 0);
    const gates = byCost(groups, units, createRng(7));
    for (const share of [0.3, 0.5, 0.7]) {
      const start = process.cpuUsage();
      const { cost } = decideWithin(groups, gates, 1, { costs: units, budget: share * all });
      const time = process.cpuUsage(start).user / 1000; // others may have the machine, too
      console.log(`${blocks} blocks, likelihood by cost: ${time.toFixed(0)} ms`);
      expect(cost).toBeLessThanOrEqual(share * all * (1 + 1e-9));
      expect(time).toBeLessThan(4000); // without a bound on what is held it was 5 and 53 s
      expect(decideWithin(groups, gates, 1, { costs: units, budget: share * all, use: 0.95 }).cost).toBe(cost); // it is used anyway
    }
  });

  it('is as likely as any that costs 0.1 % less, where there are too many to hold on to', () => {
    const { groups } = new BranchGates('block', 14); // 4¹⁴ choices, here from two halves
    for (const seed of [1, 2]) {
      const rng = createRng(seed);
      const units = Array.from(rng.uniform(28), (u) => 0.5 + u);
      const gates = byCost(groups, units, rng, 0.001);
      const [first, second] = [0, 7].map((at) => everything(groups.slice(at, at + 7), gates.slice(at, at + 7), units).toSorted((a, b) => a.cost - b.cost)) as unknown as [{ cost: number; logP: number }[], { cost: number; logP: number }[]];
      /** The highest Σ log p within a budget. */
      const best = (budget: number): number => {
        let [at, most, top] = [0, -Infinity, -Infinity];
        for (const { cost, logP } of first.toReversed()) {
          for (; at < second.length && cost + second[at]!.cost <= budget; at++) most = Math.max(most, second[at]!.logP);
          top = Math.max(top, logP + most);
        }
        return top;
      };
      const [least, most] = [0, -1].map((at) => first.at(at)!.cost + second.at(at)!.cost) as [number, number];
      for (const share of [0.3, 0.5, 0.9]) {
        const budget = least + share * (most - least);
        const decision = decideWithin(groups, gates, 1, { costs: units, budget });
        expect(decision.cost).toBeLessThanOrEqual(budget * (1 + 1e-9));
        const found = decision.groups.reduce((sum, { confidence }) => sum + Math.log(confidence), 0);
        expect(found).toBeGreaterThanOrEqual(best(0.999 * budget) - 1e-9);
        expect(found).toBeLessThanOrEqual(best(budget * (1 + 1e-9)) + 1e-9);
      }
    }
  });

  it('takes sums that only rounding lifts above the budget', () => {
    const [group] = new BranchGates('block', 1).groups;
    expect(decideWithin([group!], [[1, 0, 0, 0]], 1, { costs: [0.1, 0.2], budget: 0.3 }).kept).toEqual([0, 1]);
    expect(decideWithin([group!], [[1, 0.5, 0, 0]], 1, { costs: [0.1, 0.2], budget: 0.2999 }).kept).toEqual([0]);
  });

  it('is found in a moment for the 56 branches of DiT-XL', () => {
    const xl = new BranchGates('block', 28);
    const rng = createRng(3);
    const gates = xl.groups.map(({ options }) => rng.normal(options.length));
    const costsXl = branchCosts(costsOf(28, 4)).units;
    const start = performance.now();
    const { cost } = decideWithin(xl.groups, gates, 1, { costs: costsXl, budget: 28 });
    const time = performance.now() - start;
    console.log(`28 blocks, 4 options each: ${time.toFixed(0)} ms`);
    expect(cost).toBeLessThanOrEqual(28);
    expect(cost).toBeGreaterThan(26);
    expect(time).toBeLessThan(5000);
  });

  it('is refused where nothing is cheap enough, with what is', () => {
    const groups = parseGroups('1:2', 4) as OptionGroup[];
    const bounds = { costs: [1, 2, 4, 0.5], budget: 1.4 };
    expect(() => decideWithin(groups, [[0, 0], [0, 0]], 1, bounds)).toThrow(/budget is 1\.4, expected at least 1\.5/);
    expect(decideWithin(groups, [[0, 9], [9, 0]], 1, { ...bounds, budget: 1.5 }).kept).toEqual([0, 3]);
    expect(() => decideWithin(groups, [[0, 0], [0, 0]], 1, { ...bounds, budget: Number.NaN })).toThrow(/budget is NaN/);
    expect(() => decideWithin(groups, [[0, 0], [0, 0]], 1, { costs: [1, 2], budget: 9 })).toThrow(/expected 4 numbers/);
    expect(() => decideWithin(groups, [[0, 0], [0, 0]], 1, { costs: [1, 2, -1, 0], budget: 9 })).toThrow(/costs is -1/);
    expect(() => decideWithin(groups, [[0], [0, 0]], 1, bounds)).toThrow(/gates of group 0/);
    expect(() => branchCosts({ attention: [1] })).toThrow(/branches: true/);
    expect(() => branchCosts({ attention: [1], mlp: [1, 2] })).toThrow(/mlp is 2/);
    expect(() => branchCosts({ attention: [1], mlp: [1], blocks: [2, 2] })).toThrow(/blocks is 2/);
  });

  it('names kept and dropped branches by block', () => {
    const { groups } = new BranchGates('block', 3);
    const decision = branchDecision(groups, [[9, 0, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9]], 1);
    expect(decision.kept).toEqual([0, 1, 3]);
    expect(decision.keptBranches).toEqual({ attention: [0], mlp: [0, 1] });
    expect(decision.droppedBranches).toEqual({ attention: [1, 2], mlp: [2] });
    expect('cost' in decision).toBe(false);
  });
});

describe.each(['cpu', 'wasm'] as const)('gates over branches on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));
  const depth = 3;
  const build = (): { forward: (branchHook?: BlockHook) => tf.Tensor4D; model: DiT } => {
    const rng = createRng(9);
    const model = new DiT({ inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 16, depth, numHeads: 2, mlpRatio: 2, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: rng });
    // adaLN-Zero blocks begin as the identity
    for (const p of model.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.mul(0.1, randomNormal(rng, p.shape as [number, number])))));
    const x = randomNormal<tf.Rank.R4>(rng, [2, 4, 4, 2]);
    const [t, y] = [tf.tensor1d([10, 700]), tf.tensor1d([0, 2], 'int32')];
    return { model, forward: (branchHook) => model.forward(x, t, y, { branchHook }) as tf.Tensor4D };
  };

  it('mask attention and MLP of a DiT apart, sample by sample, or leave them out', async () => {
    const { forward } = build();
    const masks = [[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [1, 1]].map((m) => tf.tensor1d(m));
    const both = await forward(branchGateHook(masks)).array();
    for (const sample of [0, 1]) {
      const kept = [[0, 2, 4, 5], [1, 2, 5]][sample]!;
      let runs = 0;
      const skip = skippingHook({ kept, units: 6 });
      const alone = await forward((site, h, run) => skip(site, h, (z) => ((runs += 1), run(z)))).array();
      expect(runs).toBe(kept.length);
      for (const [i, v] of alone[sample]!.flat(2).entries()) expect(both[sample]!.flat(2)[i]).toBeCloseTo(v, 4);
    }
    const whole = masks.map(() => tf.ones([2]) as tf.Tensor1D);
    for (const [i, v] of (await forward(branchGateHook(whole)).data()).entries()) expect(v).toBeCloseTo((await forward().data())[i]!, 4);
  });

  it('learn which branches matter, by sampled masks and by draws for a batch', async () => {
    const { forward, model } = build();
    // only block 0's MLP and block 2's attention do anything
    for (const [block, branch] of [[0, 0], [1, 0], [1, 1], [2, 1]] as const) {
      const modulation = (model.blocks[block] as DiTBlock).adaLN_modulation[1];
      const rows = tf.tidy(() => tf.tensor1d(Array.from({ length: 96 }, (_, i) => (Math.floor(i / 16) === (branch === 0 ? 2 : 5) ? 0 : 1))));
      modulation.weight.assign(tf.mul(modulation.weight, tf.expandDims(rows, 1)));
      modulation.bias!.assign(tf.mul(modulation.bias!, rows));
    }
    const target = forward();
    const gates = new BranchGates('1:2', depth);
    const optimizer = tf.train.adam(0.005);
    const rng = createRng(4);
    const loss = (hook: BlockHook): tf.Scalar => tf.mean(tf.square(tf.sub(forward(hook), target)));
    for (let step = 0; step < 60; step++) optimizer.minimize(() => loss(branchGateHook(gates.sample(2, { tau: 1, scaling: 100, rng }).masks)), false, gates.gates);
    const { keptBranches } = await gates.decideBranches(100);
    expect(keptBranches.mlp).toContain(0);
    expect(keptBranches.attention).toContain(2);
    const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng });
    expect(draw.units).toBe(6);
    const { grads } = tf.variableGrads(() => loss(skippingHook(draw, draw.masks(2))), gates.gates);
    expect(Object.keys(grads)).toHaveLength(3);
  });

  it('have an expected cost with its gradient, which a penalty brings down to a budget', async () => {
    const gates = new BranchGates('block', depth, { init: 0 });
    const table = costsOf(depth, 5);
    const costs = branchCosts(table).units;
    for (const [i, gate] of gates.gates.entries()) gate.assign(tf.tensor2d(createRng(i).normal(4), [1, 4]));
    const start = gates.gates.map((gate) => tf.clone(gate as tf.Tensor));
    const byHand = (values: number[][]): number => values.reduce((sum, logits, b) => {
      const e = logits.map((l) => Math.exp(2 * l));
      const z = e.reduce((a, c) => a + c, 0);
      return sum + (costs[2 * b]! * (e[0]! + e[1]!) + costs[2 * b + 1]! * (e[0]! + e[2]!)) / z;
    }, 0);
    const values = await Promise.all(start.map(async (s) => [...(await s.data())]));
    const { value, grads } = tf.variableGrads(() => expectedCost(gates, costs, { scaling: 2 }), gates.gates);
    expect((await value.data())[0]).toBeCloseTo(byHand(values), 4);
    for (const [b, gate] of gates.gates.entries()) {
      for (const [o, g] of (await grads[gate.name]!.data()).entries()) {
        const shifted = (d: number): number => byHand(values.map((row, i) => row.map((v, j) => (i === b && j === o ? v + d : v))));
        expect(g).toBeCloseTo((shifted(1e-5) - shifted(-1e-5)) / 2e-5, 4);
      }
    }
    const budget = 0.4 * costs.reduce((a, c) => a + c, 0);
    const optimizer = tf.train.adam(0.05);
    for (let step = 0; step < 80; step++) optimizer.minimize(() => tf.relu(tf.sub(expectedCost(gates, costs, { scaling: 2 }), budget)) as tf.Scalar, false, gates.gates);
    expect((await expectedCost(gates, costs, { scaling: 2 }).data())[0]).toBeLessThan(1.02 * budget);
    const decision = await gates.decideBranches(2, { costs: table, budget });
    expect(decision.cost).toBeLessThanOrEqual(budget);
    await expect(gates.decideBranches(2, { costs: table, budget: -1 })).rejects.toThrow(/budget is -1, expected at least 0\.\d/);
    // layers have a cost too
    const layers = new LayerGates('1:2', 4);
    expect((await expectedCost(layers, [1, 2, 3, 4], { scaling: 100 }).data())[0]).toBeCloseTo(5, 5);
    expect(() => expectedCost(new LayerGates('14:28', 28), costsOf(14, 0).mlp.concat(costsOf(14, 0).mlp), { scaling: 1 })).toThrow(/relaxed group, 14:28/);
    expect(() => expectedCost(layers, [1], { scaling: 1 })).toThrow(/expected 4 numbers/);
  });

  it('leave nothing behind, and refuse what does not fit', () => {
    const { forward } = build();
    const gates = new BranchGates('block', depth);
    const before = tf.memory().numTensors;
    const { value, grads } = tf.variableGrads(() => tf.add(tf.mean(forward(branchGateHook(gates.sample(2, { tau: 1, scaling: 100, rng: createRng(0) }).masks))), expectedCost(gates, [1, 1, 1, 1, 1, 1], { scaling: 100 })), gates.gates);
    tf.dispose([value, grads]);
    expect(tf.memory().numTensors).toBe(before);
    const masks = gates.decidedMasks(2);
    expect(() => forward(branchGateHook(masks.slice(2)))).toThrow(/two masks for each of the 3 blocks/);
    expect(() => branchGateHook(masks)({ stack: 'blocks', index: 0, depth: 3 }, tf.zeros([1, 1, 1]), (x) => x)).toThrow(/as branchHook, not as hook/);
    expect(() => new BranchGates('14:28', 14)).toThrow(/use smaller groups/);
    expect(() => new BranchGates('1:4', 3)).toThrow(/M can be 2, 3, 6/);
    expect(() => new BranchGates('block', 0)).toThrow(/depth is 0/);
  });
});
