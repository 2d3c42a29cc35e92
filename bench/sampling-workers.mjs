// Images a second of several worker threads against one, in turns in one run: the embedded teacher on WASM, with the autoencoder.
//   node bench/sampling-workers.mjs [--workers N] [--images N] [--batch N] [--runs N]   (after pnpm build; about a minute)
import '@tensorflow/tfjs';
import { cpus } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import { parseArgs } from 'node:util';
import { runReplicas } from '@tinyfusion/distributed/workers';
import { loadAutoencoder, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadModel } from '@tinyfusion/models';
import { sampleImages } from '@tinyfusion/recipes';

/** One thread's share of the images: seconds from when all threads are warm until all are done, and seconds of processors meanwhile. */
export async function run({ rank, size, collective, data: { images, batch } }) {
  await useBackend({ prefer: 'wasm' });
  const [model, vae] = [await loadModel(await loadTeacher('DiT')), await loadAutoencoderKL(await loadAutoencoder())];
  const draw = async (count, share) => {
    for await (const drawn of sampleImages(model, vae, new Int32Array(count), { seed: 0, steps: 20, guidance: 2.5, batchSize: batch, share })) {
      await drawn.data();
      drawn.dispose();
    }
  };
  await draw(batch, { rank: 0, size: 1 });
  await collective.barrier();
  const [from, before] = [performance.now(), process.cpuUsage()];
  await draw(images, { rank, size });
  await collective.barrier();
  const { user, system } = process.cpuUsage(before); // of all threads
  return { seconds: (performance.now() - from) / 1000, processor: (user + system) / 1e6 };
}

if (isMainThread) {
  const { values } = parseArgs({ options: { workers: { type: 'string', default: '2' }, images: { type: 'string', default: '64' }, batch: { type: 'string', default: '16' }, runs: { type: 'string', default: '3' } } });
  const [workers, images, batch, runs] = ['workers', 'images', 'batch', 'runs'].map((name) => Number(values[name]));
  if (![workers, images, batch, runs].every((n) => Number.isInteger(n) && n > 0)) throw new Error('expected positive integers');
  const [rates, processor] = [{ one: [], several: [] }, { one: [], several: [] }];
  for (let i = 0; i < runs; i++) {
    for (const [name, size] of [['one', 1], ['several', workers]]) {
      const [used] = await runReplicas(new URL(import.meta.url), { size, workerData: { images, batch } });
      rates[name].push(images / used.seconds);
      processor[name].push(used.processor);
    }
  }
  const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
  const [one, several] = [median(rates.one), median(rates.several)];
  console.log(`${cpus().length} × ${cpus()[0].model}, Node ${process.versions.node}, ${images} images of 20 steps in batches of ${batch}, ${runs} runs`);
  console.log(`1 thread ${one.toFixed(2)} images/s, ${workers} threads ${several.toFixed(2)} images/s: ${(several / one).toFixed(2)} times (by run: ${rates.several.map((r, i) => (r / rates.one[i]).toFixed(2)).join(', ')})`);
  // where something else runs on the machine, its share of processors decides; what an image takes of them does not depend on it
  console.log(`processor time of an image: ${((1000 * median(processor.one)) / images).toFixed(0)} ms with 1 thread, ${((1000 * median(processor.several)) / images).toFixed(0)} ms with ${workers}`);
}
