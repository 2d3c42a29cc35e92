// The method on a model of your own: run its blocks through `runBlocks`, and masks, adapters and surgery work on it.
import '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { injectLora } from '@tinyfusion/lora';
import { type HookOptions, LayerNorm, Linear, Module, randomNormal, runBlocks } from '@tinyfusion/nn';
import { pruneBlocks } from '@tinyfusion/pruning';
import { LayerGates, defaultScaling, defaultTau, gateHook } from '@tinyfusion/sampler';
import { AdamW, clipFactor, globalNorm, lossAndGradients } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';

const rng = createRng(0);

class Mixer extends Module {
  readonly norm = new LayerNorm(16, { init: rng });
  readonly fc = new Linear(16, 16, { init: rng });
  forward(x: tf.Tensor3D): tf.Tensor3D {
    return tf.add(x, tf.tanh(this.fc.forward(this.norm.forward(x))));
  }
}

class Tower extends Module {
  readonly blocks = Array.from({ length: 6 }, () => new Mixer());
  readonly head = new Linear(16, 1, { init: rng });
  forward(x: tf.Tensor3D, hooks: HookOptions = {}): tf.Tensor3D {
    return this.head.forward(runBlocks('blocks', this.blocks, x, (block, h) => block.forward(h), hooks));
  }
}

await useBackend();
const steps = Number(process.argv[2] ?? 60);
const model = new Tower();
const gates = new LayerGates('1:2', model.blocks.length);
const adapters = injectLora(model, { init: rng, rank: 4 });
const groups = [
  { parameters: adapters.parameters(), optimizer: new AdamW(adapters.parameters()), lr: 1e-3 },
  { parameters: gates.parameters(), optimizer: new AdamW(gates.parameters()), lr: 1e-2 },
];
const [data, gumbel] = [rng.split('data'), rng.split('gumbel')];

for (let step = 0; step < steps; step++) {
  const { loss, gradients } = lossAndGradients(() => {
    const x = randomNormal<tf.Rank.R3>(data, [32, 4, 16]);
    const { masks } = gates.sample(32, { tau: defaultTau(step, steps), scaling: defaultScaling(step, steps), rng: gumbel });
    const wanted = tf.sin(tf.sum(x, 2, true)); // what the tower is to learn
    return tf.mean(tf.square(tf.sub(model.forward(x, { hook: gateHook(masks) }), wanted))) as tf.Scalar;
  }, groups.flatMap((g) => g.parameters));
  const gradientScale = clipFactor(await globalNorm(gradients), 1);
  let at = 0;
  for (const { parameters, optimizer, lr } of groups) optimizer.step(gradients.slice(at, (at += parameters.length)), { lr, gradientScale });
  if (step % 20 === 0) console.log(`step ${step}, loss ${(await loss.data())[0]!.toFixed(3)}`);
  tf.dispose([loss, gradients]);
}

const { kept } = await gates.decide(100);
adapters.remove();
pruneBlocks(model.blocks, kept);
console.log('kept', kept.join(' '), '→', model.blocks.length, 'blocks');
