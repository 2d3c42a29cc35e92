import { call } from '../client';
import type { Choice } from '../protocol';
import { sameBlocks, state, update } from '../state';
import { drawSoon } from './draw';
import { interruptQuiet } from './quiet';
import { work } from './work';

/** Parameters up to which the student is drawn again by itself. */
const QUICK = 5e7;

/** Takes a choice of blocks, and shows what it does. */
export function take(choice: Choice): void {
  interruptQuiet();
  update({ choice, loss: undefined, activations: undefined, record: undefined, error: undefined });
  if (state.model !== undefined && state.model.parameters <= QUICK) drawSoon();
}

export function toggle(block: number): void {
  const { kept } = state.choice;
  const next = kept.includes(block) ? kept.filter((i) => i !== block) : [...kept, block].toSorted((a, b) => a - b);
  let start = 0;
  for (const depth of state.model!.stacks) {
    const [from, to] = [start, (start += depth)];
    if (!next.some((i) => i >= from && i < to)) return update({ error: state.model!.stacks.length === 1 ? 'One block at least has to stay.' : 'One block at least has to stay in the encoder, and one in the decoder.' });
  }
  take({ kept: next, criterion: 'hand' });
}

export const keepAll = (): void => take({ kept: Array.from({ length: state.model!.depth }, (_, i) => i), criterion: 'hand' });

/** Remembers a choice among those tried. */
export function remember(choice: Choice): void {
  update({ tried: [...state.tried.filter((tried) => tried.choice.criterion !== choice.criterion || !sameBlocks(tried.choice, choice)), { choice, loss: undefined }] });
}

/** Lets a criterion choose. */
export async function chooseBy(criterion: string, count: number): Promise<void> {
  let choice: Choice | undefined;
  const well = await work('choose', `Choosing by ${criterion}`, async ({ signal, progress }) => {
    choice = await call('choose', { criterion, count, seed: state.learn.seed }, { signal, onEvent: progress });
    return `${criterion} keeps ${choice.kept.join(', ')}`;
  });
  if (!well || choice === undefined) return;
  remember(choice);
  take(choice);
}

/** Learns which blocks to keep. */
export async function learnChoice({ resume }: { resume: boolean }): Promise<void> {
  if (state.job !== undefined) return;
  const left = resume ? state.left.learn : undefined;
  const settings = left?.settings ?? state.learn;
  const from = left?.step ?? 0;
  update({ learn: settings, moments: state.moments.filter(({ step }) => step <= from), learnLoss: state.learnLoss.filter(([step]) => step <= from) });
  let choice: Choice | undefined;
  const well = await work('learn', 'Learning which blocks to keep', async ({ signal, progress }) => {
    choice = await call(
      'learn',
      { ...settings, resume },
      {
        signal,
        onEvent: (event) => {
          if ('decision' in event) return update({ moments: [...state.moments, event], left: { ...state.left, learn: event.step < settings.steps ? { step: event.step, settings } : undefined } });
          progress(event.progress);
          const { task, step, values } = event.progress;
          if (task === 'learn masks' && values?.['loss'] !== undefined) update({ learnLoss: [...state.learnLoss, [step, values['loss']]] });
        },
      },
    );
    return `Learned: ${choice.kept.join(', ')} stay`;
  });
  if (!well || choice === undefined) return;
  update({ left: { ...state.left, learn: undefined } });
  remember(choice);
  take(choice);
}
