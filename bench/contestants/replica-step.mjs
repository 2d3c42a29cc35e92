// What a thread of replicas.mjs does.
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import { AdamW, lossAndGradients, reduceGradients } from '@tinyfusion/train';
import { startBackend } from './backend.mjs';
import { ditOf } from './models.mjs';

export async function run({ rank, size, collective, data: { work, shared } }) {
  const [control, result] = [new Int32Array(shared, 0, 2), new Float64Array(shared, 8, 1)];
  await startBackend({});
  const { dit, ...inputs } = ditOf(work);
  const share = work.batch / size;
  const [x, t, y] = ['x', 't', 'y'].map((name) => tf.slice(inputs[name], [rank * share, ...inputs[name].shape.slice(1).map(() => 0)], [share, ...inputs[name].shape.slice(1)]));
  const parameters = dit.parameters();
  const optimizer = new AdamW(parameters);
  for (let turn = 1; ; turn++) {
    while (Atomics.load(control, 0) < turn) Atomics.wait(control, 0, turn - 1);
    const { loss, gradients } = lossAndGradients(() => tf.mean(tf.square(dit.forward(x, t, y))), parameters);
    const reduced = await reduceGradients(collective, gradients);
    optimizer.step(reduced, { lr: 1e-4 });
    const mean = Float64Array.from(await loss.data());
    tf.dispose([loss, ...gradients, ...reduced]);
    await collective.allReduce(mean, 'mean');
    if (rank === 0) result[0] = mean[0];
    Atomics.add(control, 1, 1);
    Atomics.notify(control, 1);
  }
}
