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
  if (state.job !== undefined) return;
  const left = resume ? state.left.recover : undefined;
  const settings = left?.settings ?? state.recover;
  const choice = left?.choice ?? state.choice;
  const from = left?.step ?? 0;
  const { draw } = state;
  update({ choice, recover: settings, recoverLoss: state.recoverLoss.filter(([step]) => step <= from), ...(left === undefined ? {} : { loss: undefined, activations: undefined, record: undefined }) });
  await work('recover', 'Recovering the student', async ({ signal, progress }) => {
    const recovered = call(
      'recover',
      { ...settings, choice, resume, shown: draw },
      {
        signal,
        onEvent: (event) => {
          if ('pixels' in event) {
            const teacher = draw === state.shown.draw ? state.pictures.teacher : undefined;
            const student = { who: 'student', step: 1, total: 1, pixels: event.pixels, seconds: 0 } as const;
            return update({ shown: { draw, student: `${choice.kept.length} blocks, after ${event.step} steps` }, pictures: { ...(teacher === undefined ? {} : { teacher }), student }, left: { ...state.left, recover: event.step < settings.steps ? { step: event.step, settings, choice } : undefined } });
          }
          progress(event.progress);
          const { task, step, values } = event.progress;
          if (task === 'recover' && values?.['loss'] !== undefined) update({ recoverLoss: [...state.recoverLoss, [step, values['loss']]] });
        },
      },
    );
    try {
      const student = await recovered;
      update({ student, choice: student.choice, left: { ...state.left, recover: undefined } });
    } catch (error) {
      // what was stopped is kept, and is the student so far
      const { student, recover } = await call('left', {});
      update({ student, left: { ...state.left, recover } });
      throw error;
    } finally {
      update({ studentLoss: undefined, activations: undefined });
    }
    return `Recovered in ${settings.steps} steps`;
  });
  void drawPictures(['student']);
}
