// the same in worker threads
import { runReplicas } from '@tinyfusion/distributed/workers';

const [size, steps] = process.argv.slice(2).map(Number);
for (const result of await runReplicas(new URL('./train-tiny.mjs', import.meta.url), { size, workerData: { steps } })) console.log(JSON.stringify(result));
