import '@tensorflow/tfjs';
import { parentPort } from 'node:worker_threads';
import { loadAutoencoder, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT } from '@tinyfusion/models';
import { sampleImages } from '@tinyfusion/recipes';

const { name } = await useBackend({ prefer: 'wasm' });
const [dit, vae] = [await loadDiT(await loadTeacher()), await loadAutoencoderKL(await loadAutoencoder())];
for await (const images of sampleImages(dit, vae, [0, 1, 2], { seed: 0, steps: 4 })) {
  parentPort.postMessage({ shape: images.shape, backend: name, pixels: await images.data() });
}
