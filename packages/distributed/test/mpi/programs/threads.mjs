// replicas as the first argument says, JSON of what comes of it
import { runReplicas } from '@tinyfusion/distributed/workers';

const workerData = JSON.parse(process.argv[2]);
const stop = new AbortController();
let reports = 0;
if (workerData.abortAfter !== undefined) setTimeout(() => stop.abort(), workerData.abortAfter).unref();
const start = performance.now();
try {
  const results = await runReplicas(new URL('./replica-values.mjs', import.meta.url), { size: 3, workerData, signal: stop.signal, grace: workerData.grace ?? 500, onProgress: () => (reports += 1) });
  console.log(JSON.stringify({ results, reports }));
} catch (error) {
  console.log(JSON.stringify({ error: { code: error.code, message: error.message, cause: error.cause?.message }, seconds: (performance.now() - start) / 1000 }));
}
