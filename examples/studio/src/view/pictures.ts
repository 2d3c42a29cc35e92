import { type TemplateResult, html, nothing } from 'lit-html';
import { repeat } from 'lit-html/directives/repeat.js';
import { drawPictures, stopDrawing } from '../actions/draw';
import type { DrawSettings, ModelInfo, Pixels, Solver, Who } from '../protocol';
import { type State, amend, state as now } from '../state';
import { numberField, selectField, sliderField } from './fields';
import { paint } from './paint';
import { stopButton } from './stop-button';

/** Teacher and student from the same noise, and what they draw. */
export function pictures(state: State): TemplateResult {
  const { model, shown, drawing, job, pictures: drawn } = state;
  const busy = job !== undefined;
  const labels = shown.draw?.labels ?? [];
  return html`<section class="card pictures" aria-labelledby="pictures-title" aria-busy=${drawing}>
    <div class="head">
      <h2 id="pictures-title">Pictures</h2>
      <p class="hint">The same noise for both.</p>
      <div class="buttons">
        ${drawing
          ? stopButton('Stop', stopDrawing)
          : html`<button type="button" class="button primary" ?disabled=${busy || model === undefined || state.draw.labels.length === 0} @click=${() => void drawPictures()}>Draw</button>`}
      </div>
    </div>
    <div class="who">${rate(state, 'teacher')}${rate(state, 'student')}</div>
    <div class="grid" style="--columns:${Math.min(5, Math.max(3, labels.length || 5))}">
      ${labels.length === 0
        ? Array.from({ length: 10 }, () => html`<div class="pair ghost"><span></span><span></span></div>`)
        : repeat(
            labels.map((_, i) => i),
            (i) => `${i} ${labels.length}`,
            (i) => html`<figure class="pair">${picture(state, 'teacher', labels, i)}${picture(state, 'student', labels, i)}<figcaption>${className(model, labels[i]!)}</figcaption></figure>`,
          )}
    </div>
    ${drawn.teacher === undefined && drawn.student === undefined && labels.length === 0 && !drawing && model !== undefined ? html`<p class="muted">Press Draw: this model is large, and may take a while.</p>` : nothing}
    ${model === undefined ? nothing : settings(state, model, busy)}
  </section>`;
}

const className = (model: ModelInfo | undefined, label: number): string => model?.classNames[label] ?? `class ${label}`;

function rate({ pictures: drawn, preparing, shown, model, choice, drawing, backend }: State, who: Who): TemplateResult {
  const preview = drawn[who];
  const ready = preparing[who];
  const waiting = !drawing ? 'not drawn' : backend?.name !== 'webgpu' ? 'begins' : ready === undefined || ready.of === 1 ? 'the GPU’s programs are prepared' : `${ready.prepared} of ${ready.of} programs for the GPU`;
  const done = preview !== undefined && preview.step === preview.total;
  const speed = (): unknown => {
    if (preview === undefined) return html`<span class="muted">${waiting}</span>`;
    if (!done) return html`step ${preview.step} of ${preview.total}`;
    // what recovery shows on its way is not timed
    return preview.seconds > 0 ? html`<b>${(preview.pixels.count / preview.seconds).toPrecision(3)}</b> images/s` : nothing;
  };
  return html`<div class="rate ${who}">
    <p><strong>${who === 'teacher' ? 'Teacher' : 'Student'}</strong></p>
    <p class="muted">${who === 'teacher' ? `${model?.depth ?? '…'} blocks` : shown.student !== '' ? shown.student : `${model === undefined ? '…' : choice.kept.length} blocks`}</p>
    <p class="speed">${speed()}</p>
    <span class="bar" style="--done:${preview === undefined ? 0 : preview.step / preview.total}" aria-hidden="true"></span>
  </div>`;
}

