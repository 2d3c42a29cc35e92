import { type TemplateResult, html, nothing } from 'lit-html';
import { measureModel } from '../actions/measure';
import { type State, amend, update } from '../state';
import { percent } from '../words';
import { numberField, sliderField } from './fields';

/** FID and its kin for both. */
export function measureTab(state: State): TemplateResult {
  const { model, job, measuring, measured } = state;
  if (!model!.hasData) return html`<h3>Measure</h3><p class="note">There are no real images of this model’s kind in the page to compare with. <code>tinyfusion evaluate</code> measures on your own.</p>`;
  const busy = job !== undefined;
  const change = (part: Partial<State['measuring']>): void => amend('measuring', part);
  return html`
    <h3>Measure</h3>
    <p class="lead">Samples against 1000 real images, by the features of a small classifier. Rough: with so few samples FID is too high, for both alike, so compare only rows that were drawn alike.</p>
    <div class="fields">
      ${numberField({ label: 'Samples', value: measuring.count, min: 20, max: 5000, step: 10, disabled: busy, change: (count) => change({ count }) })}
      ${sliderField({ label: 'Steps', value: measuring.steps, min: 2, max: 50, disabled: busy, change: (steps) => change({ steps }) })}
      ${sliderField({ label: 'Guidance', value: measuring.guidance, min: 1, max: 6, step: 0.1, shown: measuring.guidance === 1 ? 'none' : measuring.guidance.toFixed(1), disabled: busy, change: (guidance) => change({ guidance }) })}
    </div>
    <div class="buttons">
      <button type="button" class="button primary" ?disabled=${busy} @click=${() => void measureModel('student')}>Measure the student</button>
      <button type="button" class="button" ?disabled=${busy} @click=${() => void measureModel('teacher')}>Measure the teacher</button>
    </div>
    ${measured.length === 0
      ? nothing
      : html`<div class="scroll" tabindex="0" role="group" aria-label="Measurements">
            <table>
              <thead><tr><th scope="col">Model</th><th scope="col">Blocks</th><th scope="col"><abbr title="Fréchet distance of features; lower is better">FID</abbr></th><th scope="col"><abbr title="Inception score; higher is better">IS</abbr></th><th scope="col"><abbr title="Share of samples that look real">Precision</abbr></th><th scope="col"><abbr title="Share of real images that samples cover">Recall</abbr></th><th scope="col"><abbr title="Share of samples in which the classifier sees the class asked for">Class right</abbr></th><th scope="col">Images/s</th></tr></thead>
              <tbody>${measured.map((row) => html`<tr><th scope="row">${row.name}<small>${row.count} samples${row.steps === undefined ? '' : ` in ${row.steps} steps, guidance ${row.guidance === 1 ? 'none' : row.guidance}`}</small></th><td>${row.blocks}</td><td>${row.fid.toPrecision(3)}</td><td>${row.inceptionScore.toFixed(2)}</td><td>${row.precision.toFixed(2)}</td><td>${row.recall.toFixed(2)}</td><td>${percent(row.agreement)}</td><td>${row.imagesPerSecond.toPrecision(3)}</td></tr>`)}</tbody>
            </table>
          </div>
          <div class="buttons"><button type="button" class="quiet" ?disabled=${busy} @click=${() => update({ measured: [] })}>Clear the table</button></div>`}
  `;
}
