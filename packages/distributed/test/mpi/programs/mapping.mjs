// items drawn by any number of threads; loaded as the module that maps, too
import { mapOverWorkers } from '@tinyfusion/distributed/workers';
import { isMainThread } from 'node:worker_threads';

export async function start({ factor }) {
  return async (item, rng) => {
    if (item === 'bad') throw new Error('cannot be drawn');
    await new Promise((resolve) => setTimeout(resolve, 10 * (item % 3)));
    return { item: factor * item, drawn: [...rng.normal(3)] };
  };
}

if (isMainThread) {
  const [workers, bad] = [Number(process.argv[2]), process.argv[3]];
  const items = Array.from({ length: 10 }, (_, i) => (bad !== undefined && i === 4 ? 'bad' : i));
  let reports = 0;
  try {
    const results = await mapOverWorkers(new URL(import.meta.url), items, { workers, seed: 5, workerData: { factor: 10 }, onProgress: ({ step, total }) => (reports = step / total) });
    console.log(JSON.stringify({ results, reports }));
  } catch (error) {
    console.log(JSON.stringify({ error: { code: error.code, message: error.message } }));
  }
}