function picture({ pictures: drawn, model }: State, who: Who, labels: readonly number[], i: number): TemplateResult {
  const preview = drawn[who];
  const pixels = preview !== undefined && i < preview.pixels.count ? preview.pixels : undefined;
  const words = `${className(model, labels[i]!)} by the ${who}${preview === undefined ? ', not drawn yet' : preview.step < preview.total ? `, step ${preview.step} of ${preview.total}` : ''}`;
  return html`<canvas class="${who} ${pixels === undefined ? 'blank' : ''}" role="img" aria-label=${words} width=${pixels?.width ?? 28} height=${pixels?.height ?? 28} ${paint((canvas) => put(canvas, pixels, i), pixels)}></canvas>`;
}

/** Puts one image of a batch on a canvas. */
function put(canvas: HTMLCanvasElement, pixels: Pixels | undefined, i: number): void {
  const context = canvas.getContext('2d', { willReadFrequently: true })!;
  if (pixels === undefined) return context.clearRect(0, 0, canvas.width, canvas.height);
  const { height, width, channels, bytes } = pixels;
  canvas.width = width;
  canvas.height = height;
  const image = context.createImageData(width, height);
  const from = i * height * width * channels;
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = bytes[from + p * channels + Math.min(c, channels - 1)]!;
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

const solvers: Readonly<Record<ModelInfo['family'], readonly (readonly [Solver, string])[]>> = {
  DiT: [['dpm', 'DPM-Solver++'], ['ddim', 'DDIM'], ['ddpm', 'DDPM']],
  SiT: [['heun', 'Heun'], ['euler', 'Euler']],
  MAR: [['mar', 'masked tokens']],
};

function settings(state: State, model: ModelInfo, busy: boolean): TemplateResult {
  const { draw } = state;
  const change = (part: Partial<DrawSettings>): void => amend('draw', part);
  // what is typed is read as far as it is classes, and shown as it was read; nothing leaves what there was
  const typed = (input: HTMLInputElement): void => {
    const labels = labelsOf(input.value, model.numClasses);
    if (labels.length > 0) change({ labels });
    input.value = (labels.length > 0 ? labels : now.draw.labels).join(', ');
  };
  return html`<div class="settings">
    ${model.classNames.length > 0
      ? html`<fieldset class="classes">
          <legend>Classes</legend>
          ${model.classNames.map((name, label) => html`<label class="chip"><input type="checkbox" .checked=${draw.labels.includes(label)} ?disabled=${busy} @change=${(event: globalThis.Event) => change({ labels: withLabel(now.draw.labels, label, (event.target as HTMLInputElement).checked) })} /><span>${name}</span></label>`)}
        </fieldset>`
      : html`<label class="field wide"><span>Classes, 0 to ${model.numClasses - 1}</span><input type="text" inputmode="numeric" .value=${draw.labels.join(', ')} ?disabled=${busy} @change=${(event: globalThis.Event) => typed(event.target as HTMLInputElement)} /></label>`}
    <div class="fields">
      ${sliderField({ label: 'Steps', value: draw.steps, min: 2, max: 50, disabled: busy, change: (steps) => change({ steps }) })}
      ${sliderField({ label: 'Guidance', value: draw.guidance, min: 1, max: 6, step: 0.1, shown: draw.guidance === 1 ? 'none' : draw.guidance.toFixed(1), disabled: busy, change: (guidance) => change({ guidance }) })}
      ${selectField({ label: 'Solver', value: draw.solver, options: solvers[model.family], disabled: busy, change: (solver) => change({ solver }) })}
      <div class="seed">
        ${numberField({ label: 'Seed', value: draw.seed, min: 0, max: 2 ** 31, disabled: busy, change: (seed) => change({ seed }) })}
        <button
          type="button"
          class="button"
          ?disabled=${busy || draw.labels.length === 0}
          @click=${() => {
            change({ seed: crypto.getRandomValues(new Uint16Array(1))[0]! });
            void drawPictures();
          }}
        >Other noise</button>
      </div>
    </div>
  </div>`;
}

const withLabel = (labels: readonly number[], label: number, on: boolean): number[] => [...labels.filter((l) => l !== label), ...(on ? [label] : [])].toSorted((a, b) => a - b);

/** The numbers of a text that are classes, 32 at most. */
const labelsOf = (text: string, classes: number): number[] => [...text.matchAll(/\d+/g)].map(([n]) => Number(n)).filter((n) => n < classes).slice(0, 32);
