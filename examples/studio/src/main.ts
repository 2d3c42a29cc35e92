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

// a model changes every part, and all in one would hold a frame too long: they take it a frame each, top to bottom
const parts = [(now: State) => html`${header(now)}`, modelBar, blocks, pictures, workbench];
let had = false;
let given = parts.length;

const page = (now: State): unknown => {
  const part = (i: number): unknown => parts[i]!(i < given ? now : { ...now, model: undefined });
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
  if (now.model !== undefined && !had) given = 1;
  had = now.model !== undefined;
  if (given < parts.length) {
    given += 1;
    update({});
  }
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

render(page(state), app);
void start();
