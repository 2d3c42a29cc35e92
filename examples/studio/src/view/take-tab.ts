import { type TemplateResult, html, nothing } from 'lit-html';
import { downloadStudent } from '../actions/download';
import { type State, ownStudent, update } from '../state';
import { megabytes, short } from '../words';
import { selectField } from './fields';

/** The shallow model as a file. */
export function takeTab(state: State): TemplateResult {
  const { model, job, choice, precision, record } = state;
  const busy = job !== undefined;
  const own = ownStudent(state);
  const parameters = own?.parameters;
  return html`
    <h3>Take it home</h3>
    <p class="lead">${own !== undefined ? own.described : choice.kept.length === model!.depth ? 'All blocks are on: this is the teacher.' : `The ${choice.kept.length} blocks that are on, with the teacher’s weights: cut, not recovered.`} The file says itself what it was cut from and how; drop it in here, or load it in Node or Python.</p>
    <dl class="summary">
      <div><dt>Blocks</dt><dd>${choice.kept.length}<small> of ${model!.depth}</small></dd></div>
      ${parameters === undefined ? nothing : html`<div><dt>Parameters</dt><dd>${short(parameters)}<small> of ${short(model!.parameters)}</small></dd></div><div><dt>File</dt><dd>${megabytes(parameters * (precision === 'F16' ? 2 : 4))}</dd></div>`}
    </dl>
    <div class="fields">
      ${selectField({ label: 'Numbers', value: precision, options: [['F16', 'half precision'], ['F32', 'full precision']] as const, disabled: busy, change: (chosen) => update({ precision: chosen }) })}
    </div>
    <div class="buttons"><button type="button" class="button primary" ?disabled=${busy} @click=${() => void downloadStudent()}>Download .safetensors</button></div>
    ${record === undefined ? nothing : html`<details open><summary>Its record</summary><pre tabindex="0">${JSON.stringify(record, undefined, 2).replaceAll(/\[[\d\s,.]*\]/g, (list) => list.replaceAll(/\s+/g, ' '))}</pre></details>`}
    <details>
      <summary>Load it in Node</summary>
      <pre tabindex="0">import { loadModel } from '@tinyfusion/models';
import { loadSafetensors } from '@tinyfusion/weights/node';

const student = await loadModel(await loadSafetensors('student.safetensors'));</pre>
    </details>
  `;
}
