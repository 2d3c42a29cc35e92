import { type TemplateResult, html, nothing } from 'lit-html';
import { type State, update } from '../state';
import { duration, whole } from '../words';

/** What runs now, how far it is, and its end. */
export function bar({ job, error }: State): TemplateResult {
  return html`<div class="dock">
    ${error === undefined
      ? nothing
      : html`<div class="error" role="alert">
          <p>${error}</p>
          <button type="button" class="quiet" aria-label="Close this message" @click=${() => update({ error: undefined })}>✕</button>
        </div>`}
    ${job === undefined ? nothing : running(job)}
  </div>`;
}

function running({ label, progress, from, stopping, stop }: NonNullable<State['job']>): TemplateResult {
  const { step = 0, total, values, task, unit } = progress ?? {};
  const share = total === undefined ? undefined : step / total;
  const [passed, taken] = from === undefined ? [0, 0] : [(performance.now() - from.at) / 1000, step - from.step];
  const leftover = total === undefined || taken < 2 || passed < 2 ? undefined : (passed / taken) * (total - step);
  const parts = [...(progress === undefined ? [] : [`${task}: ${unit} ${whole(step)}${total === undefined ? '' : ` of ${whole(total)}`}`]), ...(values?.['loss'] === undefined ? [] : [`loss ${values['loss'].toFixed(4)}`]), ...(leftover === undefined || leftover < 1 ? [] : [`about ${duration(leftover)} left`])];
  return html`<div class="job">
    <progress aria-label=${label} max="1" .value=${share ?? 0} ?data-open=${share === undefined}></progress>
    <span class="moving" aria-hidden="true"></span>
    <p><b>${stopping ? 'Stopping …' : label}</b> <span class="muted">${parts.join(' · ')}</span></p>
    ${stop === undefined ? nothing : html`<button type="button" class="button" ?disabled=${stopping} @click=${stop}>Stop</button>`}
  </div>`;
}
