// A DiT as one writes it in plain tfjs. `layout: 'pytorch'`: weights [out, in], gradients tfjs's own; `'best'`: weights
// [in, out], and gradients arranged by hand so that every product is a plain one of two matrices.
import * as tf from '@tensorflow/tfjs-core';
import { deviationOf, ditInputs, fill } from './numbers.mjs';

const last2 = (x) => [...x.shape.slice(0, -2).keys(), x.rank - 1, x.rank - 2];
const swap = (x) => tf.transpose(x, last2(x));

/** x·y of matrices or batches of them, its gradients without transposed operands. */
const product = tf.customGrad((x, y, save) => {
  save([x, y]);
  return { value: tf.matMul(x, y), gradFunc: (d, [a, b]) => [tf.matMul(d, swap(b)), tf.matMul(swap(a), d)] };
});

/** Variables by the names of a DiT's state dict, and layers of them. */
function layersOf({ layout }) {
  const best = layout === 'best';
  const variables = [];
  const variable = (value) => {
    variables.push(tf.variable(value));
    value.dispose();
    return variables.at(-1);
  };
  const parameter = (name, shape) => variable(tf.tensor(fill(name, shape.reduce((a, b) => a * b, 1), deviationOf(shape)), shape));
  const matMul = (x, y) => (best ? product(x, y) : tf.matMul(x, y));
  const linear = (name, inputs, outputs, arrange = (w) => w) => {
    const shape = [outputs, inputs];
    const weight = variable(tf.tidy(() => {
      const w = arrange(tf.tensor(fill(`${name}.weight`, inputs * outputs, 1 / Math.sqrt(inputs)), shape));
      return best ? tf.transpose(w) : tf.clone(w);
    }));
    const bias = parameter(`${name}.bias`, [outputs]);
    return (x) => {
      const rows = tf.reshape(x, [-1, inputs]);
      const y = best ? product(rows, weight) : tf.matMul(rows, weight, false, true);
      return tf.reshape(tf.add(y, bias), [...x.shape.slice(0, -1), outputs]);
    };
  };
  const norm = (x) => {
    const { mean, variance } = tf.moments(x, -1, true);
    return tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-6)));
  };
  const modulate = (x, shift, scale) => tf.add(tf.mul(x, tf.add(tf.expandDims(scale, 1), 1)), tf.expandDims(shift, 1));
  const silu = (x) => tf.mul(x, tf.sigmoid(x));
  const gelu = (x) => tf.mul(tf.mul(x, 0.5), tf.add(1, tf.tanh(tf.mul(Math.sqrt(2 / Math.PI), tf.add(x, tf.mul(0.044715, tf.mul(x, tf.mul(x, x))))))));
  const block = (name, width, heads) => {
    const at = name === '' ? '' : `${name}.`;
    const [adaLN, qkv, proj, fc1, fc2] = [['adaLN_modulation.1', width, 6 * width], ['attn.qkv', width, 3 * width], ['attn.proj', width, width], ['mlp.fc1', width, 4 * width], ['mlp.fc2', 4 * width, width]].map(([part, i, o]) => linear(at + part, i, o));
    const d = width / heads;
    const self = (x) => {
      const [n, t] = x.shape;
      const [q, k, v] = tf.split(qkv(x), 3, 2).map((part) => tf.transpose(tf.reshape(part, [n, t, heads, d]), [0, 2, 1, 3]));
      const scores = best ? product(q, swap(k)) : tf.matMul(q, k, false, true);
      const o = matMul(tf.softmax(tf.mul(scores, 1 / Math.sqrt(d))), v);
      return proj(tf.reshape(tf.transpose(o, [0, 2, 1, 3]), [n, t, width]));
    };
    return (x, c) => {
      const [shift1, scale1, gate1, shift2, scale2, gate2] = tf.split(adaLN(silu(c)), 6, 1);
      const h = tf.add(x, tf.mul(tf.expandDims(gate1, 1), self(modulate(norm(x), shift1, scale1))));
      return tf.add(h, tf.mul(tf.expandDims(gate2, 1), fc2(gelu(fc1(modulate(norm(h), shift2, scale2))))));
    };
  };
  return { variables, parameter, linear, norm, modulate, silu, block };
}

/** A block and its variables. */
export function plainBlock({ width, heads, tokens, batch, layout }) {
  const { block, variables } = layersOf({ layout });
  const run = block('', width, heads);
  const [x, c] = [tf.tensor(fill('x', batch * tokens * width, 1), [batch, tokens, width]), tf.tensor(fill('c', batch * width, 1), [batch, width])];
  return { variables, forward: () => run(x, c) };
}

/** A model and its variables. */
export function plainDiT(work) {
  const { width, depth, heads, size, batch, classes = 1000 } = work;
  const grid = size / 2;
  const { variables, parameter, linear, norm, modulate, silu, block } = layersOf(work);
  // patches are (row, column, channel) here, and (channel, row, column) in the checkpoint
  const embed = linear('x_embedder.proj', 16, width, (w) => tf.reshape(tf.transpose(tf.reshape(w, [width, 4, 2, 2]), [0, 2, 3, 1]), [width, 16]));
  const [time1, time2] = [linear('t_embedder.mlp.0', 256, width), linear('t_embedder.mlp.2', width, width)];
  const table = parameter('y_embedder.embedding_table.weight', [classes + 1, width]);
  const place = tf.tensor(fill('pos_embed', grid * grid * width, deviationOf([1, grid * grid, width])), [1, grid * grid, width]);
  const blocks = Array.from({ length: depth }, (_, i) => block(`blocks.${i}`, width, heads));
  const [last, modulation] = [linear('final_layer.linear', width, 32), linear('final_layer.adaLN_modulation.1', width, 2 * width)];
  const inputs = ditInputs(work);
  const frequencies = Float32Array.from({ length: 128 }, (_, i) => Math.exp((-Math.log(10000) * i) / 128));
  const [x, y] = [tf.tensor(inputs.x, [batch, size, size, 4]), tf.tidy(() => tf.cast(tf.oneHot(tf.tensor1d(inputs.y, 'int32'), classes + 1), 'float32'))];
  const waves = tf.tensor(Float32Array.from({ length: batch * 256 }, (_, i) => (i % 256 < 128 ? Math.cos : Math.sin)(inputs.t[Math.floor(i / 256)] * frequencies[i % 128])), [batch, 256]);
  const forward = () => {
    const patches = tf.reshape(tf.transpose(tf.reshape(x, [batch * grid, 2, grid, 8]), [0, 2, 1, 3]), [batch, grid * grid, 16]);
    const c = tf.add(time2(silu(time1(waves))), product(y, table));
    let h = tf.add(embed(patches), place);
    for (const run of blocks) h = run(h, c);
    const [shift, scale] = tf.split(modulation(silu(c)), 2, 1);
    const out = last(modulate(norm(h), shift, scale));
    return tf.reshape(tf.transpose(tf.reshape(out, [batch * grid, grid, 2, 16]), [0, 2, 1, 3]), [batch, size, size, 8]);
  };
  return { variables, forward };
}
