// jax-js on its WASM device, the forward pass compiled by `jit`.
import { blockUntilReady, defaultDevice, init, jit, nn, numpy as np } from '@jax-js/jax';
import { deviationOf, ditInputs, fill, meanMagnitude } from './numbers.mjs';
import { takeTurns } from './turns.mjs';

await init('wasm');
defaultDevice('wasm');
await takeTurns((work) => {
  if (work.work === 'product') {
    const { batch, m, n, k, transposed } = work;
    const outer = batch === undefined ? [] : [batch];
    const [a, b] = [array('a', [...outer, m, k], 1), array('b', [...outer, ...(transposed ? [n, k] : [k, n])], 1)];
    const run = jit((x, y) => np.matmul(x, transposed ? np.swapaxes(y, -1, -2) : y));
    return async () => checked(run(a.ref, b.ref));
  }
  const { parameters, forward } = modelOf(work);
  const run = jit(forward);
  const inputs = ditInputs(work);
  const waves = wavesOf(inputs.t);
  const x = np.array(inputs.x).reshape([work.batch, work.size, work.size, 4]);
  const y = np.array(inputs.y, { dtype: np.int32 });
  return async () => checked(run(Object.fromEntries(Object.entries(parameters).map(([name, p]) => [name, p.ref])), x.ref, waves.ref, y.ref));
});

async function checked(result) {
  const ready = await blockUntilReady(result);
  return { check: async () => meanMagnitude(await ready.data()) };
}

function array(name, shape, deviation) {
  return np.array(fill(name, shape.reduce((a, b) => a * b, 1), deviation)).reshape(shape);
}

function wavesOf(t) {
  const values = Float32Array.from({ length: t.length * 256 }, (_, i) => (i % 256 < 128 ? Math.cos : Math.sin)(t[Math.floor(i / 256)] * Math.exp((-Math.log(10000) * (i % 128)) / 128)));
  return np.array(values).reshape([t.length, 256]);
}

function modelOf({ width, depth, heads, size, batch, classes = 1000 }) {
  const grid = size / 2;
  const tokens = grid * grid;
  const parameters = {};
  const add = (name, shape) => (parameters[name] = array(name, shape, deviationOf(shape)));
  const layer = (name, inputs, outputs) => (add(`${name}.weight`, [outputs, inputs]), add(`${name}.bias`, [outputs]));
  add('x_embedder.proj.weight', [width, 4, 2, 2]);
  add('x_embedder.proj.bias', [width]);
  layer('t_embedder.mlp.0', 256, width);
  layer('t_embedder.mlp.2', width, width);
  add('y_embedder.embedding_table.weight', [classes + 1, width]);
  add('pos_embed', [1, tokens, width]);
  for (let i = 0; i < depth; i++) for (const [part, a, b] of [['attn.qkv', width, 3 * width], ['attn.proj', width, width], ['mlp.fc1', width, 4 * width], ['mlp.fc2', 4 * width, width], ['adaLN_modulation.1', width, 6 * width]]) layer(`blocks.${i}.${part}`, a, b);
  layer('final_layer.linear', width, 32);
  layer('final_layer.adaLN_modulation.1', width, 2 * width);

  const forward = (p, x, waves, y) => {
    const linear = (name, h) => np.matmul(h, p[`${name}.weight`].transpose()).add(p[`${name}.bias`]);
    const modulated = (h, shift, scale) => nn.standardize(h, -1, { epsilon: 1e-6 }).mul(np.expandDims(scale, 1).add(1)).add(np.expandDims(shift, 1));
    const silu = (h) => nn.silu(h);
    const patches = x.reshape([batch * grid, 2, grid, 8]).transpose([0, 2, 1, 3]).reshape([batch, tokens, 16]);
    // patches are (row, column, channel) here, and (channel, row, column) in the checkpoint
    const embed = p['x_embedder.proj.weight'].transpose([2, 3, 1, 0]).reshape([16, width]);
    let h = np.matmul(patches, embed).add(p['x_embedder.proj.bias']).add(p['pos_embed']);
    const c = linear('t_embedder.mlp.2', silu(linear('t_embedder.mlp.0', waves))).add(np.matmul(nn.oneHot(y, classes + 1), p['y_embedder.embedding_table.weight']));
    const headsOf = (part) => part.reshape([batch, tokens, heads, width / heads]).transpose([0, 2, 1, 3]);
    for (let i = 0; i < depth; i++) {
      const at = `blocks.${i}`;
      const [shift1, scale1, gate1, shift2, scale2, gate2] = np.split(linear(`${at}.adaLN_modulation.1`, silu(c.ref)), 6, 1);
      const [q, k, v] = np.split(linear(`${at}.attn.qkv`, modulated(h.ref, shift1, scale1)), 3, 2).map(headsOf);
      const weights = nn.softmax(np.matmul(q, k.transpose([0, 1, 3, 2])).mul((width / heads) ** -0.5), -1);
      const o = np.matmul(weights, v).transpose([0, 2, 1, 3]).reshape([batch, tokens, width]);
      h = h.add(np.expandDims(gate1, 1).mul(linear(`${at}.attn.proj`, o)));
      const hidden = nn.gelu(linear(`${at}.mlp.fc1`, modulated(h.ref, shift2, scale2)), { approximate: true });
      h = h.add(np.expandDims(gate2, 1).mul(linear(`${at}.mlp.fc2`, hidden)));
    }
    const [shift, scale] = np.split(linear('final_layer.adaLN_modulation.1', silu(c)), 2, 1);
    const out = linear('final_layer.linear', modulated(h, shift, scale));
    return out.reshape([batch * grid, grid, 2, 16]).transpose([0, 2, 1, 3]).reshape([batch, size, size, 8]);
  };
  return { parameters, forward };
}
