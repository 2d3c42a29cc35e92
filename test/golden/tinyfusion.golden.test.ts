import { activationMask, distillationTerms, maskedFeatureLoss } from '@tinyfusion/distill';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { DiT } from '@tinyfusion/models';
import { captureFeatures, composeHooks, loadState } from '@tinyfusion/nn';
import { BlockInfluence, leastRedundant, maskHook, pruneState } from '@tinyfusion/pruning';
import { LayerGates, gateHook } from '@tinyfusion/sampler';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type GoldenCase, type GoldenTensor, expectClose, goldenCases, imagesOf, modelConfig, tensorOf, toStored, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);

const integers = (t: GoldenTensor): number[] => Array.from(t.values);

async function build(golden: GoldenCase, key = 'model', prefix = 'w.'): Promise<DiT> {
  const dit = new DiT(modelConfig(golden.config[key]), { init: 'zeros' });
  const state = golden.state(prefix);
  const own = new Set([...dit.namedParameters()].map(([name]) => name));
  await loadState(dit, { ...state, tensors: new Map([...state.tensors].filter(([name]) => own.has(name))) });
  return dit;
}

for (const golden of goldenCases('tinyfusion_gates')) {
  describe(golden.name, () => {
    const config = golden.config as { groups: [number, number][]; tau: number; scaling: number; decision: number[]; confidence: number[] };
    const x = () => imagesOf(golden.get('in.x'));
    const t = () => tensorOf(golden.get('in.t')) as tf.Tensor1D;
    const y = () => tensorOf(golden.get('in.y')) as tf.Tensor1D;

    async function buildGates(dit: DiT): Promise<LayerGates> {
      const gates = new LayerGates(config.groups, dit.blocks.length);
      for (const [i, gate] of gates.gates.entries()) gate.assign(tensorOf(golden.get(`w.gumbel_gates.${i}`)).reshape(gate.shape));
      return gates;
    }
    const gumbel = () => config.groups.map((_, i) => tensorOf(golden.get(`in.gumbel.${i}`)) as tf.Tensor2D);

    it('draws its masks, runs under them, and has the gradients of gates and weights', async () => {
      const dit = await build(golden);
      const gates = await buildGates(dit);
      const { masks, choices } = gates.sample(x().shape[0], { tau: config.tau, scaling: config.scaling, gumbel: gumbel() });
      for (const [i, { start, size, options }] of gates.groups.entries()) {
        await expectClose(`gate.${i}`, choices[i]!, golden.get(`out.gate.${i}`), { absolute: 1e-6 });
        await expectClose(`mask.${i}`, tf.stack(masks.slice(start, start + size), 1), golden.get(`out.mask.${i}`), { absolute: 1e-6 });
        expect(options.flatMap((kept) => Array.from({ length: size }, (_, j) => Number(kept.includes(j))))).toEqual(integers(golden.get(`out.options.${i}`)));
      }
      const inputs: tf.Tensor[] = [];
      const watch = (site: { index: number }, h: tf.Tensor3D, run: (h: tf.Tensor3D) => tf.Tensor3D) => {
        inputs[site.index] = tf.keep(tf.clone(h));
        return run(h);
      };
      const out = dit.forward(x(), t(), y(), { hook: composeHooks(watch, gateHook(masks)) });
      for (const [i, h] of inputs.entries()) await expectClose(`block_in.${i}`, h, golden.get(`out.block_in.${i}`), { absolute: 1e-4, relative: 1e-4 });
      await expectClose('y', toStored(out), golden.get('out.y'), { absolute: 1e-4, relative: 1e-4 });

      const parameters = [...gates.gates, ...dit.parameters()];
      const { value, grads } = tf.variableGrads(() => {
        const drawn = gates.sample(x().shape[0], { tau: config.tau, scaling: config.scaling, gumbel: gumbel() });
        return tf.mean(tf.square(dit.forward(x(), t(), y(), { hook: gateHook(drawn.masks) })));
      }, parameters);
      await expectClose('loss', value, golden.get('out.loss'), { absolute: 1e-4, relative: 1e-4 });
      for (const [i, gate] of gates.gates.entries()) await expectClose(`grad gate ${i}`, grads[gate.name]!, golden.get(`grad.gumbel_gates.${i}`), { ofMax: 2e-4 });
      for (const [name, parameter] of dit.namedParameters()) {
        if (golden.tensors.has(`grad.${name}`)) await expectClose(`grad.${name}`, grads[parameter.name]!, golden.get(`grad.${name}`), { ofMax: 2e-4 });
      }
    });

    it('decides, and the pruned model is the masked one', async () => {
      const dit = await build(golden);
      const decision = await (await buildGates(dit)).decide(config.scaling);
      expect(decision.kept).toEqual(config.decision);
      for (const [i, { confidence }] of decision.groups.entries()) expect(confidence).toBeCloseTo(config.confidence[i]!, 4);
      const shallow = new DiT({ ...dit.config, depth: decision.kept.length }, { init: 'zeros' });
      const state = golden.state();
      const weights = { ...state, tensors: new Map([...state.tensors].filter(([name]) => !name.startsWith('gumbel_gates'))) };
      await loadState(shallow, pruneState(weights, 'blocks', decision.kept));
      await expectClose('pruned', toStored(shallow.forward(x(), t(), y())), golden.get('out.pruned_y'), { absolute: 1e-4, relative: 1e-4 });
      await expectClose('masked', toStored(dit.forward(x(), t(), y(), { hook: maskHook(decision.kept) })), golden.get('out.pruned_y'), { absolute: 1e-4, relative: 1e-4 });
    });
  });
}

