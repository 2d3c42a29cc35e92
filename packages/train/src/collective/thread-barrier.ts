import { TinyFusionError } from '@tinyfusion/core';

/** Places of the numbers that threads share. */
const [ARRIVED, GENERATION, GONE] = [0, 1, 2];
export const [SIZE, CAPACITY] = [3, 4];

/** How often a thread looks before it sleeps: the others are seldom far behind. */
const SPINS = 2000;
/** Longest sleep, ms, in case a wake-up is lost. */
const SLEEP = 20;

/** Settles when as many threads as there are have come here. @throws TinyFusionError `RANK_FAILED` where one will not come */
export async function threadBarrier(control: Int32Array<SharedArrayBuffer>): Promise<void> {
  const generation = Atomics.load(control, GENERATION!);
  checkOthers(control);
  if (Atomics.add(control, ARRIVED!, 1) + 1 === Atomics.load(control, SIZE!)) {
    Atomics.store(control, ARRIVED!, 0);
    Atomics.add(control, GENERATION!, 1);
    Atomics.notify(control, GENERATION!);
    return;
  }
  for (let i = 0; i < SPINS && Atomics.load(control, GENERATION!) === generation; i++);
  if (Atomics.load(control, GENERATION!) === generation) {
    // a sleeping thread does not keep its event loop alive by itself
    const awake = setInterval(() => {}, 1000);
    try {
      // where all have come, it does not matter what became of one of them since
      while (Atomics.load(control, GENERATION!) === generation) {
        checkOthers(control);
        await sleep(control, generation);
      }
    } finally {
      clearInterval(awake);
    }
  }
}

/** Lets everybody who waits, now or later, know that a rank will not come: it has failed, or has returned. */
export function markGone(control: Int32Array<SharedArrayBuffer>, rank: number, how: 'failed' | 'returned'): void {
  Atomics.compareExchange(control, GONE!, 0, how === 'failed' ? rank + 1 : -rank - 1);
  Atomics.notify(control, GENERATION!);
}

function checkOthers(control: Int32Array<SharedArrayBuffer>): void {
  const gone = Atomics.load(control, GONE!);
  if (gone === 0) return;
  const why = gone > 0 ? 'has failed, so the others cannot go on; its own error says why' : 'has returned, and the others wait for it; every rank has to make the same calls';
  throw new TinyFusionError('RANK_FAILED', `rank ${Math.abs(gone) - 1} of ${Atomics.load(control, SIZE!)} ${why}`);
}

type WaitAsync = (array: Int32Array<SharedArrayBuffer>, index: number, value: number, timeout: number) => { async: boolean; value: string | Promise<string> };

async function sleep(control: Int32Array<SharedArrayBuffer>, generation: number): Promise<void> {
  const { waitAsync } = Atomics as { waitAsync?: WaitAsync };
  if (waitAsync === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
  else await waitAsync(control, GENERATION!, generation, SLEEP).value;
}
