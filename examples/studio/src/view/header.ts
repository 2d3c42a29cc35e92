import { type TemplateResult, html, nothing } from 'lit-html';
import { openEmbedded, openFile } from '../actions/open';
import type { State } from '../state';
import { megabytes, short, whole } from '../words';

/** The documentation, where the page is built as a part of it. */
const site = import.meta.env['VITE_SITE'] as string | undefined;

const names = { webgpu: 'WebGPU', wasm: 'WebAssembly', cpu: 'plain JavaScript' } as const;

/** The page's name, what computes, and the model. */
export const header = (state: State): TemplateResult => html`<header class="top">
  <div class="brand">
    <svg viewBox="0 0 32 32" width="34" height="34" aria-hidden="true"><rect x="3" y="4" width="26" height="6" rx="2" class="on" /><rect x="3.75" y="13.75" width="24.5" height="4.5" rx="1.5" class="off" /><rect x="3" y="22" width="26" height="6" rx="2" class="on" /></svg>
    <div>
      <h1>TinyFusion Studio</h1>
      <p>Make a diffusion transformer shallow, here in the page. Nothing leaves your machine.${site === undefined ? nothing : html` <a href=${site}>How it works</a>`}</p>
    </div>
  </div>
  <dl class="facts">
    <div>
      <dt>Computing with</dt>
      <dd>${state.backend === undefined ? '…' : names[state.backend.name]}</dd>
      ${state.backend === undefined ? nothing : html`<dd class="why">${sentence(state.backend.why)}</dd>`}
    </div>
    <div class="memory">
      <dt>Memory</dt>
      <dd>${state.memory === undefined ? '…' : megabytes(state.memory.bytes)}</dd>
      <dd class="why">${state.memory === undefined ? nothing : `${whole(state.memory.tensors)} tensors`}</dd>
    </div>
  </dl>
</header>`;

const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The model at hand, and ways to another. */
export function modelBar(state: State): TemplateResult {
  const { model, job, asking } = state;
  const busy = job !== undefined;
  return html`<section class="model card" aria-labelledby="model-title">
    <div class="what">
      <h2 id="model-title">${model === undefined ? 'Opening the teacher …' : model.name}</h2>
      ${model === undefined
        ? html`<p class="muted">A small DiT that draws clothes; 4 MB.</p>`
        : html`<p class="muted">${model.family}, ${model.depth} blocks, ${short(model.parameters)} parameters, ${whole(model.numClasses)} classes${model.pictures === 'latents' ? ', shown as raw latents: drop in its autoencoder to see pictures' : ''}${model.history === undefined ? '' : `. ${model.history}`}</p>`}
      ${model !== undefined && !model.hasData ? html`<p class="note">This page has images of clothes only, so this model can be looked at, cut and saved; learning, recovering and measuring need the embedded teacher or one like it.</p>` : nothing}
    </div>
    <div class="ways">
      <label class="button ${busy ? 'disabled' : ''}">
        <input
          class="hidden"
          type="file"
          accept=".pt,.pth,.bin,.safetensors,.npz"
          ?disabled=${busy}
          @change=${(event: globalThis.Event) => {
            const input = event.target as HTMLInputElement;
            const file = input.files?.[0];
            if (file !== undefined) void openFile(file);
            input.value = '';
          }}
        />Open a file …</label
      >
      <div class="embedded" role="group" aria-label="Embedded teachers">
        ${(['DiT', 'SiT', 'MAR'] as const).map((family) => html`<button type="button" class="button" aria-pressed=${model?.embedded === true && model.family === family} ?disabled=${busy} @click=${() => void openEmbedded(family)}>${family}</button>`)}
      </div>
      <p class="muted">Embedded, or drop a <code>.pt</code> or <code>.safetensors</code> anywhere.</p>
    </div>
    ${asking === undefined
      ? nothing
      : html`<div class="asking" role="group" aria-label="Which model is it?">
          <p>${asking.file.name} holds ${asking.summary}. Its shapes fit several models; which one is it?</p>
          ${asking.presets.map((preset) => html`<button type="button" class="button" ?disabled=${busy} @click=${() => void openFile(asking.file, preset)}>${preset}</button>`)}
        </div>`}
  </section>`;
}
