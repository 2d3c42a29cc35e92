import type { ProgressEvent } from '@tinyfusion/core';
import { StudioError } from '../client';
import { type Job, state, update } from '../state';
import { failure } from '../failure';
import { interruptQuiet, whenIdle } from './quiet';

/** What a piece of work is given. */
export interface Work {
  readonly signal: AbortSignal;
  progress(event: ProgressEvent): void;
}

/**
 * Does one long piece of work: shown in the bar, announced, and stopped by its button. Nothing else of the kind starts
 * meanwhile.
 * @returns whether it ended well
 */
export async function work(kind: Job['kind'], label: string, act: (work: Work) => Promise<string | undefined>): Promise<boolean> {
  if (state.job !== undefined) return false;
  interruptQuiet();
  const controller = new AbortController();
  const stop = (): void => {
    controller.abort();
    if (state.job !== undefined) update({ job: { ...state.job, stopping: true } });
  };
  update({ job: { kind, label, progress: undefined, from: undefined, stopping: false, stop: kind === 'start' ? undefined : stop }, error: undefined, said: `${label} …` });
  let quarter = 0;
  try {
    const said = await act({
      signal: controller.signal,
      progress: (progress) => {
        if (state.job === undefined) return;
        const done = progress.total === undefined ? 0 : Math.floor((4 * progress.step) / progress.total);
        const tell = done !== quarter && done > 0 && done < 4;
        quarter = done;
        const { from } = state.job;
        const { task, step } = progress;
        update({ job: { ...state.job, progress, from: from?.task === task ? from : { task, step, at: performance.now() } }, ...(tell ? { said: `${label}: ${25 * done} %` } : {}) });
      },
    });
    update({ job: undefined, said: said ?? `${label}: done` });
    return true;
  } catch (error) {
    const stopped = error instanceof StudioError && error.cancelled;
    update({ job: undefined, ...(stopped ? { said: `${label}: stopped` } : failure(error)) });
    return false;
  } finally {
    whenIdle();
  }
}
