import { type TemplateResult, html, nothing } from 'lit-html';
import { chooseBy, learnChoice, take } from '../actions/choose';
import { type State, amend, groupSizes, sameBlocks } from '../state';
import { curve } from './curve';
import { decisionPlot, gates } from './decisions';
import { chosenBy } from '../words';
import { numberField, selectField } from './fields';
import { stopButton } from './stop-button';

const measured: readonly (readonly [criterion: string, name: string, why: string])[] = [
  ['block influence', 'Block influence', 'ShortGPT: blocks that turn their input the least go'],
  ['taylor', 'Taylor', 'by gradient times weight, to first order'],
  ['sensitivity', 'Sensitivity', 'by the loss without each block alone'],
  ['block error', 'Block error', 'by how far a block moves its input'],
  ['CKA intervals', 'CKA intervals', 'runs of blocks that say the same'],
];
const blind: readonly (readonly [criterion: string, name: string, why: string])[] = [
  ['oracle', 'Oracle', 'BK-SDM’s: of each pair the first stays in the first half, the last in the second'],
  ['uniform', 'Uniform', 'evenly spaced'],
  ['first', 'First', 'the first half'],
  ['random', 'Random', 'drawn with the seed of learning'],
];

/** How to choose blocks: by learning, or by a rule. */
export function chooseTab(state: State): TemplateResult {
  const { model, job, learn, moments, learnLoss, left, choice, tried } = state;
  const busy = job !== undefined;
  const depth = model!.depth;
  const groups = groupSizes(model!);
  const learning = job?.kind === 'learn';
  const change = (part: Partial<State['learn']>): void => amend('learn', part);
  return html`
    <h3>Learn which blocks to keep</h3>
    <p class="lead">Masks are drawn at random, while small adapters stand in for the recovery to come. Gates learn which blocks the model can do without <em>after</em> that, not which hurt least right now.</p>
    ${!model!.hasData || groups.length === 0
      ? html`<p class="note">${model!.hasData ? `${depth} blocks do not divide into groups.` : 'There are no images of this model’s kind in the page to learn from.'}</p>`
      : html`
          <div class="fields">
            ${selectField({ label: 'Keep', value: learn.group, options: groups.map((size) => [size, `${size / 2} of every ${size}`] as const), disabled: busy, change: (group) => change({ group }) })}
            ${numberField({ label: 'Steps', value: learn.steps, min: 2, max: 10_000, disabled: busy, change: (steps) => change({ steps }) })}
            ${numberField({ label: 'Batch', value: learn.batchSize, min: 2, max: 256, disabled: busy, change: (batchSize) => change({ batchSize }) })}
            ${numberField({ label: 'Seed', value: learn.seed, min: 0, max: 2 ** 31, disabled: busy, change: (seed) => change({ seed }) })}
          </div>
          <div class="buttons">
            ${learning
              ? stopButton('Stop learning', job.stop, job.stopping)
              : html`<button type="button" class="button primary" ?disabled=${busy} @click=${() => void learnChoice({ resume: false })}>Learn</button>`}
            ${left.learn !== undefined && !learning ? html`<button type="button" class="button" ?disabled=${busy} @click=${() => void learnChoice({ resume: true })}>Go on from step ${left.learn.step} of ${left.learn.settings.steps}</button>` : nothing}
          </div>
          ${moments.length > 0 || learning ? html`${decisionPlot(moments, learn.steps, depth)}${gates(moments.at(-1))}${curve({ name: 'Loss under masks', points: learnLoss, steps: learn.steps })}` : nothing}
        `}
    <h3>Or by a rule</h3>
    <div class="rules">
      ${[...(model!.hasData ? measured : []), ...blind].map(([criterion, name, why]) => html`<button type="button" class="rule" ?disabled=${busy} @click=${() => void chooseBy(criterion, keepCount(state))}><b>${name}</b><span>${why}</span></button>`)}
    </div>
    <p class="muted">Rules keep as many blocks as are on now, ${keepCount(state)} of ${depth}${choice.kept.length === depth ? ' (all are on, so half)' : ''}.</p>
    ${tried.length === 0
      ? nothing
      : html`<h3>Tried so far</h3>
          <ul class="tried">
            ${tried.map(
              (one) => html`<li>
                <button type="button" aria-current=${sameBlocks(one.choice, choice)} ?disabled=${busy} @click=${() => take(one.choice)}>
                  <span class="name">${chosenBy(one.choice.criterion)}</span>
                  <span class="glyph" aria-hidden="true">${Array.from({ length: depth }, (_, i) => html`<i class=${one.choice.kept.includes(i) ? 'on' : ''}></i>`)}</span>
                  <span class="hidden">keeps ${one.choice.kept.join(', ')}</span>
                  <span class="loss">${one.loss === undefined ? '' : one.loss.toFixed(4)}</span>
                </button>
              </li>`,
            )}
          </ul>
          <p class="muted">The number is the loss right after the cut. A learned choice may start worse, and recover better.</p>`}
  `;
}

const keepCount = ({ choice, model }: State): number => (choice.kept.length === model!.depth ? Math.max(1, Math.floor(model!.depth / 2)) : choice.kept.length);
