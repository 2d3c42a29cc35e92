import { html, nothing, render } from 'lit-html';
import { openFile, start } from './actions/open';
import { watchMemory } from './client';
import { type State, state, update, watch } from './state';
import { bar } from './view/bar';
import { blocks } from './view/blocks';
import { header, modelBar } from './view/header';
import { pictures } from './view/pictures';
import { workbench } from './view/tabs';

/** The page: it draws what the worker says, and computes nothing itself. */

const app = document.querySelector<HTMLElement>('#app')!;
app.replaceChildren();

// the parts are built a frame each, top to bottom, and take a model a frame each: all in one would hold a frame too long
const parts = [(now: State) => html`${header(now)}`, modelBar, blocks, pictures, workbench];
let [built, given] = [0, 0];

const page = (now: State): unknown => {
  const part = (i: number): unknown => (i < built ? parts[i]!(i < given ? now : { ...now, model: undefined }) : nothing);
  return html`
    ${part(0)}
    <main>
      ${part(1)} ${part(2)}
      <div class="columns">${part(3)} ${part(4)}</div>
    </main>
    ${bar(now)}
    <p class="hidden" role="status">${now.said}</p>
    ${now.dropping ? html`<div class="drop" aria-hidden="true"><p>Drop the file: a teacher, a student, or an autoencoder</p></div>` : nothing}
  `;
};

watch((now) => {
  if (built < parts.length) built += 1;
  else if (now.model !== undefined && given < parts.length) given += 1;
  if (built < parts.length || (now.model !== undefined && given < parts.length)) update({});
  render(page(now), app);
});
watchMemory((memory) => update({ memory }));

// a file may be dropped anywhere
const holdsFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') === true;
addEventListener('dragover', (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  if (!state.dropping) update({ dropping: true });
});
addEventListener('dragleave', (event) => {
  if (event.relatedTarget === null) update({ dropping: false });
});
addEventListener('drop', (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  update({ dropping: false });
  const file = event.dataTransfer!.files[0];
  if (file === undefined) return;
  if (state.job !== undefined) update({ error: `${state.job.label} has to end first; then drop the file again.` });
  else void openFile(file);
});

update({});
requestAnimationFrame(() => void start());
