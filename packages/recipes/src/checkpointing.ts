import type { Ema } from '@tinyfusion/train';
import type { StateDict } from '@tinyfusion/weights';
import { checkCount } from './check-options.js';
import type { KeepOptions } from './loop.js';

/** Options of recipes whose run can be kept, so that it goes on after whatever ended it. */
export interface Checkpointing<T> {
  /** A run that `checkpoint.save` was given; it must be of the same options. Default: from the start. */
  resume?: StateDict | undefined;
  /**
   * Called every `every` steps, at the end, and where the run is cancelled or fails.
   * `result`: what the recipe would return now; borrowed. `run`: what to resume from, read while it is stored and gone
   * afterwards: for `writeCheckpoint`, which writes any size, or `safetensorsOf`, which makes a file in memory
   */
  checkpoint?: { every: number; save: (result: T, step: number, run: StateDict) => Promise<void> } | undefined;
  /** Called with numbers of each layer, too many for a line of progress: `'layer 0'`, `'keep 3'`. `step`: steps done. */
  onDetail?: ((step: number, values: Readonly<Record<string, number>>) => void) | undefined;
}

/**
 * Keeps a run as its options say.
 * @throws ArgumentError where it is to be saved every so many steps that are no count
 * @param ema averages that are in place while the result is stored
 */
export function keeping<T>({ resume, checkpoint }: Checkpointing<T>, result: (step: number) => T | Promise<T>, ema?: Ema): KeepOptions | undefined {
  if (resume === undefined && checkpoint === undefined) return undefined;
  if (checkpoint !== undefined) checkCount('checkpoint.every', checkpoint.every);
  return {
    resume,
    every: checkpoint?.every ?? Infinity,
    save: async (run, step) => {
      if (checkpoint === undefined) return;
      ema?.swap();
      try {
        await checkpoint.save(await result(step), step, run);
      } finally {
        ema?.swap();
      }
    },
  };
}
