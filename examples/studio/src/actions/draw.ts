import { StudioError, call } from '../client';
import { failure } from '../failure';
import type { Who } from '../protocol';
import { ownStudent, state, update } from '../state';
import { interruptQuiet, whenIdle } from './quiet';

let running: AbortController | undefined;
let queue: Promise<void> = Promise.resolve();

/** What the student is at the moment, in a few words. */
function studentNow(): string {
  const own = ownStudent(state);
  if (own === undefined) return state.choice.kept.length === state.model?.depth ? 'all blocks, the same as the teacher' : 'cut, not recovered';
  return own.steps === undefined ? 'from a file' : own.steps === 0 ? 'cut, not recovered' : `recovered, ${own.steps} steps`;
}

/** Draws with one or both from the same noise; a drawing that is under way ends first. */
export async function drawPictures(who: readonly Who[] = ['teacher', 'student']): Promise<void> {
  if (state.model === undefined || state.job !== undefined) return;
  running?.abort();
  interruptQuiet();
  const own = new AbortController();
  running = own;
  const settings = state.draw;
  // another grid: what was drawn before fits no longer
  const both = String(settings.labels) !== String(state.shown.labels) ? (['teacher', 'student'] as const) : who;
  update({ drawing: true, preparing: {}, shown: { labels: settings.labels, student: studentNow() }, ...(both.length === 2 && who.length === 1 ? { pictures: {} } : {}) });
  const done = (async () => {
    try {
      await call('draw', { ...settings, who: both, kept: state.choice.kept }, { signal: own.signal, onEvent: (event) => own.signal.aborted || update('prepared' in event ? { preparing: { ...state.preparing, [event.who]: event } } : { pictures: { ...state.pictures, [event.who]: event } }) });
      if (running === own) update({ said: `${both.length === 2 ? 'Teacher and student have' : `The ${both[0]} has`} drawn ${settings.labels.length} pictures` });
    } catch (error) {
      if (!(error instanceof StudioError && error.cancelled)) update(failure(error));
    } finally {
      if (running === own) {
        running = undefined;
        update({ drawing: false });
        whenIdle();
      }
    }
  })();
  queue = done;
  await queue;
}

export const stopDrawing = (): void => running?.abort();
