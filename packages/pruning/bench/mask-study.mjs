// Masks a second of a study of all halves of a DiT's blocks, against forward passes of a model of half the depth.
//   node packages/pruning/bench/mask-study.mjs [depth] [width] [batch] [masks]        (after pnpm build)
import '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT } from '@tinyfusion/models';
import { randomNormal } from '@tinyfusion/nn';
import { allMasks, passCost, maskCount, maskLosses, measureBlocks, randomMasks, summariseMasks } from '@tinyfusion/pruning';
import * as tf from '@tensorflow/tfjs-core';

const [depth = 12, width = 96, batch = 16, count = 0] = process.argv.slice(2).map(Number);
const { name } = await useBackend({ prefer: 'wasm' });
const rng = createRng(0);
const config = { inputSize: 16, patchSize: 2, inChannels: 4, hiddenSize: width, depth, numHeads: 6, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };
const model = new DiT(config, { init: rng });
// adaLN-Zero blocks begin as the identity
for (const p of model.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.mul(0.02, randomNormal(rng, p.shape)))));
const half = new DiT({ ...config, depth: depth / 2 }, { init: rng });

const x = randomNormal(rng, [batch, 16, 16, 4]);
const target = randomNormal(rng, [batch, 16, 16, 8]);
const t = tf.tensor1d(Array.from(rng.integers(0, 1000, batch)));
const y = tf.tensor1d(Array.from(rng.integers(0, 10, batch)), 'int32');
const error = (out) => tf.mean(tf.square(tf.sub(out, target)));
const read = async (scalar) => {
  const [value] = await scalar.data();
  scalar.dispose();
  return value;
};
const forward = (own, hooks = {}) => read(tf.tidy(() => error(own.forward(x, t, y, hooks))));

/** The model as a stack: what surrounds its blocks once, and once a mask. */
const stack = {
  depth,
  start: () => tf.add(model.x_embedder.forward(x), model.pos_embed),
  block: (i, h) => model.blocks[i].forward(h, condition),
  finish: (h) => read(tf.tidy(() => error(unpatchify(model.final_layer.forward(h, condition))))),
};
const condition = tf.tidy(() => tf.add(model.t_embedder.forward(t), model.y_embedder.forward(y)));
const unpatchify = (tokens) => tf.reshape(tf.transpose(tf.reshape(tokens, [batch * 8, 8, 2, 16]), [0, 2, 1, 3]), [batch, 16, 16, 8]);

const total = maskCount(depth, depth / 2);
const masks = count > 0 && count < total ? randomMasks(depth, depth / 2, count, createRng(1)) : allMasks(depth, depth / 2);
for (let i = 0; i < 3; i++) await forward(half);
const passes = Math.min(masks.length, 100);
const time = async (work) => {
  const start = performance.now();
  const result = await work();
  return [(performance.now() - start) / 1000, result];
};
const halves = async () => {
  for (let i = 0; i < passes; i++) await forward(half);
};
const [before] = await time(halves);
const [hooked, byHooks] = await time(() => maskLosses(masks, { depth, loss: (hook) => forward(model, { hook }) }));
const [stacked, byStack] = await time(() => maskLosses(masks, stack));
const [after] = await time(halves);
const perSecond = passes / ((before + after) / 2);
const gap = Math.max(...byHooks.map(({ loss }, i) => Math.abs(loss - byStack[i].loss) / loss));
const { min, median, max, mean, deviation } = summariseMasks(byStack);
console.log(`${name}, depth ${depth}, width ${width}, batch ${batch}, ${masks.length} of ${total} masks`);
console.table([
  { what: 'forward passes of half the depth', 'a second': +perSecond.toFixed(2), ratio: 1 },
  { what: 'masks, through hooks', 'a second': +(masks.length / hooked).toFixed(2), ratio: +(masks.length / hooked / perSecond).toFixed(2) },
  { what: 'masks, as a stack', 'a second': +(masks.length / stacked).toFixed(2), ratio: +(masks.length / stacked / perSecond).toFixed(2) },
]);
console.log(`losses from ${min.loss.toFixed(4)} over ${median.loss.toFixed(4)} to ${max.loss.toFixed(4)}, mean ${mean.toFixed(4)}, deviation ${deviation.toFixed(4)}; the two ways differ by ${gap.toExponential(1)} at most`);

const [costs, table] = await time(() => measureBlocks(depth, (hooks) => model.forward(x, t, y, hooks)));
const kept = masks[0];
console.log(`block costs in ${costs.toFixed(1)} s: ${table.blocks.map((v) => v.toFixed(2)).join(' ')} ms, rest ${table.rest.toFixed(2)} ms; half the depth should take ${passCost(table, kept).toFixed(1)} ms, takes ${(1000 / perSecond).toFixed(1)}`);
