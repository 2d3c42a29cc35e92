import { StudioError, call } from '../client';
import { failure } from '../failure';
import type { DrawEvent, Who } from '../protocol';
import { ownStudent, state, update } from '../state';
import { interruptQuiet, whenIdle } from './quiet';

let running: AbortController | undefined;
let soon: ReturnType<typeof setTimeout> | undefined;

/** What the student is at the moment, in a few words. */
function studentNow(): string {
  const own = ownStudent(state);
  const how = (): string => {
    if (own === undefined) return state.choice.kept.length === state.model?.depth ? 'the same as the teacher' : 'cut, not recovered';
    return own.steps === undefined ? 'from a file' : own.steps === 0 ? 'cut, not recovered' : `recovered, ${own.steps} steps`;
  };
  return `${state.choice.kept.length} blocks, ${how()}`;
}

/** Draws with the student in a moment, as several clicks are one choice; work that has begun by then ends first. */
export function drawSoon(): void {
  clearTimeout(soon);
  soon = setTimeout(() => (state.job === undefined ? void drawPictures(['student']) : drawSoon()), 350);
}

/** Draws with one or both from the same noise; a drawing that is under way ends first. */
export async function drawPictures(who: readonly Who[] = ['teacher', 'student']): Promise<void> {
  if (state.model === undefined || state.job !== undefined || state.draw.labels.length === 0) return;
  clearTimeout(soon);
  running?.abort();
  interruptQuiet();
  const own = new AbortController();
  running = own;
  const settings = state.draw;
  // drawn otherwise, what is there fits no longer; and a teacher that was interrupted ends its own
  const same = settings === state.shown.draw;
  const { teacher } = state.pictures;
  const all = same && teacher !== undefined && teacher.step === teacher.total ? who : (['teacher', 'student'] as const);
  const student = studentNow();
  update({ drawing: true, preparing: {}, ...(same ? {} : { pictures: {}, shown: { draw: settings, student } }) });
  const onEvent = (event: DrawEvent): void => {
    if (own.signal.aborted) return;
    if ('prepared' in event) update({ preparing: { ...state.preparing, [event.who]: event } });
    else update({ pictures: { ...state.pictures, [event.who]: event }, ...(event.who === 'student' ? { shown: { draw: settings, student } } : {}) });
  };
  try {
    await call('draw', { ...settings, who: all, kept: state.choice.kept }, { signal: own.signal, onEvent });
    if (running === own) update({ said: `${all.length === 2 ? 'Teacher and student have' : `The ${all[0]} has`} drawn ${settings.labels.length} pictures` });
  } catch (error) {
    if (!(error instanceof StudioError && error.cancelled)) update(failure(error));
  } finally {
    if (running === own) {
      running = undefined;
      update({ drawing: false });
      whenIdle();
    }
  }
}

export const stopDrawing = (): void => running?.abort();
