import { type TemplateResult, html } from 'lit-html';
import { whenIdle } from '../actions/quiet';
import { type State, type TabName, update } from '../state';
import { chooseTab } from './choose-tab';
import { measureTab } from './measure-tab';
import { recoverTab } from './recover-tab';
import { takeTab } from './take-tab';

const tabs: readonly (readonly [TabName, string, (state: State) => TemplateResult])[] = [
  ['choose', 'Choose', chooseTab],
  ['recover', 'Recover', recoverTab],
  ['measure', 'Measure', measureTab],
  ['take', 'Take home', takeTab],
];

const show = (tab: TabName): void => {
  update({ tab });
  whenIdle();
};

/** The four steps; arrows go from one to the next. */
export function workbench(state: State): TemplateResult {
  const at = tabs.findIndex(([name]) => name === state.tab);
  const go = (event: KeyboardEvent): void => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const [name] = tabs[(to + tabs.length) % tabs.length]!;
    show(name);
    document.getElementById(`tab-${name}`)?.focus();
  };
  return html`<section class="card bench" aria-label="Steps">
    <div class="tabs" role="tablist" aria-label="Steps" @keydown=${go}>
      ${tabs.map(([name, title], i) => html`<button type="button" role="tab" id="tab-${name}" aria-controls="panel-${name}" aria-selected=${name === state.tab} tabindex=${name === state.tab ? 0 : -1} @click=${() => show(name)}><span class="number" aria-hidden="true">${i + 1}</span>${title}</button>`)}
    </div>
    ${tabs.map(([name, , panel]) => html`<div role="tabpanel" id="panel-${name}" aria-labelledby="tab-${name}" ?hidden=${name !== state.tab} tabindex="0">${name === state.tab && state.model !== undefined ? panel(state) : ''}</div>`)}
  </section>`;
}
