import '@tensorflow/tfjs';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import plain from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm?url';
import simd from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url';
import threaded from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm?url';
import { loadAutoencoder, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT } from '@tinyfusion/models';
import { sampleImages } from '@tinyfusion/recipes';

/** What the worker says. */
export type Sampled = { step: number; total: number } | { backend: string; side: number; images: Uint8Array[] };

const post = (message: Sampled) => self.postMessage(message);

// tfjs looks for its WASM files beside the script; a bundler puts them elsewhere
setWasmPaths({ 'tfjs-backend-wasm.wasm': plain, 'tfjs-backend-wasm-simd.wasm': simd, 'tfjs-backend-wasm-threaded-simd.wasm': threaded });
const { name } = await useBackend({ prefer: 'wasm' });
const [dit, vae] = [await loadDiT(await loadTeacher()), await loadAutoencoderKL(await loadAutoencoder())];
for await (const images of sampleImages(dit, vae, [7, 8, 9], { seed: 1, steps: 6, onStep: ({ step, total }) => post({ step, total }) })) {
  const [count, side] = images.shape;
  const values = await images.data();
  const bytes = Uint8Array.from(values, (v) => Math.round((Math.min(1, Math.max(-1, v)) + 1) * 127.5));
  post({ backend: name, side, images: Array.from({ length: count }, (_, i) => bytes.slice(i * side * side, (i + 1) * side * side)) });
}
