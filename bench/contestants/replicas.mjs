// Our training step in worker threads, each of which computes its share of the batch.
import { runReplicas } from '@tinyfusion/distributed/workers';
import { takeTurns } from './turns.mjs';

const shared = new SharedArrayBuffer(16);
const [control, loss] = [new Int32Array(shared, 0, 2), new Float64Array(shared, 8, 1)]; // turns begun, turns done by a thread

await takeTurns((work) => {
  const running = runReplicas(new URL('./replica-step.mjs', import.meta.url), { size: work.threads, workerData: { work, shared } });
  running.catch((error) => {
    console.error(error);
    process.exit(1);
  });
  let turns = 0;
  return async () => {
    turns++;
    Atomics.add(control, 0, 1);
    Atomics.notify(control, 0);
    for (let done = Atomics.load(control, 1); done < turns * work.threads; done = Atomics.load(control, 1)) await Atomics.waitAsync(control, 1, done, 100).value;
    return { check: () => Math.abs(loss[0]) };
  };
});
