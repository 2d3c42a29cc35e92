// Ours and ONNX Runtime's on the same exported model, in turns, in the page that is asked: `contest(options)`.
import '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-webgpu';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import plain from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm?url';
import simd from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url';
import threaded from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm?url';
import { useBackend } from '@tinyfusion/kernels';
import { exportOnnx } from '@tinyfusion/onnx';
import * as wasmRuntime from 'onnxruntime-web/wasm';
import wasmFile from 'onnxruntime-web/ort-wasm-simd-threaded.wasm?url';
import { ditOf } from '../contestants/models.mjs';
import { ditInputs, meanMagnitude } from '../contestants/numbers.mjs';

setWasmPaths({ 'tfjs-backend-wasm.wasm': plain, 'tfjs-backend-wasm-simd.wasm': simd, 'tfjs-backend-wasm-threaded-simd.wasm': threaded });

/** Milliseconds of every run of both, and what they computed. */
globalThis.contest = async ({ backend, work, runs }) => {
  await useBackend({ prefer: backend });
  const { dit, x, t, y } = ditOf(work);
  const runtime = backend === 'wasm' ? wasmRuntime : await import('onnxruntime-web/webgpu');
  if (backend === 'wasm') [runtime.env.wasm.wasmPaths, runtime.env.wasm.numThreads] = [{ wasm: new URL(wasmFile, location.href).href }, 1];
  const session = await runtime.InferenceSession.create((await exportOnnx(dit)).model, { executionProviders: [backend] });
  const inputs = ditInputs(work);
  const tensor = (type, values, ...shape) => new runtime.Tensor(type, values, shape);
  const feeds = { x: tensor('float32', inputs.x, work.batch, work.size, work.size, 4), t: tensor('float32', inputs.t, work.batch), y: tensor('int32', inputs.y, work.batch) };
  const contestants = {
    ours: async () => {
      const output = dit.forward(x, t, y);
      const values = await output.data();
      output.dispose();
      return values;
    },
    theirs: async () => (await session.run(feeds, ['output'])).output.getData(),
  };
  const times = { ours: [], theirs: [] };
  const checks = {};
  for (let run = -2; run < runs; run++) {
    for (const [name, pass] of Object.entries(contestants)) {
      const from = performance.now();
      const values = await pass();
      if (run >= 0) times[name].push(performance.now() - from);
      checks[name] = meanMagnitude(values);
    }
    globalThis.progress?.(run + 2, runs + 2);
  }
  const adapter = backend === 'webgpu' ? (await navigator.gpu.requestAdapter())?.info : undefined;
  return { times, checks, adapter: adapter && [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean).join(' ') };
};
