// Sampling in a thread of its own: the main one stays free, sees every step, and may stop it at any time.
import '@tensorflow/tfjs';
import { writeFile } from 'node:fs/promises';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { loadAutoencoder, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT } from '@tinyfusion/models';
import { gridPng, sampleImages } from '@tinyfusion/recipes';

type Message = { step: number; total: number } | { png: Uint8Array } | { stopped: true };

if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url));
  const stopAfter = Number(process.argv[2] ?? Infinity);
  worker.on('error', (error) => {
    throw error;
  });
  worker.on('message', (message: Message) => {
    if ('step' in message) {
      console.log(`step ${message.step} of ${message.total}`);
      if (message.step === stopAfter) worker.postMessage('stop');
    } else if ('png' in message) void writeFile('from-worker.png', message.png).then(() => console.log('→ from-worker.png'));
    else console.log('stopped');
  });
} else {
  const port = parentPort!;
  const stop = new AbortController();
  port.once('message', () => stop.abort());
  const post = (message: Message) => port.postMessage(message);
  await useBackend({ prefer: 'wasm' });
  const [dit, vae] = [await loadDiT(await loadTeacher()), await loadAutoencoderKL(await loadAutoencoder())];
  try {
    for await (const images of sampleImages(dit, vae, [7, 8, 9], { seed: 1, steps: 10, signal: stop.signal, onStep: ({ step, total }) => post({ step, total }) })) post({ png: await gridPng(images) });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    post({ stopped: true });
  }
  port.close();
}
