import type { Gpu } from './gpu.js';

/** Milliseconds of a pass that are enough to be measured, and runs of it that tfjs would not submit before it ends. */
const [ENOUGH, MOST] = [3, 16];

/** Milliseconds on the device of what `run` records, one dispatch: by the device's own clock where it shows that, else from submit to end. */
export async function timeOf(gpu: Gpu, run: () => void): Promise<number> {
  const once = await pass(gpu, run, 1);
  const count = Math.min(MOST, Math.floor(ENOUGH / once));
  return count <= 1 ? once : (await pass(gpu, run, count)) / count;
}

async function pass(gpu: Gpu, run: () => void, count: number): Promise<number> {
  const { backend, device } = gpu;
  gpu.flush();
  await device.queue.onSubmittedWorkDone();
  const start = performance.now();
  backend.ensureCommandEncoderReady();
  if (backend.supportTimestampQuery) {
    backend.querySet ??= device.createQuerySet({ type: 'timestamp', count: backend.querySetCount });
    backend.computePassEncoder = backend.commandEncoder!.beginComputePass({ timestampWrites: { querySet: backend.querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } });
  }
  for (let i = 0; i < count; i++) run();
  backend.endComputePassEncoder();
  const measured = backend.supportTimestampQuery ? backend.getQueryTime() : backend.submitQueue();
  await device.queue.onSubmittedWorkDone();
  const wall = performance.now() - start;
  const time = (await measured) ?? 0;
  // clocks that show nothing that short, or are reset in between
  return time > 0 && time < wall ? time : wall;
}