for (const golden of goldenCases('tinyfusion_bi')) {
  it(`${golden.name}: block influence`, async () => {
    const { batches, n_pruned: removed } = golden.config as { batches: number; n_pruned: number };
    const dit = await build(golden);
    const influence = new BlockInfluence();
    const pick = (name: string, i: number) => tf.squeeze(tf.slice(tensorOf(golden.get(name)), i, 1), [0]);
    for (let i = 0; i < batches; i++) {
      const x = tf.transpose(pick('in.x', i) as tf.Tensor4D, [0, 2, 3, 1]);
      dit.forward(x, tf.cast(pick('in.t', i), 'float32') as tf.Tensor1D, pick('in.y', i) as tf.Tensor1D, { hook: influence.hook }).dispose();
      influence.endBatch();
    }
    const scores = await influence.similarities();
    await expectClose('scores', scores, golden.get('out.scores'), { absolute: 1e-5 });
    expect(leastRedundant(scores, dit.blocks.length - removed)).toEqual(integers(golden.get('out.kept')));
  });
}

for (const golden of goldenCases('tinyfusion_kd')) {
  describe(golden.name, () => {
    const config = golden.config as { mapping: [number, number][]; learn_sigma: boolean; alpha_kd: number; beta_feat: number; train: boolean };
    const tolerance = { absolute: 2e-4, relative: 2e-4 };

    /** Every term of the loss, as the recipe puts it together. */
    function terms(student: DiT, teacher: DiT) {
      const diffusion = new GaussianDiffusion({ variance: config.learn_sigma ? 'learned-range' : 'fixed-large' });
      const [x0, noise, steps] = [imagesOf(golden.get('in.x0')), imagesOf(golden.get('in.noise')), integers(golden.get('in.t'))];
      const labels = tensorOf(golden.get('in.y')) as tf.Tensor1D;
      const p = student.config.classDropoutProb;
      const drop = config.train ? tf.tensor1d(Array.from(golden.get('in.drop_rand').values, (u) => (u < p ? 1 : 0)), 'int32') : undefined;
      const x = diffusion.qSample(x0, steps, noise) as tf.Tensor4D;
      const t = tf.tensor1d(steps, 'float32');
      const [own, theirs] = [captureFeatures(config.mapping.map(([s]) => s)), captureFeatures(config.mapping.map(([, i]) => i))];
      const [a, b] = [student.forward(x, t, labels, { hook: own.hook, drop }), teacher.forward(x, t, labels, { hook: theirs.hook, drop })];
      const [mine, wanted] = [own.take(), theirs.take()];
      const features = { student: config.mapping.map(([s]) => mine.get(s)!), teacher: config.mapping.map(([, i]) => wanted.get(i)!) };
      const distillation = distillationTerms(diffusion, { student: a, teacher: b, x0, x, t: steps, noise }, { alpha: config.alpha_kd });
      const feature = maskedFeatureLoss(features.student, features.teacher);
      return { ...distillation, feature, features, total: tf.add(distillation.loss, tf.mul(feature, config.beta_feat)) as tf.Tensor1D };
    }

    it('has every term, mask and hidden state', async () => {
      const [student, teacher] = [await build(golden, 'student', 'w.student.'), await build(golden, 'teacher', 'w.teacher.')];
      const out = terms(student, teacher);
      await expectClose('mse', out.mse, golden.get('out.mse'), tolerance);
      await expectClose('gt', out.groundTruth, golden.get('out.gt'), tolerance);
      await expectClose('kd_loss', out.distillation, golden.get('out.kd_loss'), tolerance);
      await expectClose('feat_loss', out.feature, golden.get('out.feat_loss'), tolerance);
      await expectClose('loss', out.total, golden.get('out.loss'), tolerance);
      if (golden.tensors.has('out.plain.loss')) await expectClose('plain loss', out.loss, golden.get('out.plain.loss'), tolerance);
      for (const [i, [s, t]] of config.mapping.entries()) {
        for (const [side, layer, state] of [['student', s, out.features.student[i]!], ['teacher', t, out.features.teacher[i]!]] as const) {
          await expectClose(`feature.${side}.${layer}`, state, golden.get(`out.feature.${side}.${layer}`), tolerance);
          await expectClose(`mask.${side}.${layer}`, activationMask(state, 2), golden.get(`out.mask.${side}.${layer}`), { absolute: 1e-6 });
        }
      }
    });

    it('has the gradients of the loss and of its feature term', async () => {
      const [student, teacher] = [await build(golden, 'student', 'w.student.'), await build(golden, 'teacher', 'w.teacher.')];
      for (const [prefix, key] of [['grad.', 'total'], ['grad.feat.', 'feature']] as const) {
        const { grads } = tf.variableGrads(() => tf.mean(terms(student, teacher)[key]), student.parameters());
        for (const [name, parameter] of student.namedParameters()) {
          if (golden.tensors.has(prefix + name)) await expectClose(prefix + name, grads[parameter.name]!, golden.get(prefix + name), { ofMax: 2e-4 });
        }
      }
    });
  });
}
