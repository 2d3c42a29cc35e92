import { type TemplateResult, html, nothing } from 'lit-html';
import { recoverStudent } from '../actions/recover';
import { type State, amend, ownStudent } from '../state';
import { curve } from './curve';
import { numberField } from './fields';
import { histogram } from './histogram';
import { stopButton } from './stop-button';

/** Recovery by distillation that masks massive activations. */
export function recoverTab(state: State): TemplateResult {
  const { model, job, recover, recoverLoss, left, choice } = state;
  if (!model!.hasData) return html`<h3>Recover the student</h3><p class="note">There are no images of this model’s kind in the page to recover it with. Take the cut model home, and recover it with <code>tinyfusion distill</code>.</p>`;
  const busy = job !== undefined;
  const recovering = job?.kind === 'recover';
  const own = ownStudent(state);
  const change = (part: Partial<State['recover']>): void => amend('recover', part);
  return html`
    <h3>Recover the student</h3>
    <p class="lead">${choice.kept.length === model!.depth ? 'All blocks are on, so there is nothing to recover. Leave some out first.' : `The ${choice.kept.length} blocks that are on become a model of their own, and learn from the teacher: its output, and its hidden states where neither model’s are massive.`}</p>
    ${histogram(state)}
    <div class="fields">
      ${numberField({ label: 'Steps', value: recover.steps, min: 2, max: 100_000, disabled: busy, change: (steps) => change({ steps }) })}
      ${numberField({ label: 'Batch', value: recover.batchSize, min: 2, max: 256, disabled: busy, change: (batchSize) => change({ batchSize }) })}
      ${numberField({ label: 'Learning rate', value: recover.lr, min: 1e-6, max: 0.1, step: 0.0001, disabled: busy, change: (lr) => change({ lr }) })}
      ${numberField({ label: 'Teacher, against truth', value: recover.alpha, min: 0, max: 1, step: 0.05, disabled: busy, change: (alpha) => change({ alpha }) })}
      ${numberField({ label: 'Hidden states', value: recover.beta, min: 0, max: 10, step: 0.01, disabled: busy, change: (beta) => change({ beta }) })}
    </div>
    <div class="buttons">
      ${recovering
        ? stopButton('Stop recovering', job.stop, job.stopping)
        : html`<button type="button" class="button primary" ?disabled=${busy || choice.kept.length === model!.depth} @click=${() => void recoverStudent({ resume: false })}>${own === undefined || own.steps === 0 ? 'Recover' : own.steps === undefined ? 'Recover on' : `Recover on, from ${own.steps} steps`}</button>`}
      ${left.recover !== undefined && !recovering ? html`<button type="button" class="button" ?disabled=${busy} @click=${() => void recoverStudent({ resume: true })}>Go on from step ${left.recover.step} of ${left.recover.settings.steps}</button>` : nothing}
    </div>
    ${recoverLoss.length > 0 || recovering ? curve({ name: 'Loss of recovery', points: recoverLoss, steps: recover.steps }) : nothing}
  `;
}
