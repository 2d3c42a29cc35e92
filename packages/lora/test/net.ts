import '@tensorflow/tfjs-backend-cpu';
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { Linear, Module } from '@tinyfusion/nn';
import { stateDictOf, type StateDict } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe } from 'vitest';

class Attention extends Module {
  constructor(readonly qkv: Linear) {
    super();
  }
}

class Mlp extends Module {
  constructor(readonly fc1: Linear) {
    super();
  }
}

/** x + fc1(tanh(qkv(x))) */
class Block extends Module {
  readonly attn: Attention;
  readonly mlp: Mlp;
  constructor(seed: number) {
    super();
    this.attn = new Attention(new Linear(6, 10, { init: createRng(seed), bias: false }));
    this.mlp = new Mlp(new Linear(10, 6, { init: createRng(seed + 1), biasInit: (shape, rng) => rng.normal(shape[0]!) }));
  }
  forward(x: tf.Tensor): tf.Tensor {
    return tf.tidy(() => tf.add(x, this.mlp.fc1.forward(tf.tanh(this.attn.qkv.forward(x)))));
  }
}

/** Residual blocks and a head: `blocks.0.attn.qkv`, `blocks.0.mlp.fc1`, …, `head`. */
export class Net extends Module {
  readonly blocks: Block[];
  readonly head = new Linear(6, 4, { init: createRng(99) });
  constructor(depth = 2) {
    super();
    this.blocks = Array.from({ length: depth }, (_, i) => new Block(10 * i + 1));
  }
  forward(x: tf.Tensor): tf.Tensor {
    return tf.tidy(() => this.head.forward(this.blocks.reduce((h, block) => block.forward(h), x)));
  }
}

/** `[5, 6]` */
export const input = (): tf.Tensor2D => tf.tensor2d(createRng(3).normal(30), [5, 6]);

export const values = (t: tf.Tensor): Promise<Float32Array> => t.data() as Promise<Float32Array>;

/** What a net makes of {@link input}. */
export async function output(net: { forward(x: tf.Tensor): tf.Tensor }): Promise<Float32Array> {
  const x = input();
  const y = net.forward(x);
  const out = Float32Array.from(await values(y));
  tf.dispose([x, y]);
  return out;
}

/** Largest difference over the largest value: a few units in the last place are some 1e-7. */
export function apart(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (got.length !== expected.length) return Number.POSITIVE_INFINITY;
  let [worst, largest] = [0, 1e-6];
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(got[i]! - expected[i]!));
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return worst / largest;
}

/** Draws every variable anew, so that no correction is zero; magnitudes stay near the norms they are. */
export function randomise(variables: Iterable<tf.Variable>, seed: number, size = 0.5): void {
  const rng = createRng(seed);
  for (const v of variables) tf.tidy(() => v.assign(v.rank === 1 ? tf.mul(v, tf.tensor(rng.uniform(v.size).map((u) => 0.7 + u), v.shape)) : tf.tensor(rng.normal(v.size).map((n) => n * size), v.shape)));
}

/** An adapter's state as a file would have it. */
export async function saved(state: Iterable<readonly [string, tf.Variable]>): Promise<StateDict> {
  return stateDictOf(await Promise.all(Array.from(state, async ([name, v]) => [name, { shape: v.shape, values: Float32Array.from(await values(v)) }] as const)));
}

/** The same tests on each backend. */
export function onBackends(title: string, tests: () => void): void {
  describe.each(['cpu', 'wasm'] as const)(`${title} on %s`, (backend) => {
    beforeAll(async () => {
      await useBackend({ prefer: backend });
    });
    tests();
  });
}
