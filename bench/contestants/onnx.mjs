// ONNX Runtime on what we export: `runtime: 'node'` is its own binary, `'web'` its WASM.
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import { AutoencoderKL } from '@tinyfusion/models';
import { exportOnnx } from '@tinyfusion/onnx';
import { writeOnnx } from '@tinyfusion/onnx/node';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startBackend } from './backend.mjs';
import { ditOf, filled, vaeConfig } from './models.mjs';
import { ditInputs, fill, meanMagnitude } from './numbers.mjs';
import { takeTurns } from './turns.mjs';

await takeTurns(async (work) => {
  await startBackend({});
  const { InferenceSession, Tensor, env } = work.runtime === 'node' ? await import('onnxruntime-node') : await import('onnxruntime-web');
  const model = work.work === 'decode' ? filled(new AutoencoderKL(vaeConfig, { init: 'zeros' })) : ditOf(work).dit;
  const threads = work.threads ?? 1;
  let session;
  if (work.runtime === 'web') {
    env.wasm.numThreads = threads;
    session = await InferenceSession.create((await exportOnnx(model)).model, { executionProviders: ['wasm'] });
  } else {
    const folder = mkdtempSync(join(tmpdir(), 'bench-'));
    try {
      await writeOnnx(join(folder, 'model.onnx'), model);
      session = await InferenceSession.create(join(folder, 'model.onnx'), { intraOpNumThreads: threads, interOpNumThreads: 1 });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  model.dispose();
  tf.disposeVariables();
  const feeds = feedsOf(work, Tensor);
  return async () => {
    const { output } = await session.run(feeds, ['output']);
    return { check: () => meanMagnitude(output.data) };
  };
});

function feedsOf(work, Tensor) {
  if (work.work === 'decode') return { x: new Tensor('float32', fill('z', 4 * work.latents ** 2, 1), [1, work.latents, work.latents, 4]) };
  const { x, t, y } = ditInputs(work);
  const { batch, size } = work;
  return { x: new Tensor('float32', x, [batch, size, size, 4]), t: new Tensor('float32', t, [batch]), y: new Tensor('int32', y, [batch]) };
}
