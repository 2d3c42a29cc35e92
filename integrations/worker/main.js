// The main thread is free while a worker samples: it counts its own ticks meanwhile.
import { Worker } from 'node:worker_threads';

const worker = new Worker(new URL('./sampler.js', import.meta.url));
let ticks = 0;
const timer = setInterval(() => ticks++, 10);
worker.once('message', ({ shape, backend }) => {
  clearInterval(timer);
  console.log(`images ${shape.join('×')} on ${backend}, main thread ${ticks > 3 ? 'free' : 'blocked'}`);
});
