import { call } from '../client';
import type { Who } from '../protocol';
import { ownStudent, state, update } from '../state';
import { chosenBy } from '../words';
import { work } from './work';

/** Draws samples with one of the two, and compares them with real images. */
export async function measureModel(who: Who): Promise<void> {
  const own = ownStudent(state);
  const name = who === 'teacher' ? 'teacher' : own === undefined || own.steps === 0 ? `${chosenBy(state.choice.criterion)}, not recovered` : `${chosenBy(own.choice.criterion)}, ${own.steps === undefined ? 'from a file' : `recovered ${own.steps} steps`}`;
  await work('measure', `Measuring the ${who}`, async ({ signal, progress }) => {
    const row = await call('measure', { who, kept: state.choice.kept, ...state.measuring }, { signal, onEvent: progress });
    update({ measured: [...state.measured, { ...row, name }] });
    return `FID of the ${who}: ${row.fid.toPrecision(3)}`;
  });
}
