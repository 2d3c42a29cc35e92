import { StudioError, call } from '../client';
import { failure } from '../failure';
import { state, update } from '../state';

/**
 * What the page finds out by itself while nobody wants anything: the loss of the present choice, where activations lie
 * when the tab shows them, and what each block costs. Any work comes first; what was interrupted starts again afterwards, and losses that are known stay known.
 */

let running: AbortController | undefined;
let waiting: ReturnType<typeof setTimeout> | undefined;

export function interruptQuiet(): void {
  clearTimeout(waiting);
  running?.abort();
}

/** Looks, in a moment, for something to find out. */
export function whenIdle(): void {
  clearTimeout(waiting);
  waiting = setTimeout(() => void next(), 150);
}

async function next(): Promise<void> {
  const { model, job, drawing, loss, student, studentLoss, costs, choice, tab, activations } = state;
  if (model === undefined || job !== undefined || drawing || running !== undefined) return;
  // a block of a large model takes seconds: it is asked for, not found out
  if (model.parameters > 5e7) return;
  const own = new AbortController();
  running = own;
  try {
    if (loss === undefined && model.hasData) {
      update({ loss: '…' });
      const measured = await call('lossOf', { kept: choice.kept }, { signal: own.signal });
      if (state.choice === choice) update({ loss: measured, tried: state.tried.map((tried) => (String(tried.choice.kept) === String(choice.kept) ? { ...tried, loss: measured } : tried)) });
    } else if (student !== undefined && studentLoss === undefined && model.hasData) {
      update({ studentLoss: '…' });
      const measured = await call('studentLoss', {}, { signal: own.signal });
      if (state.student === student) update({ studentLoss: measured });
    } else if (tab === 'recover' && activations === undefined && model.hasData) {
      const seen = await call('activations', { kept: choice.kept }, { signal: own.signal });
      if (state.choice === choice && state.student === student) update({ activations: seen });
    } else if (costs === undefined) update({ costs: await call('blockCosts', {}, { signal: own.signal }) });
    else return;
    whenIdle();
  } catch (error) {
    update({ ...(state.loss === '…' ? { loss: undefined } : {}), ...(state.studentLoss === '…' ? { studentLoss: undefined } : {}) });
    if (error instanceof StudioError && error.cancelled) whenIdle();
    else update(failure(error));
  } finally {
    running = undefined;
  }
}
