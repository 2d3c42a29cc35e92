// Which two of four layers are the cheap ones: learned by Gumbel-softmax.
import '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { LayerGates } from '@tinyfusion/sampler';
import * as tf from '@tensorflow/tfjs-core';

const gates = new LayerGates('1:2', 4);
const cost = tf.tensor1d([0, 1, 1, 0]);
const optimizer = tf.train.adam(0.01);
const rng = createRng(0);
for (let step = 0; step < 60; step++) {
  optimizer.minimize(() => tf.mean(tf.sum(tf.mul(tf.stack(gates.sample(32, { tau: 1, scaling: 100, rng }).masks, 1), cost), 1)), false, gates.gates);
}
const { kept } = await gates.decide(100);
console.log('kept', kept.join(' '));
