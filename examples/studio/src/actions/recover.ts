import { call } from '../client';
import { state, update } from '../state';
import { drawPictures } from './draw';
import { work } from './work';

/** Looks at the activations of teacher and student. */
export async function lookAtActivations(): Promise<void> {
  const { choice } = state;
  await work('activations', 'Looking at activations', async ({ signal }) => {
    const activations = await call('activations', { kept: choice.kept }, { signal });
    update({ activations });
    return activations.proposed.why;
  });
}

/** Recovers the student of the present choice. */
export async function recoverStudent({ resume }: { resume: boolean }): Promise<void> {
  const left = resume ? state.left.recover : undefined;
  const settings = left?.settings ?? state.recover;
  const choice = left?.choice ?? state.choice;
  const from = left?.step ?? 0;
  update({ choice, recover: settings, recoverLoss: state.recoverLoss.filter(([step]) => step <= from), ...(left === undefined ? {} : { loss: undefined }) });
  const well = await work('recover', 'Recovering the student', async ({ signal, progress }) => {
    const student = await call(
      'recover',
      { ...settings, choice, resume, shown: state.draw },
      {
        signal,
        onEvent: (event) => {
          if ('pixels' in event) {
            const { labels } = state.draw;
            const teacher = String(labels) === String(state.shown.labels) ? state.pictures.teacher : undefined;
            const student = { who: 'student', step: 1, total: 1, pixels: event.pixels, seconds: 0 } as const;
            return update({ shown: { labels, student: `after ${event.step} steps` }, pictures: { ...(teacher === undefined ? {} : { teacher }), student }, left: { ...state.left, recover: event.step < settings.steps ? { step: event.step, settings, choice } : undefined } });
          }
          progress(event.progress);
          const { task, step, values } = event.progress;
          if (task === 'recover' && values?.['loss'] !== undefined) update({ recoverLoss: [...state.recoverLoss, [step, values['loss']]] });
        },
      },
    );
    update({ student, studentLoss: undefined, choice: student.choice, activations: undefined, left: { ...state.left, recover: undefined } });
    return `Recovered in ${settings.steps} steps`;
  });
  if (!well) {
    // what was stopped is kept, and is the student so far
    const { student, recover } = await call('restore', {});
    update({ student, studentLoss: undefined, left: { ...state.left, recover } });
  }
  void drawPictures(['student']);
}
