import { type TemplateResult, html, nothing } from 'lit-html';
import { keepAll, take, toggle } from '../actions/choose';
import { type State, ownStudent, timeShare } from '../state';
import { change, chosenBy, percent } from '../words';

/** The blocks as a row of switches, with what each is worth. */
export function blocks(state: State): TemplateResult {
  const { model, choice, costs, job, moments, student } = state;
  if (model === undefined) return html`<section class="card blocks" aria-hidden="true"><div class="row">${Array.from({ length: 12 }, () => html`<span class="block ghost"><span class="body"></span></span>`)}</div></section>`;
  const learning = job?.kind === 'learn' ? moments.at(-1)?.decision : undefined;
  const inclusion = learning?.groups.flatMap((group) => group.inclusion);
  const rises = costs?.loss === undefined ? [] : costs.alone.map((loss) => Math.max(0, loss / costs.loss! - 1));
  const most = Math.max(1e-9, ...rises);
  const busy = job !== undefined;
  return html`<section class="card blocks" aria-labelledby="blocks-title">
    <div class="head">
      <h2 id="blocks-title">Blocks</h2>
      <p class="hint">Click a block to leave it out.</p>
      <div class="buttons">
        <button type="button" class="quiet" ?disabled=${busy || choice.kept.length === model.depth} @click=${keepAll}>All on</button>
        ${student === undefined ? nothing : html`<button type="button" class="quiet" ?disabled=${busy || ownStudent(state) !== undefined} @click=${() => take(student.choice)}>The recovered student’s</button>`}
      </div>
    </div>
    <div class="row ${model.depth > 16 ? 'many' : ''}" role="group" aria-label="Blocks, first to last">
      ${Array.from({ length: model.depth }, (_, i) => {
        const kept = choice.kept.includes(i);
        const rise = rises[i];
        const words = [...(rise === undefined ? [] : [`without it alone the loss is ${change(rise)}`]), ...(costs === undefined ? [] : [`${costs.times[i]!.toFixed(1)} ms a batch`])];
        const first = model.stacks.length > 1 && i === model.stacks[0];
        return html`<button
          type="button"
          class="block ${first ? 'second' : ''}"
          aria-pressed=${kept}
          aria-label=${[`Block ${i}`, ...words].join(', ')}
          title=${[`Block ${i}: ${kept ? 'on' : 'off'}`, ...words].join('\n')}
          ?disabled=${busy}
          @click=${() => toggle(i)}
          style="--fill:${inclusion?.[i] ?? (kept ? 1 : 0)};--rise:${rise === undefined ? 0 : Math.sqrt(rise / most)}"
        >
          <span class="cost" aria-hidden="true"></span><span class="body" aria-hidden="true"><span class="fill"></span></span><span class="n" aria-hidden="true">${i}</span>
        </button>`;
      })}
    </div>
    <p class="legend muted">${rises.length > 0 ? html`<span class="key cost"></span> what leaving out that block alone does to the loss, from ${change(Math.min(...rises))} to ${change(most)}` : model.hasData ? 'Finding out what each block is worth …' : nothing}</p>
    ${summary(state)}
  </section>`;
}

/** What the choice means, in one line. */
function summary(state: State): TemplateResult {
  const { model, choice, costs, studentLoss } = state;
  const time = timeShare(state);
  const own = ownStudent(state);
  const recovered = own !== undefined && own.steps !== 0;
  const loss = recovered ? studentLoss : state.loss;
  const whole = costs?.loss;
  return html`<dl class="summary" aria-live="polite">
    <div><dt>Blocks on</dt><dd>${choice.kept.length}<small> of ${model!.depth}</small></dd></div>
    <div><dt>Time</dt><dd>${time === undefined ? '…' : percent(time)}<small>${time === undefined ? '' : ` · ${(1 / time).toFixed(2)}× as fast`}</small></dd></div>
    ${model!.hasData
      ? html`<div><dt>${recovered ? 'Loss of the student' : 'Loss, cut like this'}</dt><dd>${typeof loss === 'number' ? loss.toFixed(4) : '…'}<small>${typeof loss === 'number' && whole !== undefined ? ` · ${change(loss / whole - 1)}` : ''}</small></dd></div>`
      : nothing}
    <div><dt>Student</dt><dd class="text">${own === undefined ? (choice.kept.length === model!.depth ? 'the whole teacher' : 'cut, not recovered') : own.steps === undefined ? 'recovered, from a file' : own.steps === 0 ? 'cut, not recovered' : `recovered in ${own.steps} steps`}<small> · ${chosenBy(choice.criterion)}</small></dd></div>
  </dl>`;
}
